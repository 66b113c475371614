// SPDX-License-Identifier: MIT OR Apache-2.0
//! Jobs to and from qbm images that fail, stop, are resumed or cancelled: the guest goes on,
//! and no bitmap lacks anything.

use std::fs;

use anyhow::{Context, Result};
use qbm_testkit::nbd::require_io_error;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, Content, StorageDaemon, Writers, backup, jobs};
use serde_json::{Value, json};

const DISK_BYTES: usize = 6 << 20;

/// A node over a qbm image whose data image fails as `rule` says.
fn failing(node: &str, file: &str, rule: &Value) -> Value {
    json!({
        "driver": "qbm", "node-name": node, "file": { "driver": "file", "filename": file },
        "data-file": {
            "driver": "raw",
            "file": {
                "driver": "blkdebug",
                "image": { "driver": "file", "filename": format!("{file}.raw") },
                "inject-error": [rule],
            },
        },
    })
}

/// Makes two images with bitmaps; opens them, one of them with a rule for errors; writes.
fn started(bench: &Bench, faulty: &str, rule: &Value) -> Result<(StorageDaemon, Writers)> {
    for name in ["disk", "target"] {
        bench.image_with_bitmap(name, &DISK_BYTES.to_string(), "4k")?;
    }
    bench.sparse("before", DISK_BYTES as u64, &[])?;
    // The block that fails has to hold something.
    bench.io("disk", &[&format!("write -P 1 0 {DISK_BYTES}")])?;
    let mut daemon = StorageDaemon::start(bench)?;
    for name in ["disk", "target"] {
        if name == faulty {
            daemon
                .qmp
                .execute("blockdev-add", failing(name, name, rule))?;
        } else {
            backup::open_target(&mut daemon.qmp, name, "qbm", name)?;
        }
    }
    daemon.export()?;
    let writers = Writers::start(daemon.nbd_socket(), &vec![1; DISK_BYTES], 3)?;
    writers.wait_for_more(60)?;
    Ok((daemon, writers))
}

/// Requires that bitmaps and disk are right, with the node closed or killed.
fn require_right(bench: &Bench, content: &Content) -> Result<()> {
    for name in ["disk", "target"] {
        let descriptor = bench.descriptor(name)?;
        let disk = descriptor.data_file()?;
        judge(&bench.path("before"), &disk, &descriptor.bitmap("b0")?)?
            .require_complete()
            .with_context(|| name.to_owned())?;
    }
    content.require(&fs::canonicalize(bench.descriptor("disk")?.data_file()?)?)
}

fn job(more: &Value) -> Value {
    let mut job = json!({ "device": "disk", "target": "target", "sync": "full" });
    for (key, value) in more.as_object().into_iter().flatten() {
        job[key] = value.clone();
    }
    job
}

/// A target that fails for good ends the job, and only the job.
#[test]
fn a_target_that_fails() -> Result<()> {
    let rule = json!({ "event": "write_aio", "errno": 28, "sector": 4096 });
    for killed in [false, true] {
        let bench = Bench::new()?;
        let (mut daemon, writers) = started(&bench, "target", &rule)?;
        let mirror = job(&json!({ "on-target-error": "report" }));
        jobs::start(&mut daemon.qmp, "blockdev-mirror", &mirror)?;
        let said = jobs::fails(&mut daemon.qmp)?;
        assert!(said.contains("No space left"), "{said}");
        writers.wait_for_more(60)?;
        let content = writers.end_with(daemon, killed)?;
        require_right(&bench, &content)?;
    }
    Ok(())
}

/// A job that stops at an error goes on when it is told to.
#[test]
fn a_job_that_stops_and_goes_on() -> Result<()> {
    let bench = Bench::new()?;
    let rule = json!({ "event": "write_aio", "errno": 28, "once": true });
    let (mut daemon, writers) = started(&bench, "target", &rule)?;
    let mirror = job(&json!({ "on-target-error": "enospc", "copy-mode": "write-blocking" }));
    jobs::start(&mut daemon.qmp, "blockdev-mirror", &mirror)?;
    let event = daemon.qmp.event("BLOCK_JOB_ERROR", |_| true)?;
    assert_eq!(event["data"]["action"], "stop", "{event}");
    writers.wait_for_more(60)?;
    let name = json!({ "device": jobs::JOB });
    daemon.qmp.execute("block-job-resume", name)?;
    jobs::wait_ready(&mut daemon.qmp)?;
    let content = writers.stop()?;
    jobs::leave(&mut daemon.qmp)?;
    daemon.quit()?;
    require_right(&bench, &content)?;
    content.require(&bench.path("target.raw"))
}

/// A source that cannot be read ends the job.
#[test]
fn a_source_that_fails() -> Result<()> {
    let bench = Bench::new()?;
    let rule = json!({ "event": "read_aio", "iotype": "read", "errno": 5, "sector": 4096 });
    let (mut daemon, writers) = started(&bench, "disk", &rule)?;
    let mirror = job(&json!({ "on-source-error": "report" }));
    jobs::start(&mut daemon.qmp, "blockdev-mirror", &mirror)?;
    let said = jobs::fails(&mut daemon.qmp)?;
    assert!(said.contains("Input/output error"), "{said}");
    writers.wait_for_more(60)?;
    let content = writers.stop()?;
    daemon.quit()?;
    require_right(&bench, &content)
}

#[test]
fn jobs_that_are_cancelled() -> Result<()> {
    for (command, ready) in [
        ("blockdev-mirror", false),
        ("blockdev-mirror", true),
        ("blockdev-backup", false),
    ] {
        let bench = Bench::new()?;
        let never = json!({ "event": "cor_write" });
        let (mut daemon, writers) = started(&bench, "target", &never)?;
        let speed = if ready { 0 } else { 1 << 16 };
        let job = job(&json!({ "speed": speed }));
        jobs::start(&mut daemon.qmp, command, &job)?;
        if ready {
            jobs::wait_ready(&mut daemon.qmp)?;
        }
        writers.wait_for_more(60)?;
        jobs::cancel(&mut daemon.qmp)?;
        writers.wait_for_more(60)?;
        let content = writers.stop()?;
        daemon.quit()?;
        require_right(&bench, &content).context(command)?;
    }
    Ok(())
}

/// A disk whose data image fails at a write says so to the guest; its bitmap marks the
/// block, which may have been written in part.
#[test]
fn a_guest_that_is_told_of_an_error() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk", "6M", "4k")?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let rule = json!({ "event": "write_aio", "errno": 5, "once": true });
    daemon
        .qmp
        .execute("blockdev-add", failing("disk", "disk", &rule))?;
    let mut guest = daemon.export()?;
    require_io_error(guest.write(1 << 20, &[1; 4096]))?;
    guest.write(2 << 20, &[1; 4096])?;
    daemon.quit()?;
    assert_eq!(
        bench.descriptor("disk")?.bitmap("b0")?.granules(),
        [256, 512]
    );
    Ok(())
}
