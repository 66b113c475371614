// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps that arrive by migration: stored when they are complete, and not before.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Machine, PATIENCE, backup, bitmaps, migration};
use serde_json::json;

use crate::{KIB, MIB, is_persistent, query, stored};

const DISK_BYTES: u64 = 16 << 30;
/// So that 8 bits are a sector on disk: the bitmaps are large for what they say.
const GRANULARITY_BYTES: u64 = 512;
const WRITES_COUNT: u64 = 1024;
const WRITES_APART: u64 = DISK_BYTES / WRITES_COUNT;

fn blockdev(driver: &str, file: &str) -> String {
    format!("driver={driver},node-name=disk,file.driver=file,file.filename={file}")
}

/// A source whose transient bitmaps `on` and `off` (disabled) have the same granules.
fn source(bench: &Bench) -> Result<Machine> {
    bench.img(&format!("create -q -f raw source.raw {DISK_BYTES}"))?;
    let mut source = Machine::start(bench, ["-blockdev", &blockdev("raw", "source.raw")])?;
    for name in ["on", "off"] {
        let add = json!({ "node": "disk", "name": name, "granularity": GRANULARITY_BYTES });
        source.qmp.execute("block-dirty-bitmap-add", add)?;
    }
    for number in 0..WRITES_COUNT {
        migration::write(&mut source.qmp, "disk", 1, number * WRITES_APART, 512)?;
    }
    bitmaps::run(&mut source.qmp, "disable", "off")?;
    migration::enable(&mut source.qmp, &["dirty-bitmaps"])?;
    Ok(source)
}

/// A destination with a disk of its own, whose image stores all bitmaps.
fn destination(bench: &Bench) -> Result<Machine> {
    bench.img(&format!(
        "create -q -f qbm -o persist_bitmaps=all disk.qbm {DISK_BYTES}"
    ))?;
    let disk = blockdev("qbm", "disk.qbm");
    let mut destination = Machine::start(bench, ["-incoming", "defer", "-blockdev", &disk])?;
    migration::enable(&mut destination.qmp, &["dirty-bitmaps"])?;
    migration::listen(&mut destination.qmp, bench)?;
    Ok(destination)
}

/// Waits for both sides' end; the bitmaps are there then, and outlive the destination.
fn require_arrived(bench: &Bench, mut source: Machine, mut destination: Machine) -> Result<()> {
    migration::wait_for(&mut source.qmp, "completed")?;
    migration::wait_for(&mut destination.qmp, "completed")?;
    source.quit()?;
    for name in ["on", "off"] {
        assert!(is_persistent(&mut destination.qmp, name)?, "{name}");
        bitmaps::require_settled(bench, &mut destination.qmp, name)?;
    }
    assert_eq!(stored(bench)?, ["off", "on"]);
    migration::write(&mut destination.qmp, "disk", 1, MIB, 512)?;
    destination.kill()?;

    let disk = blockdev("qbm", "disk.qbm");
    let mut later = Machine::start(bench, ["-blockdev", &disk])?;
    for (name, granules_count) in [("on", WRITES_COUNT + 1), ("off", WRITES_COUNT)] {
        let bitmap = query(&mut later.qmp, name)?;
        assert!(bitmap.get("inconsistent").is_none(), "{bitmap}");
        assert_eq!(
            bitmap["count"],
            granules_count * GRANULARITY_BYTES,
            "{bitmap}"
        );
        assert_eq!(bitmap["recording"], name == "on", "{bitmap}");
    }
    later.quit()?;
    Ok(())
}

#[test]
fn bitmaps_that_were_transient_where_they_come_from() -> Result<()> {
    let bench = Bench::new()?;
    let mut source = source(&bench)?;
    let destination = destination(&bench)?;
    // Large as the bitmaps are, they may come when the source has stopped.
    let patient = json!({ "downtime-limit": 60_000 });
    source.qmp.execute("migrate-set-parameters", patient)?;
    let uri = json!({ "uri": migration::address(&bench) });
    source.qmp.execute("migrate", uri)?;
    require_arrived(&bench, source, destination)
}

/// Starts a postcopy migration, which stops when the destination runs and hardly any of the
/// bitmaps is there.
fn begin_postcopy(bench: &Bench, source: &mut Machine, destination: &mut Machine) -> Result<()> {
    let slow = json!({ "max-bandwidth": 16 * KIB, "max-postcopy-bandwidth": 16 * KIB });
    source.qmp.execute("migrate-set-parameters", slow)?;
    let uri = json!({ "uri": migration::address(bench) });
    source.qmp.execute("migrate", uri)?;
    source.qmp.execute("migrate-start-postcopy", json!({}))?;
    migration::wait_for(&mut destination.qmp, "postcopy-active")?;
    destination.qmp.event("RESUME", |_| true).map(drop)
}

