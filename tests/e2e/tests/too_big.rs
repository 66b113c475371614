// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps with more bits than QEMU holds in memory: others make and use them.

use anyhow::Result;
use qbm_testkit::bitmaps::{self, on_disk};
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::json;

const LIMIT_BYTES: u64 = 2 << 40;

/// An image with a bitmap of 512 bytes a bit and one granule too many for QEMU.
fn image_with_large_bitmap(bench: &Bench) -> Result<()> {
    let granules_count = LIMIT_BYTES / 512 + 1;
    bench.sparse("disk.raw", LIMIT_BYTES + 512, &[])?;
    bench.img("create -q -f qbm -o data_file=disk.raw disk.qbm")?;
    bench.sparse("large.bitmap", granules_count.div_ceil(8), &[(0, &[1])])?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    descriptor.json_mut()["QBM"]["bitmaps"]["large"] = json!({
        "file": "large.bitmap", "granularity-bytes": 512, "type": "dirty",
    });
    descriptor.write()
}

/// It is shown, and can be removed and nothing else; its name is taken.
#[test]
fn a_bitmap_that_is_too_big_can_be_removed() -> Result<()> {
    let bench = Bench::new()?;
    image_with_large_bitmap(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert!(
        daemon.stderr().contains("'large'") && daemon.stderr().contains("too big for QEMU"),
        "{}",
        daemon.stderr()
    );
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    assert_eq!(list[0]["inconsistent"], true, "{list:?}");
    for verb in ["clear", "enable", "disable"] {
        let command = format!("block-dirty-bitmap-{verb}");
        let refusal = daemon.qmp.refuses(&command, on_disk("large"))?;
        assert!(refusal.contains("'large' is inconsistent"), "{refusal}");
    }
    let mut add = on_disk("large");
    add["persistent"] = json!(true);
    let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
    assert!(refusal.contains("already exists: large"), "{refusal}");
    // Other bitmaps come and go beside it.
    bitmaps::add(&mut daemon.qmp, "daily", 65536)?;
    daemon.export()?.write(1 << 30, &[1; 100])?;
    daemon.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.bitmap("daily")?.granules(), [1 << 14]);
    // It has recorded what QEMU could not.
    let large = descriptor.bitmap("large")?;
    assert!(large.is_set(0) && large.is_set(1 << 21), "not recorded");

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    bitmaps::run(&mut daemon.qmp, "remove", "large")?;
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["daily"]);
    assert!(!bench.path("large.bitmap").exists());
    Ok(())
}

/// A resize would make a bitmap that QEMU could not load again.
#[test]
fn an_image_does_not_outgrow_its_bitmaps() -> Result<()> {
    let bench = Bench::new()?;
    bench.img(&format!("create -q -f qbm disk.qbm {LIMIT_BYTES}"))?;
    bench.img("bitmap --add -g 512 -f qbm disk.qbm fine")?;
    let refusal = bench.img_refuses("resize -f qbm disk.qbm +512")?;
    assert!(
        refusal
            .stderr
            .contains("Granularity 512 of bitmap 'fine' is too small"),
        "{refusal}"
    );
    bench.img("bitmap --remove -f qbm disk.qbm fine")?;
    bench.img("resize -q -f qbm disk.qbm +512")?;
    Ok(())
}
