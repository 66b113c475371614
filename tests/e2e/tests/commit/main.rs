// SPDX-License-Identifier: MIT OR Apache-2.0
//! block-commit into a qbm image under qcow2 overlays: the base is reopened for writing, and
//! its bitmaps record what is committed, exactly as those of a qcow2 base.

mod killed;

use anyhow::{Context, Result, ensure};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup, bitmaps, jobs};
use serde_json::{Value, json};

const DISK_BYTES: usize = 6 << 20;
const GRANULE: usize = 65536;

/// Lays a new qcow2 image over a node, as an external snapshot is taken.
fn snapshot(bench: &Bench, daemon: &mut StorageDaemon, node: &str, overlay: &str) -> Result<()> {
    bench.img([
        "create",
        "-q",
        "-f",
        "qcow2",
        overlay,
        &DISK_BYTES.to_string(),
    ])?;
    let add = json!({
        "driver": "qcow2", "node-name": overlay, "backing": null, "discard": "unmap",
        "file": { "driver": "file", "filename": overlay },
    });
    daemon.qmp.execute("blockdev-add", add)?;
    let take = json!({ "node": node, "overlay": overlay });
    daemon.qmp.execute("blockdev-snapshot", take).map(drop)
}

/// A base with a bitmap, as node `disk`, exported.
fn with_base(bench: &Bench, format: &str) -> Result<StorageDaemon> {
    let size = DISK_BYTES.to_string();
    bench.image_with_bitmap_as(format, "base", &size, "64k")?;
    let mut daemon = StorageDaemon::start(bench)?;
    let node = json!({
        "driver": format, "node-name": "disk", "discard": "unmap",
        "file": { "driver": "file", "filename": "base" },
    });
    daemon.qmp.execute("blockdev-add", node)?;
    Ok(daemon)
}

/// The bitmap of the base: what memory says, and what the file says where it can be read.
fn base_bitmap(bench: &Bench, daemon: &mut StorageDaemon, format: &str) -> Result<Value> {
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    let bitmap = list.first().cloned().context("no bitmap")?;
    if format == "qbm" {
        let marked = bench.descriptor("base")?.bitmap("b0")?.set_count();
        let count = bitmap["count"].as_u64().context("no count")?;
        ensure!(
            marked * GRANULE as u64 == count,
            "{bitmap}: {marked} on disk"
        );
    }
    Ok(bitmap)
}

/// The steps of an active commit, or of one of the layer below; gives the base's bitmap after
/// each.
fn committed(format: &str, active: bool) -> Result<Vec<Value>> {
    let bench = Bench::new()?;
    let mut daemon = with_base(&bench, format)?;
    let mut guest = daemon.export()?;
    let at = |granule: usize| (granule * GRANULE) as u64;
    guest.write(at(1), &[1; 4096])?;
    let mut seen = vec![base_bitmap(&bench, &mut daemon, format)?];

    snapshot(&bench, &mut daemon, "disk", "mid")?;
    // The base is read-only now: what its bitmap marks is on disk, for whoever reads it.
    seen.push(base_bitmap(&bench, &mut daemon, format)?);
    guest.write(at(3), &[2; 4096])?;
    guest.write_zeroes(at(5), 65536)?;
    guest.write(at(8) + 4096, &vec![3; 2 * GRANULE])?;
    if !active {
        snapshot(&bench, &mut daemon, "mid", "top")?;
        guest.write(at(20), &[4; 4096])?;
    }
    seen.push(base_bitmap(&bench, &mut daemon, format)?);
    let job = if active {
        json!({ "device": "mid" })
    } else {
        json!({ "device": "top", "top-node": "mid" })
    };
    jobs::run(&mut daemon.qmp, "block-commit", &job)?;
    seen.push(base_bitmap(&bench, &mut daemon, format)?);
    guest.write(at(30), &[5; 4096])?;
    seen.push(base_bitmap(&bench, &mut daemon, format)?);
    drop(guest);
    daemon.quit()?;

    if format == "qbm" {
        let descriptor = bench.descriptor("base")?;
        assert_eq!(descriptor.session(), None);
        let mut expected = vec![1, 3, 5, 8, 9, 10];
        if active {
            expected.push(30);
        }
        assert_eq!(descriptor.bitmap("b0")?.granules(), expected);
    }
    bench.io_as(
        format,
        "base",
        &[
            "read -P 1 64k 4k",
            "read -P 2 192k 4k",
            "read -P 3 516k 128k",
        ],
    )?;
    Ok(seen)
}

