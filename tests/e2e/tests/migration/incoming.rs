// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that waits for a migration, or was made inactive: it has no bitmaps, changes
//! nothing, and says why it refuses.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, blockdev, found, image, recording};
use qbm_testkit::{Bench, GuestFiles, Machine, Snapshot, StorageDaemon, bitmaps, migration};
use serde_json::json;

use crate::write;

pub(crate) fn set_active(machine: &mut Machine, node: &str, active: bool) -> Result<()> {
    let state = json!({ "node-name": node, "active": active });
    machine.qmp.execute("blockdev-set-active", state).map(drop)
}

fn waiting(bench: &Bench, format: &str) -> Result<Machine> {
    Machine::start(bench, &(blockdev(format, "disk") + " -incoming defer"))
}

#[test]
fn quit_without_a_migration() -> Result<()> {
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let before = Snapshot::of(bench.directory())?;
        let mut machine = waiting(&bench, format)?;
        assert!(bitmaps::list(&mut machine.qmp, "disk")?.is_empty());
        machine.quit()?;
        before.require_untouched()?;
        assert_eq!(found(&bench, format, "disk")?, [recording("b0", 0)]);
    }
    Ok(())
}

#[test]
fn killed_without_a_migration() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let before = Snapshot::of(bench.directory())?;
    waiting(&bench, "qbm")?.kill()?;
    before.require_untouched()
}

/// Another QEMU may have the disk as long as it waits.
#[test]
fn somebody_else_writes_meanwhile() -> Result<()> {
    if Bench::new()?.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let mut machine = waiting(&bench, format)?;
        bench.io_as(format, "disk", &["write 64k 4k"])?;
        set_active(&mut machine, "disk", true)?;
        write(&mut machine, 2)?;
        machine.quit()?;
        let stored = found(&bench, format, "disk")?;
        assert_eq!(stored, [recording("b0", 2)], "{format}");
    }
    Ok(())
}

#[test]
fn commands_are_refused() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let before = Snapshot::of(bench.directory())?;
    let mut machine = waiting(&bench, "qbm")?;
    let persistent = json!({ "node": "disk", "name": "b1", "persistent": true });
    let words = machine.qmp.refuses("block-dirty-bitmap-add", persistent)?;
    assert!(words.contains("inactive"), "{words}");
    for verb in ["clear", "enable", "disable", "remove"] {
        let command = format!("block-dirty-bitmap-{verb}");
        let words = machine.qmp.refuses(&command, bitmaps::on_disk("b0"))?;
        assert!(words.contains("'b0' not found"), "{words}");
    }
    // QEMU 7.2 aborts, whatever the format.
    if !bench.lacks("refusal to resize an inactive node", (10, 0))? {
        let resize = json!({ "node-name": "disk", "size": 1 << 20 });
        let words = machine.qmp.refuses("block_resize", resize)?;
        assert!(
            words.contains("inactive") || words.contains("ermission"),
            "{words}"
        );
    }
    machine.quit()?;
    before.require_untouched()
}

/// A temporary bitmap of an inactive node becomes no stored one.
#[test]
fn a_temporary_bitmap_stays_one() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    image(&bench, "qbm", "disk")?;
    let mut machine = waiting(&bench, "qbm")?;
    let temporary = json!({ "node": "disk", "name": "t0" });
    machine.qmp.execute("block-dirty-bitmap-add", temporary)?;
    set_active(&mut machine, "disk", true)?;
    write(&mut machine, 0)?;
    machine.quit()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 1)]);
    Ok(())
}

#[test]
fn to_and_fro() -> Result<()> {
    if Bench::new()?.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let mut machine = Machine::start(&bench, &blockdev(format, "disk"))?;
        for granule in 0..3 {
            write(&mut machine, granule)?;
            set_active(&mut machine, "disk", false)?;
            assert!(bitmaps::list(&mut machine.qmp, "disk")?.is_empty());
            let offset = (granule + 10) * 65536;
            bench.io_as(format, "disk", &[&format!("write {offset} 4k")])?;
            set_active(&mut machine, "disk", true)?;
        }
        machine.quit()?;
        let stored = found(&bench, format, "disk")?;
        assert_eq!(stored, [recording("b0", 6)], "{format}");
    }
    Ok(())
}

