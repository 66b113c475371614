// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img resize` with bitmaps: what is refused, preallocation, several bitmaps, sizes that
//! are no whole granule.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::json;

fn image(bench: &Bench) -> Result<()> {
    bench.image_with_bitmap("disk", "4M", "64k")?;
    bench.img("bitmap --add -g 1M -f qbm disk b1")?;
    bench.img("bitmap --add --disable -g 4k -f qbm disk off")?;
    bench
        .io("disk", &["write -P 1 1M 64k", "write -P 2 3M 64k"])
        .map(drop)
}

#[test]
fn every_bitmap_follows() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    bench.img("resize -q -f qbm disk +1000k")?;
    let descriptor = bench.descriptor("disk")?;
    let grown: Vec<u64> = [16, 48].into_iter().chain(64..80).collect();
    assert_eq!(descriptor.bitmap("b0")?.granules(), grown);
    assert_eq!(descriptor.bitmap("b1")?.granules(), [1, 3, 4]);
    // One that does not record is not told of anything.
    assert_eq!(descriptor.bitmap("off")?.set_count(), 0);
    assert_eq!(
        descriptor.bitmap("off")?.length_bytes(),
        (4096 + 1000) / 4 / 8 + 1
    );

    bench.img("resize -q --shrink -f qbm disk -- -3000k")?;
    let descriptor = bench.descriptor("disk")?;
    assert_eq!(bench.info("disk")?["virtual-size"], 2096 << 10);
    assert_eq!(descriptor.bitmap("b0")?.granules(), [16]);
    assert_eq!(descriptor.bitmap("b1")?.granules(), [1]);
    bench.io("disk", &["write -P 3 2080k 16k", "read -P 1 1M 64k"])?;
    assert_eq!(bench.descriptor("disk")?.bitmap("b0")?.granules(), [16, 32]);
    bench.img("check -q -f qbm disk")?;
    Ok(())
}

#[test]
fn preallocation_as_with_raw() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let used_bytes =
        |bench: &Bench| -> Result<u64> { Ok(fs::metadata(bench.path("disk.raw"))?.blocks() * 512) };
    for (mode, allocates) in [("off", false), ("falloc", true), ("full", true)] {
        let before = used_bytes(&bench)?;
        bench.img(&format!("resize -q --preallocation={mode} -f qbm disk +1M"))?;
        let grown = used_bytes(&bench)? >= before + (1 << 20);
        assert_eq!(grown, allocates, "{mode}");
    }
    let before = bench.info("disk")?["virtual-size"].clone();
    let refused = bench.img_refuses("resize --preallocation=metadata -f qbm disk +1M")?;
    let words = "Unsupported preallocation mode: metadata";
    assert!(refused.stderr.contains(words), "{refused}");
    let refused = bench.img_refuses("resize --preallocation=some -f qbm disk +1M")?;
    let words = "Invalid preallocation mode 'some'";
    assert!(refused.stderr.contains(words), "{refused}");
    assert_eq!(bench.info("disk")?["virtual-size"], before);
    // A resize that failed has cost nothing.
    let bits = bench.descriptor("disk")?.bitmap("b0")?;
    let grown: Vec<u64> = [16, 48].into_iter().chain(64..112).collect();
    assert_eq!(bits.granules(), grown);
    Ok(())
}

#[test]
fn what_is_refused_as_with_qcow2() -> Result<()> {
    let said = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        bench.image_with_bitmap_as(format, "disk", "4M", "64k")?;
        let mut said = Vec::new();
        for args in [
            "disk 2M",
            "disk -- -1M",
            "disk nonsense",
            "disk -- -5M",
            "disk",
            "nothing 8M",
        ] {
            let line = format!("resize -f {format} {args}");
            said.push(bench.img_refuses(&line)?.stderr);
        }
        assert_eq!(bench.info("disk")?["virtual-size"], 4 << 20);
        Ok(said)
    };
    assert_eq!(said("qbm")?, said("qcow2")?);
    Ok(())
}

/// An image is resized while it is open: QMP says what qemu-img would.
#[test]
fn block_resize_with_busy_and_inconsistent_bitmaps() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk")?;
    let resize = |size_bytes: u64| json!({ "node-name": "disk", "size": size_bytes });
    daemon.listen()?;
    let export = json!({
        "type": "nbd", "id": "bits", "node-name": "disk", "name": "bits", "bitmaps": ["off"],
    });
    daemon.qmp.execute("block-export-add", export)?;
    let said = daemon.qmp.refuses("block_resize", resize(6 << 20))?;
    assert!(said.contains("permissions 'resize'"), "{said}");
    daemon.unexport("bits")?;
    daemon.qmp.execute("block_resize", resize(6 << 20))?;
    daemon.kill()?;

    // A bitmap that a crash in durability=close made inconsistent is in nobody's way.
    let options = json!({ "durability": "close" });
    StorageDaemon::with_image_options(&bench, "disk", &options)?.kill()?;
    bench.img("resize -q -f qbm disk 8M")?;
    assert_eq!(bench.info("disk")?["virtual-size"], 8 << 20);
    Ok(())
}
