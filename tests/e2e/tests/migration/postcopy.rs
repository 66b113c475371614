// SPDX-License-Identifier: MIT OR Apache-2.0
//! Postcopy: the destination has the disk and writes to it while its bitmaps are still on
//! their way.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, found};
use qbm_testkit::{Bench, Machine, bitmaps, migration};
use serde_json::{Value, json};

use crate::{Pair, write};

/// Bytes that a bit stands for: the bits of a bitmap are many, and take their time.
const GRANULARITY: u64 = 512;

/// The granules of 64 KiB that were written on the source: one of every MiB.
const WRITTEN: u64 = 64;

fn parameters(machine: &mut Machine, parameters: Value) -> Result<()> {
    let set = "migrate-set-parameters";
    machine.qmp.execute(set, parameters).map(drop)
}

/// A pair whose destination runs, while a bitmap is on its way that takes hours.
fn under_way(format: &str) -> Result<Pair> {
    let bench = Bench::new()?;
    for image in ["one", "two"] {
        bench.img(["create", "-q", "-f", format, image, "16G"])?;
    }
    let mut pair = Pair::over(bench, format, ["one", "two"], &["dirty-bitmaps"])?;
    bitmaps::add(&mut pair.source.qmp, "b0", GRANULARITY)?;
    for number in 0..WRITTEN {
        write(&mut pair.source, number * 16)?;
    }
    // So it does not end by itself before the destination runs.
    let slow = json!({ "downtime-limit": 0, "max-postcopy-bandwidth": 10 });
    parameters(&mut pair.source, slow)?;
    migration::listen(&mut pair.destination.qmp, &pair.bench)?;
    let uri = json!({ "uri": migration::address(&pair.bench) });
    pair.source.qmp.execute("migrate", uri)?;
    pair.source
        .qmp
        .execute("migrate-start-postcopy", json!({}))?;
    pair.destination.qmp.event("RESUME", |_| true)?;
    Ok(pair)
}

fn complete(pair: &mut Pair) -> Result<()> {
    parameters(&mut pair.source, json!({ "max-postcopy-bandwidth": 0 }))?;
    migration::wait_for(&mut pair.source.qmp, "completed")?;
    migration::wait_for(&mut pair.destination.qmp, "completed")
}

/// Requires that the image has the bitmap, with every write of both machines.
fn require_complete(bench: &Bench, format: &str, written: u64) -> Result<()> {
    let stored = found(bench, format, "two")?;
    assert_eq!(stored.len(), 1, "{format}: {stored:?}");
    let dirty_bytes = (WRITTEN + written) * 4096;
    assert_eq!(stored[0].dirty_bytes, Some(dirty_bytes), "{format}");
    assert!(stored[0].recording, "{format}");
    Ok(())
}

#[test]
fn writes_meanwhile_are_marked() -> Result<()> {
    for format in FORMATS {
        let mut pair = under_way(format)?;
        write(&mut pair.destination, 5)?;
        complete(&mut pair)?;
        write(&mut pair.destination, 6)?;
        pair.source.quit()?;
        pair.destination.quit()?;
        require_complete(&pair.bench, format, 2)?;
        assert_eq!(found(&pair.bench, format, "one")?, [], "{format}");
    }
    Ok(())
}

/// From when it is complete, the bitmap survives a kill.
#[test]
fn killed_once_it_is_complete() -> Result<()> {
    let mut pair = under_way("qbm")?;
    write(&mut pair.destination, 5)?;
    complete(&mut pair)?;
    pair.destination.qmp.execute("query-status", json!({}))?;
    write(&mut pair.destination, 6)?;
    pair.destination.kill()?;
    require_complete(&pair.bench, "qbm", 2)
}

/// A bitmap that only arrived in part is not stored at all.
#[test]
fn the_destination_is_killed() -> Result<()> {
    let mut pair = under_way("qbm")?;
    write(&mut pair.destination, 5)?;
    pair.destination.kill()?;
    assert_eq!(found(&pair.bench, "qbm", "two")?, []);
    Ok(())
}

/// The same without a kill: the source is gone, and QEMU drops what is not complete.
#[test]
fn the_source_is_killed() -> Result<()> {
    for format in FORMATS {
        let mut pair = under_way(format)?;
        pair.source.kill()?;
        migration::wait_for(&mut pair.destination.qmp, "completed")?;
        write(&mut pair.destination, 5)?;
        pair.destination.quit()?;
        assert_eq!(found(&pair.bench, format, "two")?, [], "{format}");
    }
    Ok(())
}

/// While it is under way nobody can use the bitmap, on neither side.
#[test]
fn it_is_busy_meanwhile() -> Result<()> {
    for format in FORMATS {
        let mut pair = under_way(format)?;
        for machine in [&mut pair.source, &mut pair.destination] {
            for verb in ["clear", "remove", "disable"] {
                let command = format!("block-dirty-bitmap-{verb}");
                let words = machine.qmp.refuses(&command, bitmaps::on_disk("b0"))?;
                assert!(words.contains("in use by another operation"), "{words}");
            }
        }
    }
    Ok(())
}

/// The destination is gone, and with it what it wrote: the bitmaps of the source are not
/// those of any disk that there is.
#[test]
fn the_source_quits() -> Result<()> {
    for format in FORMATS {
        let mut pair = under_way(format)?;
        pair.destination.kill()?;
        migration::wait_for(&mut pair.source.qmp, "postcopy-paused")?;
        let words = pair.source.qmp.refuses("cont", json!({}))?;
        assert!(words.contains("not finalized"), "{words}");
        pair.source.quit()?;
        assert_eq!(found(&pair.bench, format, "one")?, [], "{format}");
    }
    Ok(())
}
