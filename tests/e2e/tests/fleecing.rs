// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backups that are pulled: the disk as it was in one instant, over NBD, while a guest goes
//! on writing; what changed is told by a bitmap.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, bitmap_action, dirty_over_nbd, require_settled, transaction};
use qbm_testkit::load::Load;
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::oracle::{judge, require_same};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

const DISK_BYTES: u64 = 32 << 20;

/// A disk that was written at random, all of it marked in `daily`; `snap.raw`, what it is
/// now; `copy.raw`, what it was when `daily` was empty.
fn written_disk(bench: &Bench) -> Result<StorageDaemon> {
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    bitmaps::add(&mut daemon.qmp, "daily", 4096)?;
    let load = Load::start(daemon.export()?, 8, 31);
    load.wait_for(300)?;
    load.stop()?;
    fs::copy(data(bench)?, bench.path("snap.raw"))?;
    Ok(daemon)
}

fn data(bench: &Bench) -> Result<PathBuf> {
    bench.descriptor("disk.qbm")?.data_file()
}

fn add_node(daemon: &mut StorageDaemon, node: Value) -> Result<()> {
    daemon.qmp.execute("blockdev-add", node).map(drop)
}

fn add_export(daemon: &mut StorageDaemon, node: &str, writable: bool, named: Value) -> Result<()> {
    let export = json!({
        "type": "nbd", "id": node, "node-name": node, "name": node, "writable": writable,
        "bitmaps": named,
    });
    daemon.qmp.execute("block-export-add", export).map(drop)
}

/// Puts copy-before-write over the disk, with `daily`, and a node that reads the snapshot;
/// `daily` stops and `next` begins.
fn freeze(bench: &Bench, daemon: &mut StorageDaemon) -> Result<()> {
    bench.sparse("old.raw", DISK_BYTES, &[])?;
    add_node(
        daemon,
        json!({ "driver": "file", "node-name": "old", "filename": "old.raw" }),
    )?;
    add_node(
        daemon,
        json!({
            "driver": "copy-before-write", "node-name": "guest", "file": "disk", "target": "old",
            "bitmap": { "node": "disk", "name": "daily" },
        }),
    )?;
    add_node(
        daemon,
        json!({ "driver": "snapshot-access", "node-name": "frozen", "file": "guest" }),
    )?;
    let mut next = bitmap_action("add", "next");
    next["data"]["persistent"] = json!(true);
    next["data"]["granularity"] = json!(4096);
    transaction(&mut daemon.qmp, &[bitmap_action("disable", "daily"), next])
}

/// A written disk that is [frozen](freeze) while a guest writes on; gives what `daily` marks.
fn frozen_under_load(bench: &Bench, seed: u64) -> Result<(StorageDaemon, Vec<u64>, Load)> {
    let mut daemon = written_disk(bench)?;
    // Who writes below the filter would go unnoticed by it.
    daemon.unexport("export")?;
    freeze(bench, &mut daemon)?;
    let daily = bench.descriptor("disk.qbm")?.bitmap("daily")?.granules();
    add_export(&mut daemon, "guest", true, json!([]))?;
    let load = Load::start(NbdClient::connect(daemon.nbd_socket(), "guest")?, 8, seed);
    load.wait_for(100)?;
    Ok((daemon, daily, load))
}

/// Nothing that was written since the freeze is lost; `daily` has not changed.
fn require_kept(bench: &Bench, daily: &[u64]) -> Result<()> {
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "next")?;
    daemon.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.bitmap("daily")?.granules(), daily);
    let verdict = judge(
        &bench.path("snap.raw"),
        &data(bench)?,
        &descriptor.bitmap("next")?,
    )?;
    ensure!(verdict.changed_count > 0, "nothing was written meanwhile");
    verdict.require_complete()
}