/// Once it is inactive, its end changes nothing.
#[test]
fn killed_when_it_was_made_inactive() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    image(&bench, "qbm", "disk")?;
    let mut machine = Machine::start(&bench, &blockdev("qbm", "disk"))?;
    write(&mut machine, 0)?;
    set_active(&mut machine, "disk", false)?;
    assert_eq!(bench.descriptor("disk")?.session(), None);
    assert_eq!(bench.descriptor("disk")?.bitmap("b0")?.granules(), [0]);
    let before = Snapshot::of(bench.directory())?;
    machine.kill()?;
    before.require_untouched()
}

/// A job has the bitmap: the node cannot be taken from under it.
#[test]
fn a_node_in_use_stays_active() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    image(&bench, "qbm", "disk")?;
    bench.img("create -q -f raw target 64M")?;
    let args = blockdev("qbm", "disk")
        + " -blockdev driver=file,node-name=target,filename=target"
        + " -object throttle-group,id=slow,x-bps-total=1"
        + " -blockdev driver=throttle,node-name=slowed,throttle-group=slow,file=target";
    let mut machine = Machine::start(&bench, &args)?;
    write(&mut machine, 0)?;
    let job = json!({
        "job-id": "backup", "device": "disk", "target": "slowed", "sync": "incremental",
        "bitmap": "b0", "auto-finalize": false, "filter-node-name": "top",
    });
    machine.qmp.execute("blockdev-backup", job)?;
    let state = json!({ "node-name": "disk", "active": false });
    let words = machine.qmp.refuses("blockdev-set-active", state)?;
    assert!(words.contains("active parent"), "{words}");
    migration::write(&mut machine.qmp, "top", 7, 65536, 4096)?;
    machine.kill()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 2)]);
    Ok(())
}

/// The node itself could be activated, and then its device could not, because somebody
/// else reads the data image and wants nobody to write.  Nothing of ours is left in the
/// image.
#[test]
fn a_device_cannot_be_activated() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    image(&bench, "qbm", "disk")?;
    bench.io("disk", &["write 64k 4k"])?;
    let firmware = GuestFiles::from_env()?.firmware();
    let machine = format!("-S -machine pc -L {} ", firmware.display());
    let device = " -device virtio-blk-pci,drive=disk";
    let args = format!("{machine}{}{device}", blockdev("qbm", "disk"));
    let mut first = Machine::start(&bench, &args)?;
    set_active(&mut first, "disk", false)?;
    let node = "-blockdev driver=file,node-name=disk,read-only=on,filename=disk.raw";
    let reader = Machine::start(&bench, &format!("{machine}{node}{device}"))?;

    let state = json!({ "node-name": "disk", "active": true });
    let words = first.qmp.refuses("blockdev-set-active", state)?;
    assert!(words.contains(r#""write" lock"#), "{words}");
    for _ in 0..2 {
        first.qmp.execute("query-status", json!({}))?;
    }
    assert_eq!(bench.descriptor("disk")?.session(), None);
    let before = Snapshot::of(bench.directory())?;
    first.quit()?;
    before.require_untouched()?;
    reader.quit()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 1)]);
    Ok(())
}

/// Somebody writes to the data image itself: a bitmap of it would miss that.  The node stays
/// inactive, and the bitmap as good as it was.
#[test]
fn somebody_else_has_the_data_image() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    image(&bench, "qbm", "disk")?;
    bench.io("disk", &["write 64k 4k"])?;
    let mut machine = Machine::start(&bench, &blockdev("qbm", "disk"))?;
    set_active(&mut machine, "disk", false)?;
    let mut other = StorageDaemon::start(&bench)?;
    let data = json!({ "driver": "file", "node-name": "disk", "filename": "disk.raw" });
    other.qmp.execute("blockdev-add", data)?;
    let client = other.export()?;
    let before = Snapshot::of(bench.directory())?;
    let state = json!({ "node-name": "disk", "active": true });
    let words = machine.qmp.refuses("blockdev-set-active", state)?;
    assert!(words.contains(r#""write" lock"#), "{words}");
    before.require_untouched()?;

    drop(client);
    other.quit()?;
    set_active(&mut machine, "disk", true)?;
    write(&mut machine, 2)?;
    machine.quit()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 2)]);
    Ok(())
}
