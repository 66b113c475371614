// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img measure` and `convert --bitmaps`, qbm beside qcow2.

use anyhow::Result;
use qbm_testkit::Bench;
use serde_json::Value;

fn measure(bench: &Bench, args: &str) -> Result<Value> {
    let output = bench.img(&format!("measure --output=json {args}"))?;
    Ok(serde_json::from_str(&output.stdout)?)
}

#[test]
fn bitmaps_are_measured_where_the_source_can_have_them() -> Result<()> {
    let bench = Bench::new()?;
    for format in ["qbm", "qcow2"] {
        let name = format!("disk.{format}");
        bench.img(["create", "-q", "-f", format, &name, "1G"])?;
        let empty = measure(&bench, &format!("-f {format} -O qbm {name}"))?;
        assert_eq!(empty["required"], 1 << 30);
        assert_eq!(empty["bitmaps"], 0, "{empty}");
        bench.img(["bitmap", "--add", "-f", format, &name, "b0"])?;
        bench.img([
            "bitmap",
            "--add",
            "--disable",
            "-g",
            "4k",
            "-f",
            format,
            &name,
            "b1",
        ])?;
        let two = measure(&bench, &format!("-f {format} -O qbm {name}"))?;
        // A bit for each 64 KiB, and one for each 4 KiB.
        assert_eq!(two["bitmaps"], (1 << 30) / 65536 / 8 + (1 << 30) / 4096 / 8);
        let qcow2 = measure(&bench, &format!("-f {format} -O qcow2 {name}"))?;
        assert!(qcow2["bitmaps"].as_u64() > Some(0), "{qcow2}");
    }
    assert_eq!(measure(&bench, "--size 1G -O qbm")?.get("bitmaps"), None);
    let refused = bench.img_refuses("measure --size 1G -O qbm -o preallocation=some")?;
    assert!(refused.stderr.contains("not 'some'"), "{refused}");
    Ok(())
}

#[test]
fn bitmaps_are_converted_both_ways() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "1M", "64k")?;
    bench.img("bitmap --add --disable -f qbm disk.qbm b1")?;
    bench.io("disk.qbm", &["write -P 7 128k 64k"])?;
    bench.img("convert --bitmaps -f qbm -O qcow2 disk.qbm copy.qcow2")?;
    bench.img("convert --bitmaps -f qcow2 -O qbm copy.qcow2 back.qbm")?;
    bench.img("convert --bitmaps -f qbm -O qbm back.qbm again.qbm")?;
    // qcow2 has its own order.
    let flags = |info: &Value| {
        let bitmaps = info["format-specific"]["data"]["bitmaps"].as_array();
        let mut bitmaps = bitmaps.cloned().unwrap_or_default();
        bitmaps.sort_by_key(|bitmap| bitmap["name"].to_string());
        bitmaps
    };
    let first = flags(&bench.info("disk.qbm")?);
    for name in ["copy.qcow2", "back.qbm", "again.qbm"] {
        assert_eq!(flags(&bench.info(name)?), first, "{name}");
        bench.img(["compare", "disk.qbm", name])?;
    }
    let again = bench.descriptor("again.qbm")?;
    assert_eq!(again.bitmap("b0")?.granules(), [2]);
    assert_eq!(again.bitmap("b1")?.set_count(), 0);
    Ok(())
}
