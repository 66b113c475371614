// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps that come, go and change by QMP while a guest writes; then SIGKILL.
//!
//! What QEMU's memory said when it died, the disk must say too, and more is allowed.
//! The point in time that a bitmap counts from is a full backup that begins in the
//! same transaction.

use anyhow::{Result, ensure};
use qbm_testkit::bitmaps::{self, bitmap_action, transaction};
use qbm_testkit::load::Load;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

const REQUESTS_IN_FLIGHT: usize = 16;

/// An image under load, and a raw file to back it up to.
fn loaded(bench: &Bench, seed: u64) -> Result<(StorageDaemon, Load)> {
    bench.img("create -q -f qbm disk.qbm 48M")?;
    bench.sparse("copy.raw", 48 << 20, &[])?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    let load = Load::start(daemon.export()?, REQUESTS_IN_FLIGHT, seed);
    load.wait_for(100)?;
    Ok((daemon, load))
}

/// Runs `action` and begins a full backup to `copy.raw` at the same instant. More was written when it is done.
fn from_here_on(daemon: &mut StorageDaemon, load: &Load, action: Value) -> Result<()> {
    let actions = [action, backup::full_backup_action("copy")];
    transaction(&mut daemon.qmp, &actions)?;
    backup::wait(&mut daemon.qmp)?;
    load.wait_for_more(100)
}

/// As [`loaded`], with a bitmap `b0` since some requests.
fn loaded_with_b0(bench: &Bench, seed: u64, disabled: bool) -> Result<(StorageDaemon, Load)> {
    let (mut daemon, load) = loaded(bench, seed)?;
    let mut add = backup::add_action("b0", 4096);
    add["data"]["disabled"] = json!(disabled);
    transaction(&mut daemon.qmp, &[add])?;
    load.wait_for_more(200)?;
    Ok((daemon, load))
}

/// Kills the daemon in the midst of it.
fn kill(daemon: StorageDaemon, load: Load) -> Result<()> {
    daemon.kill()?;
    load.join().map(drop)
}

/// Holds a bitmap, first as its file is and then as QEMU loads it, against all that
/// changed since `copy.raw`.
fn require_complete(bench: &Bench, name: &str) -> Result<()> {
    let descriptor = bench.descriptor("disk.qbm")?;
    let bitmap = descriptor.bitmap(name)?;
    let verdict = judge(&bench.path("copy.raw"), &descriptor.data_file()?, &bitmap)?;
    println!(
        "{name}: {} changed, {} marked, {} over-reported",
        verdict.changed_count, verdict.marked_count, verdict.over_reported_count
    );
    verdict.require_complete()?;
    ensure!(
        verdict.changed_count > 0,
        "nothing changed: the test tested nothing"
    );
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let loaded = backup::query_bitmap(&mut daemon.qmp, name)?;
    let marked_bytes = json!(verdict.marked_count * bitmap.granularity_bytes());
    let count = loaded.as_ref().map(|bitmap| &bitmap["count"]);
    ensure!(
        count == Some(&marked_bytes),
        "{loaded:?} instead of {marked_bytes} bytes"
    );
    Ok(())
}

#[test]
fn a_bitmap_added_under_load_misses_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, load) = loaded(&bench, 1)?;
    from_here_on(&mut daemon, &load, backup::add_action("b0", 4096))?;
    kill(daemon, load)?;
    require_complete(&bench, "b0")
}

#[test]
fn a_bitmap_cleared_under_load_misses_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, load) = loaded_with_b0(&bench, 2, false)?;
    from_here_on(&mut daemon, &load, bitmap_action("clear", "b0"))?;
    kill(daemon, load)?;
    require_complete(&bench, "b0")
}

#[test]
fn a_bitmap_enabled_under_load_misses_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, load) = loaded_with_b0(&bench, 3, true)?;
    from_here_on(&mut daemon, &load, bitmap_action("enable", "b0"))?;
    kill(daemon, load)?;
    require_complete(&bench, "b0")
}

/// The merged bits are on disk when the command returns, not some time later.
#[test]
fn a_merge_is_on_disk_at_once() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, load) = loaded(&bench, 4)?;
    from_here_on(&mut daemon, &load, backup::add_action("from", 4096))?;
    let mut add = backup::add_action("into", 65536);
    add["data"]["disabled"] = json!(true);
    transaction(&mut daemon.qmp, &[add])?;
    load.wait_for(500)?;
    load.stop()?;
    let merge = json!({ "node": "disk", "target": "into", "bitmaps": ["from"] });
    daemon.qmp.execute("block-dirty-bitmap-merge", merge)?;
    daemon.kill()?;
    require_complete(&bench, "into")
}

#[test]
fn a_bitmap_disabled_under_load_stays_as_it_was() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, load) = loaded_with_b0(&bench, 5, false)?;
    bitmaps::run(&mut daemon.qmp, "disable", "b0")?;
    let before = backup::query_bitmap(&mut daemon.qmp, "b0")?;
    load.wait_for_more(300)?;
    kill(daemon, load)?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let after = backup::query_bitmap(&mut daemon.qmp, "b0")?;
    ensure!(
        before.is_some() && before == after,
        "before {before:?}, after {after:?}"
    );
    Ok(())
}

#[test]
fn a_bitmap_removed_under_load_is_gone() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, load) = loaded_with_b0(&bench, 6, false)?;
    bitmaps::run(&mut daemon.qmp, "remove", "b0")?;
    load.wait_for_more(200)?;
    kill(daemon, load)?;

    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    assert!(!bench.path("disk.qbm.b0.bitmap").exists());
    Ok(())
}
