// SPDX-License-Identifier: MIT OR Apache-2.0
//! block-stream out of a qbm base, below a qbm image, and where there is nothing to stream.

use anyhow::Result;
use qbm_testkit::{Bench, StorageDaemon, Writers, backup, bitmaps, jobs};
use serde_json::{Value, json};

const DISK_BYTES: usize = 6 << 20;
const GRANULE: u64 = 65536;

fn run(daemon: &mut StorageDaemon, device: &str, more: &Value) -> Result<()> {
    let mut job = json!({ "device": device });
    if let Some(base) = more.as_str() {
        job["base-node"] = json!(base);
    }
    jobs::run(&mut daemon.qmp, "block-stream", &job)
}

fn overlay(bench: &Bench, daemon: &mut StorageDaemon, name: &str, backing: &str) -> Result<()> {
    bench.img(["create", "-q", "-f", "qcow2", name, &DISK_BYTES.to_string()])?;
    let add = json!({
        "driver": "qcow2", "node-name": name, "backing": backing,
        "file": { "driver": "file", "filename": name },
    });
    daemon.qmp.execute("blockdev-add", add).map(drop)
}

/// An overlay takes all that a qbm base has, under load, and leaves the base as it was.
#[test]
fn an_overlay_over_a_qbm_base() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("base", &DISK_BYTES.to_string(), "64k")?;
    bench.io("base", &["write -P 1 1M 1M", "write -P 2 4M 64k"])?;
    let bits = bench.descriptor("base")?.bitmap("b0")?;
    let content = bench.read("base.raw")?;
    for killed in [true, false] {
        let mut daemon = StorageDaemon::start(&bench)?;
        let base = json!({
            "driver": "qbm", "node-name": "base", "read-only": true,
            "file": { "driver": "file", "filename": "base" },
        });
        daemon.qmp.execute("blockdev-add", base)?;
        overlay(&bench, &mut daemon, "top", "base")?;
        daemon.export_node("top")?;
        let writers = Writers::start(daemon.nbd_socket(), &content, 5)?;
        writers.wait_for_more(30)?;
        if killed {
            let job = json!({ "device": "top", "speed": 1 << 18 });
            jobs::start(&mut daemon.qmp, "block-stream", &job)?;
            writers.wait_for_more(30)?;
            daemon.kill()?;
            writers.join()?;
        } else {
            run(&mut daemon, "top", &Value::Null)?;
            writers.wait_for_more(30)?;
            backup::close_target(&mut daemon.qmp, "base")?;
            let written = writers.stop()?;
            daemon.quit()?;
            bench.img("convert -f qcow2 -O raw top found")?;
            written.require(&bench.path("found"))?;
        }
        let descriptor = bench.descriptor("base")?;
        assert_eq!(descriptor.session(), None);
        assert_eq!(descriptor.bitmap("b0")?, bits);
        assert_eq!(bench.read("base.raw")?, content);
    }
    Ok(())
}

/// Layers above a qbm image are streamed together; the image stays at the bottom.
#[test]
fn down_to_a_qbm_base() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", &DISK_BYTES.to_string(), "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 64k"])?;
    let mut daemon = StorageDaemon::start(&bench)?;
    daemon.add_image("disk.qbm", &json!({ "read-only": true }))?;
    overlay(&bench, &mut daemon, "mid", "disk")?;
    overlay(&bench, &mut daemon, "top", "mid")?;
    run(&mut daemon, "top", &json!("disk"))?;
    backup::close_target(&mut daemon.qmp, "mid")?;
    let refused = daemon
        .qmp
        .refuses("blockdev-del", json!({ "node-name": "disk" }))?;
    assert!(refused.contains("is used as backing"), "{refused}");
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [0]);
    Ok(())
}

/// A data image that has a backing file of its own becomes whole while a guest writes: no bit
/// is set by that, since the disk stays what it is.
#[test]
fn a_data_image_that_becomes_whole() -> Result<()> {
    let bench = Bench::new()?;
    let size = DISK_BYTES.to_string();
    bench.img(["create", "-q", "-f", "raw", "template.raw", &size])?;
    bench.io_as("raw", "template.raw", &["write -P 9 0 6M"])?;
    bench.img("create -q -f qcow2 -b template.raw -F raw data.qcow2")?;
    bench.img("create -q -f qbm -o data_file=data.qcow2,data_file_format=qcow2 disk.qbm")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let data = json!({
        "driver": "qcow2", "node-name": "data",
        "file": { "driver": "file", "filename": "data.qcow2" },
    });
    daemon.qmp.execute("blockdev-add", data)?;
    daemon.add_image("disk.qbm", &json!({ "data-file": "data" }))?;
    let mut guest = daemon.export()?;
    guest.write(GRANULE, &[1; 4096])?;
    let job = json!({ "device": "data", "speed": 1 << 16 });
    jobs::start(&mut daemon.qmp, "block-stream", &job)?;
    guest.write(90 * GRANULE, &[2; 4096])?;
    guest.write(2 * GRANULE, &[3; 4096])?;
    let faster = json!({ "device": jobs::JOB, "speed": 0 });
    daemon.qmp.execute("block-job-set-speed", faster)?;
    jobs::wait(&mut daemon.qmp)?;
    guest.write(50 * GRANULE, &[4; 4096])?;
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    assert_eq!(list[0]["count"], 4 * GRANULE, "{list:?}");
    drop(guest);
    daemon.quit()?;
    bench.host("rm", ["template.raw"])?;
    let bits = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bits.granules(), [1, 2, 50, 90]);
    bench.io("disk.qbm", &["read -P 9 3M 64k", "read -P 4 3200k 4k"])?;
    Ok(())
}

/// With no backing file there is nothing to stream or commit, which QEMU says of a qbm image
/// as of a qcow2 image.
#[test]
fn an_image_without_a_backing_file() -> Result<()> {
    let said = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        bench.img(["create", "-q", "-f", format, "disk", "1M"])?;
        bench.img("create -q -f raw other 1M")?;
        let mut daemon = StorageDaemon::start(&bench)?;
        backup::open_target(&mut daemon.qmp, "disk", format, "disk")?;
        backup::open_target(&mut daemon.qmp, "other", "raw", "other")?;
        run(&mut daemon, "disk", &Value::Null)?;
        let mut said = Vec::new();
        for (command, job) in [
            (
                "block-stream",
                json!({ "device": "disk", "base-node": "other" }),
            ),
            (
                "block-stream",
                json!({ "device": "disk", "base": "nothing" }),
            ),
            ("block-commit", json!({ "device": "disk" })),
            (
                "block-commit",
                json!({ "device": "disk", "base-node": "other" }),
            ),
        ] {
            said.push(jobs::start_refused(&mut daemon.qmp, command, &job)?);
        }
        daemon.quit()?;
        Ok(said)
    };
    assert_eq!(said("qbm")?, said("qcow2")?);
    Ok(())
}

#[test]
fn a_backing_file_for_a_qbm_image_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 1M")?;
    bench.img("create -q -f raw base.raw 1M")?;
    let mut daemon = StorageDaemon::start(&bench)?;
    backup::open_target(&mut daemon.qmp, "base", "raw", "base.raw")?;
    let said = daemon.refuses_image("disk.qbm", &json!({ "backing": "base" }))?;
    assert!(said.contains("'backing' is unexpected"), "{said}");
    daemon.add_image("disk.qbm", &json!({}))?;
    let take = json!({ "node": "base", "overlay": "disk" });
    let said = daemon.qmp.refuses("blockdev-snapshot", take)?;
    assert!(said.contains("backing"), "{said}");
    daemon.quit()?;
    Ok(())
}
