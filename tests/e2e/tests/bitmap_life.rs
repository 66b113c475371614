// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bitmap's life by `qemu-img bitmap`, and what is on disk meanwhile.

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot};
use serde_json::{Value, json};

fn bitmaps(bench: &Bench) -> Result<Value> {
    Ok(bench.info("disk.qbm")?["format-specific"]["data"]["bitmaps"].clone())
}

#[test]
fn an_added_bitmap_is_on_disk_as_the_format_says() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;

    let descriptor = bench.descriptor("disk.qbm")?;
    let b0 = &descriptor.qbm()["bitmaps"]["b0"];
    assert_eq!(b0["file"], "disk.qbm.b0.bitmap");
    assert_eq!(b0["granularity-bytes"], 65536);
    assert_eq!(b0["type"], "dirty");
    // 64 MiB at 64 KiB a bit.
    let bitmap = descriptor.bitmap("b0")?;
    assert_eq!((bitmap.length_bytes(), bitmap.set_count()), (128, 0));
    let listed = json!([{ "name": "b0", "granularity": 65536, "flags": ["auto"] }]);
    assert_eq!(bitmaps(&bench)?, listed);
    Ok(())
}

#[test]
fn the_descriptor_can_be_read_by_a_person() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let text = String::from_utf8(bench.read("disk.qbm")?)?;
    assert!(text.lines().count() > 5, "all on one line: {text}");
    assert!(text.ends_with('\n'), "no newline at the end: {text:?}");
    Ok(())
}

#[test]
fn a_removed_bitmap_leaves_nothing_behind() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let before = Snapshot::of(bench.directory())?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    assert_eq!(before.added()?, ["disk.qbm.b0.bitmap"]);
    bench.img("bitmap --remove -f qbm disk.qbm b0")?;

    assert_eq!(before.added()?, Vec::<String>::new());
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    let refusal = bench.img_refuses("bitmap --remove -f qbm disk.qbm b0")?;
    assert!(refusal.stderr.contains("'b0' not found"), "{refusal}");
    Ok(())
}

#[test]
fn bits_add_up_over_runs_until_they_are_cleared() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 64k"])?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(),
        [0, 16]
    );

    bench.img("bitmap --clear -f qbm disk.qbm b0")?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.set_count(), 0);
    bench.io("disk.qbm", &["write -P 1 2M 64k"])?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [32]);
    Ok(())
}

#[test]
fn a_disabled_bitmap_records_nothing_until_enabled() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.img("bitmap --disable -f qbm disk.qbm b0")?;
    assert_eq!(bitmaps(&bench)?[0]["flags"], json!([]));
    bench.io("disk.qbm", &["write -P 1 0 64k"])?;
    bench.img("bitmap --enable -f qbm disk.qbm b0")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;

    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    assert_eq!(bitmaps(&bench)?[0]["flags"], json!(["auto"]));
    Ok(())
}

#[test]
fn a_merge_holds_the_bits_of_both() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 64k"])?;
    bench.img("bitmap --add --disable -f qbm disk.qbm both")?;
    bench.img("bitmap --merge b0 -f qbm disk.qbm both")?;

    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("both")?.granules(),
        [0]
    );
    Ok(())
}

#[test]
fn every_granularity_has_its_own_file_size() -> Result<()> {
    let bench = Bench::new()?;
    // No multiple of any granularity.
    let size_bytes = (8_u64 << 20) + 512;
    bench.img(&format!("create -q -f qbm disk.qbm {size_bytes}"))?;
    for granularity_bytes in [512, 4096, 65536, 2 << 20, 1_u64 << 31] {
        let name = format!("g{granularity_bytes}");
        bench.img(&format!(
            "bitmap --add -g {granularity_bytes} -f qbm disk.qbm {name}"
        ))?;
    }
    let last = format!("write -P 1 {} 512", size_bytes - 512);
    bench.io("disk.qbm", &[&last])?;
    let descriptor = bench.descriptor("disk.qbm")?;
    for name in descriptor.bitmap_names() {
        let bitmap = descriptor.bitmap(&name)?;
        let granules_count = size_bytes.div_ceil(bitmap.granularity_bytes());
        assert_eq!(bitmap.length_bytes(), granules_count.div_ceil(8), "{name}");
        assert_eq!(bitmap.granules(), [granules_count - 1], "{name}");
    }
    Ok(())
}
