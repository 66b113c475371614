// SPDX-License-Identifier: MIT OR Apache-2.0
//! A snapshot of the data image itself, beneath the bitmaps: the descriptor goes on naming
//! the file that is left behind, and must not vouch for it.

use anyhow::Result;
use qbm_testkit::life::{Found, GRANULE, found, inconsistent, recording};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Machine, StorageDaemon, backup, bitmaps, migration};
use serde_json::json;

/// A machine with `disk.qbm` over the node `data`, of the format given.
fn machine(format: &str) -> Result<(Bench, Machine)> {
    let bench = Bench::new()?;
    bench.img(["create", "-q", "-f", format, "data", "64M"])?;
    let over = format!("data_file=data,data_file_format={format}");
    bench.img(["create", "-q", "-f", "qbm", "-o", &over, "disk.qbm"])?;
    bench.img("bitmap --add -g 64k -f qbm disk.qbm b0")?;
    let args = format!(
        "-blockdev driver={format},node-name=data,file.driver=file,file.filename=data \
         -blockdev driver=qbm,node-name=disk,data-file=data,file.driver=file,file.filename=disk.qbm"
    );
    let mut machine = Machine::start(&bench, &args)?;
    write(&mut machine.qmp, 0)?;
    bench.img("create -q -f qcow2 overlay 64M")?;
    let overlay = json!({
        "driver": "qcow2", "node-name": "overlay", "backing": null,
        "file": { "driver": "file", "filename": "overlay" },
    });
    machine.qmp.execute("blockdev-add", overlay)?;
    Ok((bench, machine))
}

fn snapshot(qmp: &mut Qmp) -> Result<()> {
    let snapshot = json!({ "node": "data", "overlay": "overlay" });
    qmp.execute("blockdev-snapshot", snapshot)?;
    // The driver sees it when the command is over.
    qmp.execute("query-status", json!({})).map(drop)
}

fn write(qmp: &mut Qmp, granule: u64) -> Result<()> {
    migration::write(qmp, "disk", 7, granule * GRANULE, 4096)
}

fn require(bench: &Bench, expected: &[Found]) -> Result<()> {
    assert_eq!(found(bench, "qbm", "disk.qbm")?, expected);
    Ok(())
}

#[test]
fn stored_bitmaps_are_given_up() -> Result<()> {
    for format in ["raw", "qcow2"] {
        let (bench, mut machine) = machine(format)?;
        snapshot(&mut machine.qmp)?;
        write(&mut machine.qmp, 5)?;
        let log = machine.quit()?;
        assert!(
            log.contains("'disk'") && log.contains("inconsistent"),
            "{log}"
        );
        require(&bench, &[inconsistent("b0")])?;
    }
    Ok(())
}

#[test]
fn so_they_are_after_a_kill() -> Result<()> {
    for format in ["raw", "qcow2"] {
        let (bench, mut machine) = machine(format)?;
        snapshot(&mut machine.qmp)?;
        write(&mut machine.qmp, 5)?;
        machine.kill()?;
        require(&bench, &[inconsistent("b0")])?;
    }
    Ok(())
}

/// The bitmap in memory is of the disk that the guest has: backups go on.
#[test]
fn it_can_be_used_until_the_end() -> Result<()> {
    let (_bench, mut machine) = machine("raw")?;
    snapshot(&mut machine.qmp)?;
    write(&mut machine.qmp, 5)?;
    let list = bitmaps::list(&mut machine.qmp, "disk")?;
    assert_eq!(list[0]["count"], 2 * GRANULE, "{list:?}");
    assert_eq!(list[0]["persistent"], false, "{list:?}");
    bitmaps::run(&mut machine.qmp, "clear", "b0")?;
    machine.quit()?;
    Ok(())
}

#[test]
fn no_bitmap_can_be_stored_meanwhile() -> Result<()> {
    let (bench, mut machine) = machine("raw")?;
    snapshot(&mut machine.qmp)?;
    let add = json!({ "node": "disk", "name": "b1", "persistent": true });
    let words = machine.qmp.refuses("block-dirty-bitmap-add", add)?;
    assert!(words.contains("data image is no longer"), "{words}");
    machine.quit()?;
    require(&bench, &[inconsistent("b0")])
}

/// When it is a local file again, bitmaps are stored again, for that one.
#[test]
fn a_raw_file_takes_its_place() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.img("create -q -f qcow2 overlay 64M")?;
    bench.sparse("copy.raw", 64 << 20, &[])?;
    let args = "-blockdev driver=file,node-name=raw,filename=disk.qbm.raw \
         -blockdev driver=file,node-name=copy,filename=copy.raw \
         -blockdev driver=qcow2,node-name=overlay,file.driver=file,file.filename=overlay \
         -blockdev driver=raw,node-name=data,file=raw \
         -blockdev driver=qbm,node-name=disk,data-file=data,file.driver=file,file.filename=disk.qbm";
    let mut machine = Machine::start(&bench, args)?;
    write(&mut machine.qmp, 0)?;
    for file in ["overlay", "copy"] {
        let node = json!({ "driver": "raw", "node-name": "data", "file": file });
        let reopen = json!({ "options": [node] });
        machine.qmp.execute("blockdev-reopen", reopen)?;
        for _ in 0..2 {
            machine.qmp.execute("query-status", json!({}))?;
        }
    }
    bitmaps::add(&mut machine.qmp, "b1", GRANULE)?;
    write(&mut machine.qmp, 9)?;
    machine.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b1")?;
    assert_eq!(bitmap.granules(), [9]);
    let given = json!({ "data-file": { "driver": "file", "filename": "copy.raw" } });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &given)?;
    assert_eq!(backup::require_good_bitmap(&mut daemon.qmp, "b1")?, GRANULE);
    daemon.quit()?;
    // The file that the descriptor names is another.
    require(&bench, &[inconsistent("b0"), inconsistent("b1")])
}

/// The control: without a snapshot nothing is given up.
#[test]
fn without_a_snapshot() -> Result<()> {
    for format in ["raw", "qcow2"] {
        let (bench, machine) = machine(format)?;
        machine.quit()?;
        require(&bench, &[recording("b0", 1)])?;
    }
    Ok(())
}
