// SPDX-License-Identifier: MIT OR Apache-2.0
//! External snapshots: the image becomes a backing file, its bitmaps rest, and record again
//! when the overlay is committed.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, GRANULE, blockdev, found, image, recording};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Machine, Snapshot, migration, oracle};
use serde_json::{Value, json};

fn machine(format: &str) -> Result<(Bench, Machine)> {
    let bench = Bench::new()?;
    image(&bench, format, "disk")?;
    let mut machine = Machine::start(&bench, &blockdev(format, "disk"))?;
    write(&mut machine.qmp, "disk", 0)?;
    Ok((bench, machine))
}

fn write(qmp: &mut Qmp, node: &str, granule: u64) -> Result<()> {
    migration::write(qmp, node, 7, granule * GRANULE, 4096)
}

/// Takes a snapshot: `overlay` is what is written from now on.
fn snapshot_node(bench: &Bench, qmp: &mut Qmp) -> Result<()> {
    bench.img("create -q -f qcow2 overlay 64M")?;
    let overlay = json!({
        "driver": "qcow2", "node-name": "overlay", "backing": null,
        "file": { "driver": "file", "filename": "overlay" },
    });
    qmp.execute("blockdev-add", overlay)?;
    let snapshot = json!({ "node": "disk", "overlay": "overlay" });
    qmp.execute("blockdev-snapshot", snapshot).map(drop)
}

fn commit(qmp: &mut Qmp) -> Result<()> {
    let job = json!({ "job-id": "commit", "device": "overlay" });
    qmp.execute("block-commit", job)?;
    let ready = |data: &Value| data["device"] == "commit";
    qmp.event("BLOCK_JOB_READY", ready)?;
    qmp.execute("block-job-complete", json!({ "device": "commit" }))?;
    qmp.event("BLOCK_JOB_COMPLETED", ready).map(drop)
}

/// A bitmap of the base says what the base is, whatever becomes of the overlay.
#[test]
fn the_base_keeps_its_bitmap() -> Result<()> {
    for format in FORMATS {
        let (bench, mut machine) = machine(format)?;
        snapshot_node(&bench, &mut machine.qmp)?;
        write(&mut machine.qmp, "overlay", 5)?;
        machine.quit()?;
        assert_eq!(
            found(&bench, format, "disk")?,
            [recording("b0", 1)],
            "{format}"
        );
    }
    Ok(())
}

#[test]
fn the_base_is_stored_when_the_snapshot_is_taken() -> Result<()> {
    let (bench, mut machine) = machine("qbm")?;
    snapshot_node(&bench, &mut machine.qmp)?;
    assert_eq!(bench.descriptor("disk")?.session(), None);
    assert_eq!(bench.descriptor("disk")?.bitmap("b0")?.granules(), [0]);
    write(&mut machine.qmp, "overlay", 5)?;
    let before = Snapshot::of(bench.directory())?;
    machine.kill()?;
    before.require_untouched()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 1)]);
    Ok(())
}

/// The file that QEMU makes names its backing file and that one's format.
#[test]
fn an_overlay_that_qemu_makes() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let mut machine = Machine::start(&bench, "-drive if=none,id=drive,format=qbm,file=disk")?;
    write(&mut machine.qmp, "drive", 0)?;
    let snapshot = json!({ "device": "drive", "snapshot-file": "overlay", "format": "qcow2" });
    machine.qmp.execute("blockdev-snapshot-sync", snapshot)?;
    write(&mut machine.qmp, "drive", 5)?;
    machine.quit()?;
    let info = bench.info("overlay")?;
    assert_eq!(info["backing-filename-format"], "qbm", "{info}");
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 1)]);
    let patterns = ["read -P 7 0 4k", "read -P 7 320k 4k"];
    bench.io_as("qcow2", "overlay", &patterns).map(drop)
}

/// What comes back from the overlay is a write to the base like others.
#[test]
fn committed() -> Result<()> {
    for format in FORMATS {
        let (bench, mut machine) = machine(format)?;
        snapshot_node(&bench, &mut machine.qmp)?;
        write(&mut machine.qmp, "overlay", 5)?;
        commit(&mut machine.qmp)?;
        write(&mut machine.qmp, "disk", 9)?;
        machine.quit()?;
        assert_eq!(
            found(&bench, format, "disk")?,
            [recording("b0", 3)],
            "{format}"
        );
        if format == "qbm" {
            bench.sparse("before", 64 << 20, &[])?;
            let bitmap = bench.descriptor("disk")?.bitmap("b0")?;
            let verdict = oracle::judge(&bench.path("before"), &bench.path("disk.raw"), &bitmap)?;
            verdict.require_complete()?;
            assert_eq!(verdict.changed_count, 3);
        }
    }
    Ok(())
}

#[test]
fn committed_and_killed() -> Result<()> {
    let (bench, mut machine) = machine("qbm")?;
    snapshot_node(&bench, &mut machine.qmp)?;
    write(&mut machine.qmp, "overlay", 5)?;
    commit(&mut machine.qmp)?;
    write(&mut machine.qmp, "disk", 9)?;
    machine.kill()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 3)]);
    Ok(())
}