#[test]
fn the_active_layer_as_with_qcow2() -> Result<()> {
    assert_eq!(committed("qbm", true)?, committed("qcow2", true)?);
    Ok(())
}

#[test]
fn a_layer_below_as_with_qcow2() -> Result<()> {
    assert_eq!(committed("qbm", false)?, committed("qcow2", false)?);
    Ok(())
}

/// A commit that fails, or is cancelled, leaves the base read-only again, its bits exact.
#[test]
fn a_commit_that_is_cancelled() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = with_base(&bench, "qbm")?;
    let mut guest = daemon.export()?;
    snapshot(&bench, &mut daemon, "disk", "mid")?;
    guest.write(0, &vec![1; 2 << 20])?;
    guest.write(4 << 20, &vec![2; 2 << 20])?;
    snapshot(&bench, &mut daemon, "mid", "top")?;
    let job = json!({ "device": "top", "top-node": "mid", "speed": 1 << 16 });
    jobs::start(&mut daemon.qmp, "block-commit", &job)?;
    jobs::wait_for_progress(&mut daemon.qmp)?;
    jobs::cancel(&mut daemon.qmp)?;
    let descriptor = bench.descriptor("base")?;
    assert_eq!(
        descriptor.session(),
        None,
        "the base is still open for writing"
    );
    daemon.kill()?;
    let bitmap = descriptor.bitmap("b0")?;
    bench.sparse("before", DISK_BYTES as u64, &[])?;
    let verdict = judge(&bench.path("before"), &descriptor.data_file()?, &bitmap)?;
    verdict.require_complete()?;
    assert!(verdict.changed_count > 0, "{verdict:?}");
    assert_eq!(verdict.over_reported_count, 0, "{verdict:?}");
    Ok(())
}

/// A base whose data image fails: the job fails, the guest goes on, and what was committed
/// before is marked, even with a kill right after.
#[test]
fn a_base_that_fails() -> Result<()> {
    for active in [true, false] {
        let bench = Bench::new()?;
        bench.image_with_bitmap("base", &DISK_BYTES.to_string(), "64k")?;
        bench.sparse("before", DISK_BYTES as u64, &[])?;
        let mut daemon = StorageDaemon::start(&bench)?;
        let node = json!({
            "driver": "qbm", "node-name": "disk", "file": { "driver": "file", "filename": "base" },
            "data-file": {
                "driver": "raw",
                "file": {
                    "driver": "blkdebug",
                    "image": { "driver": "file", "filename": "base.raw" },
                    "inject-error": [{ "event": "write_aio", "errno": 28, "sector": 8192 }],
                },
            },
        });
        daemon.qmp.execute("blockdev-add", node)?;
        let mut guest = daemon.export()?;
        snapshot(&bench, &mut daemon, "disk", "mid")?;
        guest.write(1 << 20, &vec![1; 64 * 1024])?;
        guest.write(4 << 20, &vec![2; 64 * 1024])?;
        let job = if active {
            json!({ "device": "mid" })
        } else {
            snapshot(&bench, &mut daemon, "mid", "top")?;
            json!({ "device": "top", "top-node": "mid" })
        };
        jobs::start(&mut daemon.qmp, "block-commit", &job)?;
        let said = jobs::fails(&mut daemon.qmp)?;
        assert!(said.contains("No space left"), "{said}");
        guest.write(2 << 20, &[3; 4096])?;
        assert_eq!(guest.read(4 << 20, 4096)?, [2; 4096]);
        daemon.kill()?;
        let descriptor = bench.descriptor("base")?;
        let bits = descriptor.bitmap("b0")?;
        let verdict = judge(&bench.path("before"), &descriptor.data_file()?, &bits)?;
        verdict.require_complete()?;
        assert!(bits.is_set(16), "{:?}", bits.granules());
    }
    Ok(())
}

