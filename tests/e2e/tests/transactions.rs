// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap commands in transactions, aborted after each action: memory and disk are as
//! before then, and what a SIGKILL leaves lacks nothing.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{
    self, action, bitmap_action, require_covered, require_settled, transaction, transaction_fails,
};
use qbm_testkit::load::Load;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Node `disk` with `b0` (granule 0 dirty), `b1` (granules 0 and 16) and `off`, disabled
/// (granule 16).
fn three_bitmaps(bench: &Bench) -> Result<StorageDaemon> {
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let mut client = daemon.export()?;
    bitmaps::add(&mut daemon.qmp, "off", 64 * KIB)?;
    bitmaps::add(&mut daemon.qmp, "b1", 4 * KIB)?;
    client.write(MIB, &[1; 100])?;
    bitmaps::run(&mut daemon.qmp, "disable", "off")?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    client.write(0, &[1; 100])?;
    Ok(daemon)
}

const ABORTED: &str = "aborted using Abort action";
const BITMAPS: [(&str, &[u64]); 3] = [("b0", &[0]), ("b1", &[0, 256]), ("off", &[16])];

fn require_as_before(bench: &Bench, daemon: &mut StorageDaemon, before: &[Value]) -> Result<()> {
    for (name, granules) in BITMAPS {
        require_covered(bench, name, granules)?;
    }
    let after = bitmaps::list(&mut daemon.qmp, "disk")?;
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    for (name, granules) in BITMAPS {
        require_settled(bench, &mut daemon.qmp, name)?;
        let stored = bench.descriptor("disk.qbm")?;
        ensure!(stored.bitmap(name)?.granules() == granules, "{name}");
        let recording = stored.qbm()["bitmaps"][name].get("ext-soft-qbm-recording");
        ensure!(
            recording.is_none() == (name != "off"),
            "{name}: {recording:?}"
        );
    }
    let mut names = bench.descriptor("disk.qbm")?.bitmap_names();
    names.sort();
    ensure!(names == ["b0", "b1", "off"], "{names:?}");
    Ok(())
}

fn adding(name: &str) -> Value {
    let mut add = bitmap_action("add", name);
    add["data"]["persistent"] = json!(true);
    add
}

fn merging(target: &str, source: &str) -> Value {
    let data = json!({ "node": "disk", "target": target, "bitmaps": [source] });
    action("block-dirty-bitmap-merge", data)
}

/// Lists of actions that succeed.
fn lists() -> Vec<Vec<Value>> {
    vec![
        vec![
            adding("new"),
            bitmap_action("clear", "b0"),
            merging("b0", "off"),
            bitmap_action("disable", "b1"),
            bitmap_action("enable", "off"),
            merging("new", "b1"),
            bitmap_action("remove", "off"),
        ],
        // The same bitmap again and again.
        vec![
            bitmap_action("clear", "b0"),
            bitmap_action("disable", "b0"),
            merging("b0", "b1"),
            bitmap_action("clear", "b0"),
            bitmap_action("enable", "b0"),
            bitmap_action("remove", "b0"),
        ],
        // One that comes and goes.
        vec![
            adding("new"),
            bitmap_action("disable", "new"),
            merging("new", "b0"),
            bitmap_action("clear", "new"),
            bitmap_action("remove", "new"),
            bitmap_action("remove", "b1"),
        ],
    ]
}

/// What fails while it is prepared, at once and after some work, and QEMU's words for it.
fn failing() -> [(Value, &'static str); 4] {
    let copy = json!({ "device": "disk", "target": "disk", "sync": "full" });
    [
        (action("abort", json!({})), ABORTED),
        (bitmap_action("clear", "nothing"), "'nothing' not found"),
        (adding("b1"), "already exists: b1"),
        (action("blockdev-backup", copy), "cannot be the same"),
    ]
}

#[test]
fn an_abort_after_each_action_leaves_all_as_before() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = three_bitmaps(&bench)?;
    let before = bitmaps::list(&mut daemon.qmp, "disk")?;
    for (number, list) in lists().iter().enumerate() {
        for count in 0..=list.len() {
            for (failure, words) in failing() {
                let mut actions = list[..count].to_vec();
                actions.push(failure.clone());
                let said = transaction_fails(&mut daemon.qmp, &actions)?;
                ensure!(said.contains(words), "{actions:?}: {said}");
                require_as_before(&bench, &mut daemon, &before)
                    .with_context(|| format!("list {number}, {count} actions, then {failure}"))?;
            }
        }
    }
    daemon.quit()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    for (name, _) in BITMAPS {
        require_settled(&bench, &mut daemon.qmp, name)?;
    }
    Ok(())
}

