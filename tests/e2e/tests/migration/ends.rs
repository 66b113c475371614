// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migrations that fail: the destination dies, before and after the source has let go of
//! the disk.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qbm_testkit::life::{FORMATS, found, recording};
use qbm_testkit::{Bench, Machine, PATIENCE, migration};
use serde_json::json;

use crate::{Pair, write};

/// What is left of a [`Pair`] without its destination.
type Left = (Bench, Machine);

const WAYS: [&[&str]; 2] = [&[], &["dirty-bitmaps"]];

/// The source goes on; whether it quits or is killed, every write is marked.
fn require_all(left: Left, format: &str, way: &[&str], kill: bool) -> Result<()> {
    let (bench, mut source) = left;
    source.qmp.execute("cont", json!({}))?;
    write(&mut source, 2)?;
    if kill {
        source.kill()?;
    } else {
        source.quit()?;
    }
    let stored = found(&bench, format, "disk")?;
    assert_eq!(stored, [recording("b0", 3)], "{format} {way:?} {kill}");
    Ok(())
}

/// The destination is killed while the source has the disk.
fn killed_before(format: &str, way: &[&str]) -> Result<Left> {
    let mut pair = Pair::shared(format, way)?;
    write(&mut pair.source, 0)?;
    pair.start()?;
    write(&mut pair.source, 1)?;
    pair.destination.kill()?;
    let (bench, mut source) = (pair.bench, pair.source);
    migration::go_on(&mut source.qmp)?;
    wait_until_failed(&mut source)?;
    Ok((bench, source))
}

#[test]
fn killed_before_the_change_of_hands() -> Result<()> {
    for way in WAYS {
        for format in FORMATS {
            require_all(killed_before(format, way)?, format, way, false)?;
        }
        require_all(killed_before("qbm", way)?, "qbm", way, true)?;
    }
    Ok(())
}

/// The source has let go of the disk, and waits for a destination that does not come: it
/// takes the disk back, with its bitmaps.
fn killed_after(format: &str, way: &[&str]) -> Result<Left> {
    let capabilities: Vec<&str> = way.iter().copied().chain(["return-path"]).collect();
    let mut pair = Pair::shared(format, &capabilities)?;
    write(&mut pair.source, 0)?;
    pair.start()?;
    write(&mut pair.source, 1)?;
    pair.destination.signal("STOP")?;
    migration::go_on(&mut pair.source.qmp)?;
    migration::wait_for(&mut pair.source.qmp, "device")?;
    wait_until_inactive(&mut pair.source)?;
    pair.destination.kill()?;
    let (bench, mut source) = (pair.bench, pair.source);
    wait_until_failed(&mut source)?;
    Ok((bench, source))
}

/// Waits until the migration has failed and the source has all back: the event is not the end.
fn wait_until_failed(source: &mut Machine) -> Result<()> {
    migration::wait_for(&mut source.qmp, "failed")?;
    let deadline = Instant::now() + PATIENCE;
    while source.qmp.execute("query-status", json!({}))?["status"] == "finish-migrate" {
        ensure!(Instant::now() < deadline, "the migration does not end");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn wait_until_inactive(source: &mut Machine) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = source.qmp.execute("query-named-block-nodes", json!({}))?;
        let nodes = nodes.as_array().context("no nodes")?;
        let disk = nodes.iter().find(|node| node["node-name"] == "disk");
        if disk.context("no disk")?["active"] == false {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the source keeps the disk");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn killed_after_the_change_of_hands() -> Result<()> {
    if Bench::new()?.lacks("word of which nodes are active", (10, 0))? {
        return Ok(());
    }
    for way in WAYS {
        for format in FORMATS {
            require_all(killed_after(format, way)?, format, way, false)?;
        }
        require_all(killed_after("qbm", way)?, "qbm", way, true)?;
    }
    Ok(())
}