/// A base that is smaller than what is committed grows, and so do its bitmaps.
#[test]
fn a_base_that_grows() -> Result<()> {
    for by_job in [true, false] {
        let bench = Bench::new()?;
        bench.image_with_bitmap("base", "6M", "64k")?;
        bench.img("create -q -f qcow2 -b base -F qbm top 8M")?;
        bench.io_as("qcow2", "top", &["write -P 1 1M 64k", "write -P 2 7M 64k"])?;
        bench.sparse("before", 6 << 20, &[])?;
        if by_job {
            let mut daemon = StorageDaemon::start(&bench)?;
            backup::open_target(&mut daemon.qmp, "top", "qcow2", "top")?;
            jobs::run(&mut daemon.qmp, "block-commit", &json!({ "device": "top" }))?;
            daemon.quit()?;
        } else {
            bench.img("commit -q -f qcow2 top")?;
        }
        assert_eq!(bench.info("base")?["virtual-size"], 8 << 20);
        bench.io("base", &["read -P 1 1M 64k", "read -P 2 7M 64k"])?;
        let descriptor = bench.descriptor("base")?;
        let bits = descriptor.bitmap("b0")?;
        judge(&bench.path("before"), &descriptor.data_file()?, &bits)?.require_complete()?;
        let expected: Vec<u64> = [16].into_iter().chain(96..128).collect();
        assert_eq!(bits.granules(), expected, "by a job: {by_job}");
    }
    Ok(())
}

/// Without QMP: `qemu-img commit` of an overlay.
#[test]
fn by_qemu_img() -> Result<()> {
    for format in ["qbm", "qcow2"] {
        let bench = Bench::new()?;
        bench.image_with_bitmap_as(format, "base", "6M", "64k")?;
        bench.img(["bitmap", "--add", "--disable", "-f", format, "base", "off"])?;
        bench.io_as(format, "base", &["write -P 1 0 64k"])?;
        bench.img(["bitmap", "--clear", "-f", format, "base", "b0"])?;
        bench.img([
            "create", "-q", "-f", "qcow2", "-b", "base", "-F", format, "top",
        ])?;
        bench.io_as("qcow2", "top", &["write -P 2 1M 64k", "write -z 2M 64k"])?;
        bench.img("commit -q -f qcow2 top")?;
        bench.io_as(format, "base", &["read -P 1 0 64k", "read -P 2 1M 64k"])?;
        let dirty = dirty_extents(&bench, format)?;
        assert_eq!(dirty, [(1 << 20, 65536), (2 << 20, 65536)], "{format}");
        if format == "qbm" {
            assert_eq!(bench.descriptor("base")?.bitmap("off")?.set_count(), 0);
        }
    }
    Ok(())
}

fn dirty_extents(bench: &Bench, format: &str) -> Result<Vec<(u64, u64)>> {
    let mut daemon = StorageDaemon::start(bench)?;
    backup::open_target(&mut daemon.qmp, "disk", format, "base")?;
    daemon.listen()?;
    let export = json!({
        "type": "nbd", "id": "export", "node-name": "disk", "name": "disk",
        "bitmaps": ["b0"],
    });
    let disable = json!({ "node": "disk", "name": "b0" });
    daemon.qmp.execute("block-dirty-bitmap-disable", disable)?;
    daemon.qmp.execute("block-export-add", export)?;
    let socket = daemon.nbd_socket().display().to_string();
    let uri = format!("nbd+unix:///disk?socket={socket}");
    bitmaps::dirty_over_nbd(bench, &uri, "b0")
}
