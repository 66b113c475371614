// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways in which a machine ends, and what each leaves of the bitmaps.

use anyhow::{Context, Result};
use qbm_testkit::life::{FORMATS, blockdev, flags, found, image, inconsistent, recording};
use qbm_testkit::{Bench, Guest, GuestFiles, Machine, bitmaps, migration};
use serde_json::json;

/// A machine with an image that was written to once.
fn machine(format: &str) -> Result<(Bench, Machine)> {
    let bench = Bench::new()?;
    image(&bench, format, "disk")?;
    let mut machine = Machine::start(&bench, &blockdev(format, "disk"))?;
    migration::write(&mut machine.qmp, "disk", 7, 0, 4096)?;
    Ok((bench, machine))
}

/// Requires that the image was closed in order, with its bitmap exact.
fn require_closed(bench: &Bench, format: &str) -> Result<()> {
    let stored = [("b0".to_owned(), vec!["auto".to_owned()])];
    assert_eq!(flags(bench, format, "disk")?, stored, "{format}");
    if format == "qbm" {
        assert_eq!(bench.descriptor("disk")?.session(), None);
        assert_eq!(bench.descriptor("disk")?.bitmap("b0")?.granules(), [0]);
    }
    assert_eq!(found(bench, format, "disk")?, [recording("b0", 1)]);
    Ok(())
}

#[test]
fn quit() -> Result<()> {
    for format in FORMATS {
        let (bench, machine) = machine(format)?;
        machine.quit()?;
        require_closed(&bench, format)?;
    }
    Ok(())
}

#[test]
fn signals_that_end_it_in_order() -> Result<()> {
    for name in ["TERM", "INT", "HUP"] {
        for format in FORMATS {
            let (bench, mut machine) = machine(format)?;
            machine.signal(name)?;
            machine.wait()?;
            require_closed(&bench, format)?;
        }
    }
    Ok(())
}

/// Here the two differ, as promised: qcow2's bitmap cannot be used any more.
#[test]
fn killed() -> Result<()> {
    let left = [("qbm", recording("b0", 1)), ("qcow2", inconsistent("b0"))];
    for (format, expected) in left {
        let (bench, machine) = machine(format)?;
        machine.kill()?;
        let in_use = flags(&bench, format, "disk")?;
        assert!(in_use[0].1.contains(&"in-use".to_owned()), "{in_use:?}");
        assert_eq!(found(&bench, format, "disk")?, [expected], "{format}");
    }
    Ok(())
}

/// A signal that nobody handles is as a kill, with a core file at most.
#[test]
fn aborted() -> Result<()> {
    let (bench, mut machine) = machine("qbm")?;
    machine.signal("ABRT")?;
    let error = machine.wait().expect_err("it ended in order");
    assert!(format!("{error:#}").contains("signal: 6"), "{error:#}");
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 1)]);
    Ok(())
}

#[test]
fn the_node_is_deleted() -> Result<()> {
    for format in FORMATS {
        let (bench, mut machine) = machine(format)?;
        let node = json!({ "node-name": "disk" });
        machine.qmp.execute("blockdev-del", node)?;
        require_closed(&bench, format)?;
        machine.kill()?;
    }
    Ok(())
}

/// A device is unplugged; then the image can be closed, and somebody else have it.
#[test]
fn the_device_is_deleted() -> Result<()> {
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let firmware = GuestFiles::from_env()?.firmware();
        let args = blockdev(format, "disk")
            + " -S -machine pc -device virtio-scsi-pci -device scsi-hd,id=hd,drive=disk,share-rw=on -L "
            + &firmware.display().to_string();
        let mut machine = Machine::start(&bench, &args)?;
        migration::write(&mut machine.qmp, "disk", 7, 0, 4096)?;
        let node = json!({ "node-name": "disk" });
        let words = machine.qmp.refuses("blockdev-del", node.clone())?;
        assert!(words.contains("in use"), "{words}");
        machine.qmp.execute("device_del", json!({ "id": "hd" }))?;
        let deleted = |data: &serde_json::Value| data["device"] == "hd";
        machine.qmp.event("DEVICE_DELETED", deleted)?;
        machine.qmp.execute("blockdev-del", node)?;
        require_closed(&bench, format)?;
        machine.quit()?;
    }
    Ok(())
}

/// A reset is no end: the bitmap goes on recording.
#[test]
fn reset() -> Result<()> {
    for format in FORMATS {
        let (bench, mut machine) = machine(format)?;
        machine.qmp.execute("system_reset", json!({}))?;
        machine.qmp.event("RESET", |_| true)?;
        migration::write(&mut machine.qmp, "disk", 7, 1 << 20, 4096)?;
        let bitmap = bitmaps::list(&mut machine.qmp, "disk")?;
        assert_eq!(bitmap[0]["recording"], true, "{bitmap:?}");
        machine.quit()?;
        assert_eq!(found(&bench, format, "disk")?, [recording("b0", 2)]);
    }
    Ok(())
}

/// The guest powers itself off.
#[test]
fn powered_off() -> Result<()> {
    for format in FORMATS {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        let args = blockdev(format, "disk") + " -device virtio-blk-pci,drive=disk";
        let mut guest = Guest::boot(&bench, &args)?;
        guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>&1")?;
        guest.power_off().context("power off")?;
        require_closed(&bench, format)?;
    }
    Ok(())
}
