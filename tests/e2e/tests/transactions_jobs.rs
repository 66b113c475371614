// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backup jobs in transactions: each for itself, and all or none of them.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{
    self, action, bitmap_action, require_settled, transaction, transaction_fails,
};
use qbm_testkit::{Bench, StorageDaemon, backup, faults};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Node `disk` with `b0` and `b1`, both with granules 0 and 16; targets `good` and `bad`:
/// writing to the latter fails.
fn two_targets(bench: &Bench) -> Result<StorageDaemon> {
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.sparse("good.raw", 64 << 20, &[])?;
    bench.sparse("bad.raw", 64 << 20, &[])?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    for name in ["b0", "b1"] {
        bitmaps::add(&mut daemon.qmp, name, 64 * KIB)?;
    }
    let mut client = daemon.export()?;
    client.write(0, &[1; 100])?;
    client.write(MIB, &[1; 100])?;
    backup::open_target(&mut daemon.qmp, "good", "raw", "good.raw")?;
    faults::open_failing_target(&mut daemon.qmp, "bad", "bad.raw")?;
    Ok(daemon)
}

fn backing_up(bitmap: &str, target: &str) -> Value {
    action(
        "blockdev-backup",
        json!({
            "job-id": bitmap, "device": "disk", "target": target, "sync": "incremental",
            "bitmap": bitmap,
        }),
    )
}

/// Runs a job for each bitmap, all or none of which succeed, to their end.
fn run_grouped(daemon: &mut StorageDaemon, targets: [&str; 2]) -> Result<()> {
    let arguments = json!({
        "actions": [backing_up("b0", targets[0]), backing_up("b1", targets[1])],
        "properties": { "completion-mode": "grouped" },
    });
    daemon.qmp.execute("transaction", arguments)?;
    for job in ["b0", "b1"] {
        daemon.qmp.event("JOB_STATUS_CHANGE", |data| {
            data["id"] == job && data["status"] == "null"
        })?;
    }
    Ok(())
}

/// Waits for the job; gives its error, if it had one.
fn end_of(daemon: &mut StorageDaemon, job: &str) -> Result<Option<String>> {
    let event = daemon
        .qmp
        .event("BLOCK_JOB_COMPLETED", |data| data["device"] == job)?;
    Ok(event["data"]["error"].as_str().map(str::to_owned))
}

fn counts(daemon: &mut StorageDaemon) -> Result<Vec<(String, u64)>> {
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    let mut counts = Vec::new();
    for bitmap in list {
        ensure!(bitmap["busy"] == false, "{bitmap}");
        let name = bitmap["name"].as_str().context("no name")?.to_owned();
        counts.push((name, bitmap["count"].as_u64().context("no count")?));
    }
    counts.sort();
    Ok(counts)
}

fn require_counts(
    bench: &Bench,
    mut daemon: StorageDaemon,
    expected: [(&str, u64); 2],
) -> Result<()> {
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(counts(&mut daemon)?, expected);
    for (name, _) in &expected {
        require_settled(bench, &mut daemon.qmp, name)?;
    }
    daemon.kill()?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    assert_eq!(counts(&mut daemon)?, expected);
    daemon.quit().map(drop)
}

#[test]
fn each_job_for_itself() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    let actions = [backing_up("b0", "good"), backing_up("b1", "bad")];
    transaction(&mut daemon.qmp, &actions)?;
    assert_eq!(end_of(&mut daemon, "b0")?, None);
    let error = end_of(&mut daemon, "b1")?;
    assert_eq!(error.as_deref(), Some("Input/output error"));
    require_counts(&bench, daemon, [("b0", 0), ("b1", 128 * KIB)])
}

/// One fails: the other's bitmap is as before, too, though it had copied everything.
#[test]
fn all_jobs_or_none() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    run_grouped(&mut daemon, ["good", "bad"])?;
    require_counts(&bench, daemon, [("b0", 128 * KIB), ("b1", 128 * KIB)])
}

