// SPDX-License-Identifier: MIT OR Apache-2.0
//! drive-backup, which makes its target itself, and commands of the human monitor.

use anyhow::{Context, Result};
use qbm_testkit::bitmaps::{self, transaction};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Machine};
use serde_json::{Value, json};

fn boot(bench: &Bench) -> Result<Machine> {
    let drive = "-drive if=none,id=drive,node-name=disk,driver=qbm,file.filename=disk.qbm";
    Machine::start(bench, drive)
}

fn guest_writes(qmp: &mut Qmp, what: &str) -> Result<()> {
    let line = format!("qemu-io drive \"write {what}\"");
    let command = json!({ "command-line": line });
    let said = qmp.execute("human-monitor-command", command)?;
    assert_eq!(said, "", "{what}");
    Ok(())
}

fn end_of(qmp: &mut Qmp) -> Result<()> {
    let event = qmp.event("BLOCK_JOB_COMPLETED", |_| true)?;
    assert!(event["data"].get("error").is_none(), "{event}");
    Ok(())
}

fn count(qmp: &mut Qmp, name: &str) -> Result<u64> {
    let list = bitmaps::list(qmp, "disk")?;
    let bitmap = list.iter().find(|bitmap| bitmap["name"] == name);
    bitmap
        .and_then(|bitmap| bitmap["count"].as_u64())
        .with_context(|| format!("no bitmap {name:?}"))
}

/// A full backup and two incremental ones, the second after a SIGKILL.
#[test]
fn a_chain_made_by_drive_backup() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.io("disk.qbm", &["write -P 1 0 8M"])?;
    let mut machine = boot(&bench)?;
    let full = json!({
        "type": "drive-backup",
        "data": { "device": "drive", "target": "full.qcow2", "format": "qcow2", "sync": "full" },
    });
    let add = json!({
        "type": "block-dirty-bitmap-add",
        "data": { "node": "drive", "name": "daily", "persistent": true },
    });
    transaction(&mut machine.qmp, &[add, full])?;
    end_of(&mut machine.qmp)?;

    guest_writes(&mut machine.qmp, "-P 2 1M 64k")?;
    increment(&bench, &mut machine.qmp, "inc1.qcow2", "full.qcow2")?;
    assert_eq!(count(&mut machine.qmp, "daily")?, 0);
    guest_writes(&mut machine.qmp, "-P 3 2M 64k")?;
    machine.kill()?;

    let mut machine = boot(&bench)?;
    assert_eq!(count(&mut machine.qmp, "daily")?, 65536);
    guest_writes(&mut machine.qmp, "-P 4 3M 64k")?;
    increment(&bench, &mut machine.qmp, "inc2.qcow2", "inc1.qcow2")?;
    machine.quit()?;
    bench.img("compare -f qbm -F qcow2 disk.qbm inc2.qcow2")?;
    Ok(())
}

fn increment(bench: &Bench, qmp: &mut Qmp, file: &str, base: &str) -> Result<()> {
    bench.img([
        "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", file,
    ])?;
    let job = json!({
        "device": "drive", "target": file, "format": "qcow2", "mode": "existing",
        "sync": "incremental", "bitmap": "daily",
    });
    qmp.execute("drive-backup", job)?;
    end_of(qmp)
}

/// The modes that drive-backup has as well: a target that is made, of each kind.
#[test]
fn targets_that_are_made() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    let mut machine = boot(&bench)?;
    for format in ["raw", "qcow2", "qbm"] {
        let target = format!("copy.{format}");
        let job: Value = json!({
            "device": "drive", "target": target, "format": format, "sync": "bitmap",
            "bitmap": "b0", "bitmap-mode": "never",
        });
        machine.qmp.execute("drive-backup", job)?;
        end_of(&mut machine.qmp)?;
        assert_eq!(count(&mut machine.qmp, "b0")?, 65536);
    }
    machine.quit()?;
    for format in ["raw", "qcow2", "qbm"] {
        let target = format!("copy.{format}");
        bench.img(["compare", "-f", "qbm", "-F", format, "disk.qbm", &target])?;
    }
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    Ok(())
}

/// nbd-server-add, the older way to export, takes one bitmap.
#[test]
fn nbd_server_add_with_a_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    let mut machine = boot(&bench)?;
    let address = json!({ "type": "unix", "data": { "path": "nbd" } });
    machine
        .qmp
        .execute("nbd-server-start", json!({ "addr": address }))?;
    let add = json!({ "device": "disk", "name": "bits", "bitmap": "b0", "writable": true });
    machine.qmp.execute("nbd-server-add", add)?;
    let dirty = bitmaps::dirty_over_nbd(&bench, "nbd+unix:///bits?socket=nbd", "b0")?;
    assert_eq!(dirty, [(1 << 20, 65536)]);
    machine.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    Ok(())
}
