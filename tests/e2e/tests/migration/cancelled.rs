// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migrations that come to nothing: the source goes on with the disk, and its bitmaps
//! record and are stored.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, GRANULE, blockdev, found, image, recording, resting};
use qbm_testkit::{Bench, Machine, bitmaps, migration};
use serde_json::json;

use crate::{Pair, write};

const WAYS: [&[&str]; 2] = [&[], &["dirty-bitmaps"]];

/// A pair whose migration is cancelled when only the change of hands is left.
fn cancelled(format: &str, capabilities: &[&str]) -> Result<Pair> {
    let mut pair = Pair::shared(format, capabilities)?;
    write(&mut pair.source, 0)?;
    pair.start()?;
    write(&mut pair.source, 1)?;
    pair.source.qmp.execute("migrate_cancel", json!({}))?;
    migration::wait_for(&mut pair.source.qmp, "cancelled")?;
    pair.source.qmp.execute("cont", json!({}))?;
    write(&mut pair.source, 2)?;
    Ok(pair)
}

#[test]
fn cancelled_and_quit() -> Result<()> {
    for format in FORMATS {
        for way in WAYS {
            let pair = cancelled(format, way)?;
            pair.source.quit()?;
            let stored = found(&pair.bench, format, "disk")?;
            assert_eq!(stored, [recording("b0", 3)], "{format} {way:?}");
        }
    }
    Ok(())
}

#[test]
fn cancelled_and_killed() -> Result<()> {
    for way in WAYS {
        let pair = cancelled("qbm", way)?;
        pair.source.kill()?;
        let stored = found(&pair.bench, "qbm", "disk")?;
        assert_eq!(stored, [recording("b0", 3)], "{way:?}");
    }
    Ok(())
}

/// What is done to a bitmap after a migration that was cancelled reaches the image.
#[test]
fn commands_after_it() -> Result<()> {
    for way in WAYS {
        let mut pair = cancelled("qbm", way)?;
        let source = &mut pair.source;
        bitmaps::run(&mut source.qmp, "disable", "b0")?;
        write(source, 3)?;
        bitmaps::run(&mut source.qmp, "enable", "b0")?;
        write(source, 4)?;
        bitmaps::add(&mut source.qmp, "b1", GRANULE)?;
        let merge = json!({ "node": "disk", "target": "b1", "bitmaps": ["b0"] });
        source.qmp.execute("block-dirty-bitmap-merge", merge)?;
        bitmaps::run(&mut source.qmp, "disable", "b1")?;
        pair.source.kill()?;
        let stored = found(&pair.bench, "qbm", "disk")?;
        let expected = [recording("b0", 4), resting("b1", 4)];
        assert_eq!(stored, expected, "{way:?}");
    }
    Ok(())
}

/// A bitmap that rested when the migration began records when it is told to, and a kill
/// does not cost what it recorded.
#[test]
fn enabled_after_it() -> Result<()> {
    for way in WAYS {
        let bench = Bench::new()?;
        image(&bench, "qbm", "disk")?;
        bench.img("bitmap --disable -f qbm disk b0")?;
        let mut pair = Pair::over(bench, "qbm", ["disk", "disk"], way)?;
        pair.start()?;
        pair.source.qmp.execute("migrate_cancel", json!({}))?;
        migration::wait_for(&mut pair.source.qmp, "cancelled")?;
        bitmaps::run(&mut pair.source.qmp, "enable", "b0")?;
        write(&mut pair.source, 5)?;
        pair.source.kill()?;
        let stored = found(&pair.bench, "qbm", "disk")?;
        assert_eq!(stored, [recording("b0", 1)], "{way:?}");
    }
    Ok(())
}

/// Bits that were cleared in the meantime are off the image, too.
#[test]
fn cleared_after_it() -> Result<()> {
    for way in WAYS {
        let mut pair = cancelled("qbm", way)?;
        bitmaps::run(&mut pair.source.qmp, "clear", "b0")?;
        write(&mut pair.source, 9)?;
        pair.source.quit()?;
        let granules = pair.bench.descriptor("disk")?.bitmap("b0")?.granules();
        assert_eq!(granules, [9], "{way:?}");
    }
    Ok(())
}

/// A bitmap is lent to the migration: whoever quits meanwhile still has it.
#[test]
fn quit_meanwhile() -> Result<()> {
    for way in WAYS {
        let mut pair = Pair::shared("qbm", way)?;
        write(&mut pair.source, 0)?;
        pair.start()?;
        write(&mut pair.source, 1)?;
        pair.source.quit()?;
        let stored = found(&pair.bench, "qbm", "disk")?;
        assert_eq!(stored, [recording("b0", 2)], "{way:?}");
    }
    Ok(())
}

/// The second attempt takes the bitmaps along.
#[test]
fn and_tried_again() -> Result<()> {
    for format in FORMATS {
        for way in WAYS {
            let pair = cancelled(format, way)?;
            let args = blockdev(format, "disk") + " -incoming defer";
            let mut destination = Machine::start(&pair.bench, &args)?;
            migration::enable(&mut destination.qmp, way)?;
            let mut pair = Pair {
                destination,
                ..pair
            };
            pair.start()?;
            pair.complete()?;
            write(&mut pair.destination, 3)?;
            pair.source.quit()?;
            pair.destination.quit()?;
            let stored = found(&pair.bench, format, "disk")?;
            assert_eq!(stored, [recording("b0", 4)], "{format} {way:?}");
        }
    }
    Ok(())
}