#[test]
fn all_jobs_when_none_fails() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    bench.sparse("second.raw", 64 << 20, &[])?;
    backup::open_target(&mut daemon.qmp, "second", "raw", "second.raw")?;
    run_grouped(&mut daemon, ["good", "second"])?;
    require_counts(&bench, daemon, [("b0", 0), ("b1", 0)])
}

/// The transaction fails after a job was made: its bitmap is given back.
#[test]
fn an_abort_after_a_job_gives_the_bitmap_back() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    let actions = [
        bitmap_action("clear", "b1"),
        backing_up("b0", "good"),
        action("abort", json!({})),
    ];
    let refusal = transaction_fails(&mut daemon.qmp, &actions)?;
    assert!(refusal.contains("Abort action"), "{refusal}");
    require_counts(&bench, daemon, [("b0", 128 * KIB), ("b1", 128 * KIB)])
}

/// The usual beginning of a new chain: a bitmap is emptied in the instant of the backup.
#[test]
fn a_bitmap_is_cleared_in_the_instant_of_a_full_backup() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    let actions = [
        bitmap_action("clear", "b0"),
        backup::full_backup_action("good"),
    ];
    transaction(&mut daemon.qmp, &actions)?;
    backup::wait(&mut daemon.qmp)?;
    require_counts(&bench, daemon, [("b0", 0), ("b1", 128 * KIB)])
}

/// Cleared, and lent to a job at once: the clearing counts when the job ends.
#[test]
fn a_bitmap_is_cleared_and_lent_in_one_transaction() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    let actions = [bitmap_action("clear", "b0"), backing_up("b0", "bad")];
    transaction(&mut daemon.qmp, &actions)?;
    // Nothing to copy: the bad target is never written.
    assert_eq!(end_of(&mut daemon, "b0")?, None);
    require_counts(&bench, daemon, [("b0", 0), ("b1", 128 * KIB)])
}

/// A bitmap that a job has cannot be touched; the transaction leaves the others alone.
#[test]
fn a_lent_bitmap_makes_a_transaction_fail() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    let job = json!({
        "job-id": "b0", "device": "disk", "target": "good", "sync": "incremental",
        "bitmap": "b0", "auto-finalize": false,
    });
    daemon.qmp.execute("blockdev-backup", job)?;
    for verb in ["clear", "remove", "enable", "disable"] {
        let actions = [bitmap_action("clear", "b1"), bitmap_action(verb, "b0")];
        let refusal = transaction_fails(&mut daemon.qmp, &actions)?;
        assert!(refusal.contains("in use by another operation"), "{refusal}");
    }
    daemon
        .qmp
        .event("JOB_STATUS_CHANGE", |data| data["status"] == "pending")?;
    daemon.qmp.execute("job-finalize", json!({ "id": "b0" }))?;
    assert_eq!(end_of(&mut daemon, "b0")?, None);
    require_counts(&bench, daemon, [("b0", 0), ("b1", 128 * KIB)])
}

/// A backup ends while a transaction waits for the node to be drained: the bitmap that the
/// transaction had found was freed by then.
#[test]
fn a_bitmap_is_cleared_while_its_job_ends() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = two_targets(&bench)?;
    for _ in 0..100 {
        transaction(&mut daemon.qmp, &[backing_up("b0", "good")])?;
        let actions = json!({ "actions": [bitmap_action("clear", "b0")] });
        daemon.qmp.start("transaction", actions)?;
        let reply = daemon.qmp.reply()?;
        if let Some(words) = reply["error"]["desc"].as_str() {
            ensure!(words.contains("in use"), "{words}");
        }
        ensure!(end_of(&mut daemon, "b0")?.is_none(), "the job failed");
    }
    require_settled(&bench, &mut daemon.qmp, "b0")?;
    daemon.quit().map(drop)
}