/// Killed as soon as the reply is there, before the driver has tidied up.
#[test]
fn a_kill_after_an_abort_loses_nothing() -> Result<()> {
    for (number, list) in lists().iter().enumerate() {
        for count in 1..=list.len() {
            let bench = Bench::new()?;
            let mut daemon = three_bitmaps(&bench)?;
            let mut actions = list[..count].to_vec();
            actions.push(action("abort", json!({})));
            let said = transaction_fails(&mut daemon.qmp, &actions)?;
            ensure!(said.contains(ABORTED), "{actions:?}: {said}");
            daemon.kill()?;
            StorageDaemon::with_image(&bench, "disk.qbm")?.quit()?;
            for (name, granules) in BITMAPS {
                require_covered(&bench, name, granules)
                    .with_context(|| format!("list {number}, {count} actions"))?;
            }
            let names = bench.descriptor("disk.qbm")?.bitmap_names();
            assert_eq!(names.len(), BITMAPS.len(), "{names:?}");
        }
    }
    Ok(())
}

/// What a transaction did that succeeded is there after a kill, whole.
#[test]
fn a_kill_after_a_commit_loses_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = three_bitmaps(&bench)?;
    let mut list = lists().swap_remove(0);
    list.pop();
    transaction(&mut daemon.qmp, &list)?;
    daemon.kill()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    for (name, granules, recording) in [
        ("b0", &[16][..], true),
        ("b1", &[0, 256], false),
        ("off", &[16], true),
        ("new", &[0, 16], true),
    ] {
        require_covered(&bench, name, granules)?;
        let bitmap = backup::query_bitmap(&mut daemon.qmp, name)?.context("it is gone")?;
        assert_eq!(bitmap["recording"], recording, "{bitmap}");
        assert!(bitmap.get("inconsistent").is_none(), "{bitmap}");
    }
    Ok(())
}

#[test]
fn committed_transactions_settle() -> Result<()> {
    for list in lists() {
        for count in 1..=list.len() {
            let bench = Bench::new()?;
            let mut daemon = three_bitmaps(&bench)?;
            transaction(&mut daemon.qmp, &list[..count])?;
            let left = bitmaps::list(&mut daemon.qmp, "disk")?;
            for bitmap in &left {
                let name = bitmap["name"].as_str().context("no name")?;
                require_settled(&bench, &mut daemon.qmp, name)?;
            }
            let stored = bench.descriptor("disk.qbm")?.bitmap_names();
            assert_eq!(left.len(), stored.len(), "{left:?} in memory, {stored:?}");
            daemon.quit()?;
            let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
            let mut again = bitmaps::list(&mut daemon.qmp, "disk")?;
            let mut left = left;
            let by_name = |bitmap: &Value| bitmap["name"].to_string();
            again.sort_by_key(by_name);
            left.sort_by_key(by_name);
            assert_eq!(left, again);
        }
    }
    Ok(())
}

/// QEMU cannot give a name twice in one transaction; it says so, and undoes the removal.
#[test]
fn a_bitmap_is_not_replaced_in_one_transaction() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = three_bitmaps(&bench)?;
    let before = bitmaps::list(&mut daemon.qmp, "disk")?;
    let actions = [bitmap_action("remove", "b0"), adding("b0")];
    let refusal = transaction_fails(&mut daemon.qmp, &actions)?;
    assert!(refusal.contains("already exists: b0"), "{refusal}");
    require_as_before(&bench, &mut daemon, &before)
}

/// A write that comes while a transaction is under way, and fails, is not forgotten.
#[test]
fn an_aborted_transaction_under_load_forgets_no_write() -> Result<()> {
    const ROUNDS: u32 = 60;
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 16M")?;
    bench.sparse("beginning.raw", 16 * MIB, &[])?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    bitmaps::add(&mut daemon.qmp, "b0", 4 * KIB)?;
    bitmaps::add(&mut daemon.qmp, "b1", 4 * KIB)?;
    let load = Load::start(daemon.export()?, 16, 7);
    for _ in 0..ROUNDS {
        load.wait_for_more(3)?;
        let actions = [
            bitmap_action("clear", "b0"),
            merging("b1", "b1"),
            // Adding polls: requests come through meanwhile, unless the node is paused.
            adding("x0"),
            adding("x1"),
            action("abort", json!({})),
        ];
        let said = transaction_fails(&mut daemon.qmp, &actions)?;
        ensure!(said.contains(ABORTED), "{said}");
    }
    load.stop()?;
    daemon.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    for name in ["b0", "b1"] {
        let bitmap = descriptor.bitmap(name)?;
        judge(
            &bench.path("beginning.raw"),
            &descriptor.data_file()?,
            &bitmap,
        )?
        .require_complete()
        .with_context(|| format!("bitmap {name:?}"))?;
    }
    Ok(())
}
