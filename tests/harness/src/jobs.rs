// SPDX-License-Identifier: MIT OR Apache-2.0
//! Block jobs over QMP: one at a time, called `job`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::qmp::Qmp;

/// The id that [`start`] gives.
pub const JOB: &str = "job";

/// Starts the job that `command` makes of `arguments`.
///
/// # Errors
/// When QEMU refuses.
pub fn start(qmp: &mut Qmp, command: &str, arguments: &Value) -> Result<()> {
    qmp.execute(command, with_id(arguments)).map(drop)
}

/// Starts a job that QEMU must refuse; gives its words.
///
/// # Errors
/// When it does not.
pub fn start_refused(qmp: &mut Qmp, command: &str, arguments: &Value) -> Result<String> {
    qmp.refuses(command, with_id(arguments))
}

fn with_id(arguments: &Value) -> Value {
    let mut arguments = arguments.clone();
    arguments["job-id"] = json!(JOB);
    arguments
}

/// Waits until the job has copied something.
///
/// # Errors
/// When it does not.
pub fn wait_for_progress(qmp: &mut Qmp) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let jobs = qmp.execute("query-block-jobs", json!({}))?;
        if jobs[0]["offset"].as_u64() > Some(0) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no progress: {jobs}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until a mirror, or a commit of the active layer, has caught up.
///
/// # Errors
/// When the job ends before that.
pub fn wait_ready(qmp: &mut Qmp) -> Result<()> {
    qmp.event("BLOCK_JOB_READY", |data| data["device"] == JOB)
        .map(drop)
}

/// Ends a job that is ready: what used the source uses the target when this returns.
///
/// # Errors
/// When the job fails.
pub fn complete(qmp: &mut Qmp) -> Result<()> {
    qmp.execute("block-job-complete", json!({ "device": JOB }))?;
    wait(qmp)
}

/// Ends a job that is ready, without a change of who uses what.
///
/// # Errors
/// When the job fails.
pub fn leave(qmp: &mut Qmp) -> Result<()> {
    qmp.execute("block-job-cancel", json!({ "device": JOB }))?;
    wait(qmp)
}

/// Cancels the job, however far it is.
///
/// # Errors
/// When it ends in another way.
pub fn cancel(qmp: &mut Qmp) -> Result<()> {
    qmp.execute("block-job-cancel", json!({ "device": JOB, "force": true }))?;
    qmp.event("BLOCK_JOB_CANCELLED", |data| data["device"] == JOB)
        .map(drop)
}

/// Waits for the job's end.
///
/// # Errors
/// When it failed.
pub fn wait(qmp: &mut Qmp) -> Result<()> {
    match end(qmp)? {
        None => Ok(()),
        Some(error) => bail!("the job failed: {error}"),
    }
}

/// Waits for the end of a job that must fail; gives QEMU's words.
///
/// # Errors
/// When it does not fail.
pub fn fails(qmp: &mut Qmp) -> Result<String> {
    end(qmp)?.context("the job should have failed")
}

/// Runs a job to its end: one that gets ready is completed.
///
/// # Errors
/// When QEMU refuses it or it fails.
pub fn run(qmp: &mut Qmp, command: &str, arguments: &Value) -> Result<()> {
    start(qmp, command, arguments)?;
    let gets_ready = command.ends_with("mirror") || command.ends_with("commit");
    if gets_ready {
        // A commit of a layer that nobody writes to ends by itself.
        let event = qmp.event_of(&["BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED"])?;
        if event["event"] == "BLOCK_JOB_READY" {
            return complete(qmp);
        }
        ensure!(event["data"].get("error").is_none(), "{event}");
        return Ok(());
    }
    wait(qmp)
}

/// Runs `blockdev-create` to its end.
///
/// # Errors
/// When the job is refused or fails.
#[allow(clippy::needless_pass_by_value)]
pub fn create(qmp: &mut Qmp, options: Value) -> Result<()> {
    let error = create_and_fail(qmp, options)?;
    ensure!(error.is_null(), "{error}");
    Ok(())
}

/// Runs `blockdev-create` to its end; gives the job's error, null when there was none.
///
/// # Errors
/// When the job is refused.
#[allow(clippy::needless_pass_by_value)]
pub fn create_and_fail(qmp: &mut Qmp, options: Value) -> Result<Value> {
    let job = json!({ "job-id": "create", "options": options });
    qmp.execute("blockdev-create", job)?;
    qmp.event("JOB_STATUS_CHANGE", |data| {
        data["id"] == "create" && data["status"] == "concluded"
    })?;
    let jobs = qmp.execute("query-jobs", json!({}))?;
    let job = jobs
        .as_array()
        .and_then(|jobs| jobs.iter().find(|job| job["id"] == "create"));
    let error = job.map(|job| job["error"].clone()).unwrap_or_default();
    qmp.execute("job-dismiss", json!({ "id": "create" }))?;
    Ok(error)
}

fn end(qmp: &mut Qmp) -> Result<Option<String>> {
    let event = qmp.event("BLOCK_JOB_COMPLETED", |data| data["device"] == JOB)?;
    let error = &event["data"]["error"];
    Ok(error.as_str().map(str::to_owned))
}