/// The destination has the disk before it has the bitmaps: it must not store what is there
/// of them as if that were all.
#[test]
fn postcopy() -> Result<()> {
    let bench = Bench::new()?;
    let mut source = source(&bench)?;
    let mut destination = destination(&bench)?;
    begin_postcopy(&bench, &mut source, &mut destination)?;
    for name in ["on", "off"] {
        let bitmap = query(&mut destination.qmp, name)?;
        assert_eq!(bitmap["busy"], true, "{bitmap}");
        assert_eq!(bitmap["persistent"], false, "{bitmap}");
    }
    assert!(stored(&bench)?.is_empty());
    // Another one is stored meanwhile.
    bitmaps::run(&mut destination.qmp, "add", "new")?;
    assert_eq!(stored(&bench)?, ["new"]);
    bitmaps::run(&mut destination.qmp, "remove", "new")?;

    let fast = json!({ "max-postcopy-bandwidth": 0 });
    source.qmp.execute("migrate-set-parameters", fast)?;
    require_arrived(&bench, source, destination)
}

#[test]
fn a_postcopy_that_is_killed_leaves_no_half_bitmaps() -> Result<()> {
    let bench = Bench::new()?;
    let mut source = source(&bench)?;
    let mut destination = destination(&bench)?;
    begin_postcopy(&bench, &mut source, &mut destination)?;
    migration::write(&mut destination.qmp, "disk", 1, MIB, 512)?;
    destination.kill()?;
    source.kill()?;
    let disk = blockdev("qbm", "disk.qbm");
    let mut later = Machine::start(&bench, ["-blockdev", &disk])?;
    let list = bitmaps::list(&mut later.qmp, "disk")?;
    assert!(list.is_empty(), "{list:?}");
    later.quit()?;
    Ok(())
}

/// The target of a storage migration is active all the time. What has not arrived when one
/// side dies is not stored, and nobody finds it later.
#[test]
fn nothing_is_stored_of_a_migration_that_fails() -> Result<()> {
    for source_dies in [true, false] {
        let bench = Bench::new()?;
        let mut source = source(&bench)?;
        let mut destination = destination(&bench)?;
        let address_of_nbd = json!({ "type": "unix", "data": { "path": bench.path("nbd") } });
        destination
            .qmp
            .execute("nbd-server-start", json!({ "addr": address_of_nbd }))?;
        let export = json!({
            "type": "nbd", "id": "mirror", "node-name": "disk", "name": "disk", "writable": true,
        });
        destination.qmp.execute("block-export-add", export)?;

        // Without postcopy, all of the bitmaps has to wait.
        let slow = json!({ "max-bandwidth": 16 * KIB });
        source.qmp.execute("migrate-set-parameters", slow)?;
        let uri = json!({ "uri": migration::address(&bench) });
        source.qmp.execute("migrate", uri)?;
        migration::wait_for(&mut destination.qmp, "active")?;
        wait_until_busy(&mut destination.qmp, "off")?;
        assert!(stored(&bench)?.is_empty());
        bitmaps::run(&mut destination.qmp, "add", "new")?;
        assert_eq!(stored(&bench)?, ["new"]);

        let deadline = Instant::now() + PATIENCE;
        if source_dies {
            source.kill()?;
            // It gives up, and ends.
            while destination.qmp.execute("query-name", json!({})).is_ok() {
                ensure!(Instant::now() < deadline, "the destination goes on");
                sleep(Duration::from_millis(5));
            }
            drop(destination);
        } else {
            destination.kill()?;
            source.kill()?;
        }
        let disk = blockdev("qbm", "disk.qbm");
        let mut later = Machine::start(&bench, ["-blockdev", &disk])?;
        let list = bitmaps::list(&mut later.qmp, "disk")?;
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(list[0]["name"], "new");
        later.quit()?;
    }
    Ok(())
}

/// Its first sign has arrived.
fn wait_until_busy(qmp: &mut Qmp, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while backup::query_bitmap(qmp, name)?.is_none_or(|bitmap| bitmap["busy"] != true) {
        ensure!(Instant::now() < deadline, "no bitmap {name:?} arrives");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
