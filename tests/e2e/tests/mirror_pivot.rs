// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a guest's disk goes by a mirror, the bitmaps there record from then on, exactly as
//! those of a qcow2 image do.

use anyhow::{Context, Result};
use qbm_testkit::{Bench, Machine, StorageDaemon, backup, bitmaps, jobs, migration};
use serde_json::{Value, json};

const GRANULE: u64 = 65536;

fn add_bitmap(daemon: &mut StorageDaemon, node: &str, name: &str) -> Result<()> {
    let add = json!({ "node": node, "name": name, "persistent": true, "granularity": GRANULE });
    daemon.qmp.execute("block-dirty-bitmap-add", add).map(drop)
}

fn mirror_full(daemon: &mut StorageDaemon, device: &str, target: &str) -> Result<()> {
    let job = json!({ "device": device, "target": target, "sync": "full" });
    jobs::run(&mut daemon.qmp, "blockdev-mirror", &job)
}

/// The bytes that each bitmap of a node marks.
fn counts(daemon: &mut StorageDaemon, node: &str) -> Result<Vec<(String, Value)>> {
    let list = bitmaps::list(&mut daemon.qmp, node)?;
    let mut counts: Vec<(String, Value)> = list
        .iter()
        .map(|bitmap| (bitmap["name"].to_string(), bitmap["count"].clone()))
        .collect();
    counts.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(counts)
}

/// Makes an image by QMP alone, as a tool that moves disks does, and opens it.
fn create_target(bench: &Bench, daemon: &mut StorageDaemon, format: &str) -> Result<()> {
    bench.write("target", "")?;
    let file = json!({ "driver": "file", "node-name": "target-file", "filename": "target" });
    daemon.qmp.execute("blockdev-add", file)?;
    let options = json!({ "driver": format, "file": "target-file", "size": 4 << 20 });
    jobs::create(&mut daemon.qmp, options)?;
    let node = json!({
        "driver": format, "node-name": "target", "file": "target-file", "discard": "unmap",
    });
    daemon.qmp.execute("blockdev-add", node).map(drop)
}

/// Moves a disk to an image of the format given; gives what its bitmaps marked at each step.
fn moved(format: &str) -> Result<Vec<Vec<(String, Value)>>> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "4M", "64k")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let mut guest = daemon.export()?;
    guest.write(GRANULE, &[1; 4096])?;
    create_target(&bench, &mut daemon, format)?;
    add_bitmap(&mut daemon, "target", "whole")?;
    let mut seen = Vec::new();
    mirror_full(&mut daemon, "disk", "target")?;
    seen.push(counts(&mut daemon, "target")?);

    add_bitmap(&mut daemon, "target", "after")?;
    guest.write(5 * GRANULE, &[2; 4096])?;
    guest.write_zeroes(9 * GRANULE, 512)?;
    guest.trim(20 * GRANULE, 65536)?;
    seen.push(counts(&mut daemon, "target")?);
    seen.push(counts(&mut daemon, "disk")?);
    let whole = json!({ "node": "target", "name": "whole" });
    daemon.qmp.execute("block-dirty-bitmap-clear", whole)?;
    guest.write(7 * GRANULE, &[3; 4096])?;
    seen.push(counts(&mut daemon, "target")?);

    // Nobody uses the old disk any more.
    daemon
        .qmp
        .execute("blockdev-del", json!({ "node-name": "disk" }))?;
    let old = bench.descriptor("disk.qbm")?;
    assert_eq!(old.session(), None);
    assert_eq!(old.bitmap("b0")?.granules(), [1]);
    daemon.quit()?;
    if format == "qbm" {
        let target = bench.descriptor("target")?;
        assert_eq!(target.bitmap("after")?.granules(), [5, 7, 9, 20]);
        assert_eq!(target.bitmap("whole")?.granules(), [7]);
    }
    bench.io_as(
        format,
        "target",
        &[
            "read -P 1 64k 4k",
            "read -P 2 320k 4k",
            "read -P 3 448k 4k",
            "read -P 0 1M 3M",
        ],
    )?;
    Ok(seen)
}

#[test]
fn bitmaps_of_the_target_record_as_qcow2s_do() -> Result<()> {
    assert_eq!(moved("qbm")?, moved("qcow2")?);
    Ok(())
}

/// drive-mirror makes its target, or takes one that is there.
#[test]
fn drive_mirror() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "4M", "64k")?;
    bench.image_with_bitmap("existing.qbm", "4M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    for (file, format, mode) in [
        ("new.qbm", "qbm", "absolute-paths"),
        ("new.qcow2", "qcow2", "absolute-paths"),
        ("existing.qbm", "qbm", "existing"),
    ] {
        let drive = "-drive if=none,id=drive,node-name=disk,driver=qbm,file.filename=disk.qbm";
        let mut machine = Machine::start(&bench, drive)?;
        let job = json!({
            "device": "drive", "target": file, "format": format, "mode": mode, "sync": "full",
        });
        jobs::run(&mut machine.qmp, "drive-mirror", &job).context(file)?;
        migration::write(&mut machine.qmp, "drive", 2, 2 << 20, 64 << 10).context(file)?;
        machine.quit()?;
        bench.io_as(format, file, &["read -P 1 1M 64k", "read -P 2 2M 64k"])?;
        bench.io("disk.qbm", &["read -P 0 2M 64k"])?;
    }
    let bits = bench.descriptor("existing.qbm")?.bitmap("b0")?;
    assert!(bits.is_set(16) && bits.is_set(32));
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    Ok(())
}

#[test]
fn targets_that_cannot_be() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "4M", "64k")?;
    bench.img("create -q -f qbm small.qbm 2M")?;
    bench.sparse("adopted.raw", 4 << 20, &[])?;
    bench.img("create -q -f qbm -o data_file=adopted.raw other.qbm")?;
    let mut daemon = StorageDaemon::start(&bench)?;
    backup::open_target(&mut daemon.qmp, "data", "raw", "adopted.raw")?;
    daemon.add_image("disk.qbm", &json!({}))?;
    backup::open_target(&mut daemon.qmp, "small", "qbm", "small.qbm")?;
    let other = json!({
        "driver": "qbm", "node-name": "other", "data-file": "data",
        "file": { "driver": "file", "filename": "other.qbm" },
    });
    daemon.qmp.execute("blockdev-add", other)?;
    let to =
        |device: &str, target: &str| json!({ "device": device, "target": target, "sync": "full" });
    let mut replacing = to("other", "disk");
    replacing["replaces"] = json!("data");
    for (job, words) in [
        (to("disk", "disk"), "mirror node into itself"),
        // What is below qbm cannot be changed behind its back.
        (to("other", "data"), "permission"),
        (to("data", "disk"), "Need a root block node"),
        (replacing, "abrupt change of visible data"),
    ] {
        let said = jobs::start_refused(&mut daemon.qmp, "blockdev-mirror", &job)?;
        println!("{job}: {said}");
        assert!(said.contains(words), "{job}: {said}");
    }
    jobs::start(&mut daemon.qmp, "blockdev-mirror", &to("disk", "small"))?;
    let said = jobs::fails(&mut daemon.qmp)?;
    assert!(said.contains("different sizes"), "{said}");
    daemon.export()?.write(GRANULE, b"goes on")?;
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [1]);
    Ok(())
}