#[test]
fn what_changed_is_pulled_while_the_guest_writes() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, daily, load) = frozen_under_load(&bench, 32)?;
    let named = json!([{ "node": "disk", "name": "daily" }]);
    add_export(&mut daemon, "frozen", false, named)?;
    let socket = daemon.nbd_socket().to_owned();
    let uri = format!("nbd+unix:///frozen?socket={}", socket.display());
    let mut reader = NbdClient::connect(&socket, "frozen")?;
    let copy = OpenOptions::new()
        .write(true)
        .open(bench.path("copy.raw"))?;
    for (offset, length_bytes) in dirty_over_nbd(&bench, &uri, "daily")? {
        let bytes = reader.read(offset, u32::try_from(length_bytes)?)?;
        copy.write_all_at(&bytes, offset)?;
    }
    load.wait_for_more(100)?;
    require_same(&bench.path("copy.raw"), &bench.path("snap.raw"))?;
    daemon.kill()?;
    load.join()?;
    require_kept(&bench, &daily)
}

/// The snapshot is the source of a backup job.
#[test]
fn the_snapshot_is_pushed_while_the_guest_writes() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, daily, load) = frozen_under_load(&bench, 33)?;

    // Only what daily marks can be read, so only that is backed up.
    add_node(
        &mut daemon,
        json!({ "driver": "file", "node-name": "copy", "filename": "copy.raw" }),
    )?;
    let add = json!({ "node": "frozen", "name": "changed", "granularity": 4096, "disabled": true });
    daemon.qmp.execute("block-dirty-bitmap-add", add)?;
    let merge = json!({
        "node": "frozen", "target": "changed",
        "bitmaps": [{ "node": "disk", "name": "daily" }],
    });
    daemon.qmp.execute("block-dirty-bitmap-merge", merge)?;
    let job = json!({
        "job-id": "backup", "device": "frozen", "target": "copy", "sync": "bitmap",
        "bitmap": "changed", "bitmap-mode": "never",
    });
    daemon.qmp.execute("blockdev-backup", job)?;
    let copied_bytes = backup::wait(&mut daemon.qmp).context(daemon.stderr())?;
    ensure!(copied_bytes > 0, "nothing was copied");
    require_same(&bench.path("copy.raw"), &bench.path("snap.raw"))?;
    load.wait_for_more(100)?;
    daemon.kill()?;
    load.join()?;
    require_kept(&bench, &daily)
}

/// The older way: a backup job with sync=none keeps what is overwritten in an image over the
/// disk.
#[test]
fn a_job_keeps_what_is_overwritten() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = written_disk(&bench)?;
    bench.img(&format!("create -q -f qcow2 old.qcow2 {DISK_BYTES}"))?;
    add_node(
        &mut daemon,
        json!({
            "driver": "qcow2", "node-name": "old", "backing": "disk",
            "file": { "driver": "file", "filename": "old.qcow2" },
        }),
    )?;
    let daily = bench.descriptor("disk.qbm")?.bitmap("daily")?.granules();
    let mut next = bitmap_action("add", "next");
    next["data"]["persistent"] = json!(true);
    let job = json!({
        "type": "blockdev-backup",
        "data": { "job-id": "job", "device": "disk", "target": "old", "sync": "none" },
    });
    transaction(
        &mut daemon.qmp,
        &[bitmap_action("disable", "daily"), next, job],
    )?;
    add_export(&mut daemon, "old", false, json!([]))?;
    let socket = daemon.nbd_socket().to_owned();
    let load = Load::start(NbdClient::connect(&socket, "disk")?, 8, 34);
    load.wait_for(200)?;
    let uri = format!("nbd+unix:///old?socket={}", socket.display());
    bench.img(["compare", "-f", "raw", "-F", "raw", &uri, "snap.raw"])?;
    load.wait_for_more(100)?;
    daemon.unexport("old")?;
    daemon.qmp.execute("job-cancel", json!({ "id": "job" }))?;
    daemon
        .qmp
        .event("BLOCK_JOB_CANCELLED", |data| data["device"] == "job")?;
    load.stop()?;
    require_settled(&bench, &mut daemon.qmp, "next")?;
    daemon.kill()?;
    require_kept(&bench, &daily)
}
