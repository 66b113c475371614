// SPDX-License-Identifier: MIT OR Apache-2.0
//! Live migration between two [`Machine`](crate::Machine)s, and the commands of the human
//! monitor that its tests need.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::Bench;
use crate::qmp::Qmp;

/// Runs a command of the human monitor; gives what it printed, which is how it fails.
///
/// # Errors
/// When the monitor does not answer.
pub fn human(qmp: &mut Qmp, line: &str) -> Result<String> {
    let arguments = json!({ "command-line": line });
    let reply = qmp.execute("human-monitor-command", arguments)?;
    Ok(reply.as_str().unwrap_or_default().to_owned())
}

/// Writes to a node in the place of a guest.  That the write failed is not seen here: look
/// at the data.
///
/// # Errors
/// When there is no such node.
pub fn write(qmp: &mut Qmp, node: &str, pattern: u8, offset: u64, bytes: u64) -> Result<()> {
    let line = format!("qemu-io {node} \"write -P {pattern} {offset} {bytes}\"");
    let printed = human(qmp, &line)?;
    if !printed.is_empty() {
        bail!("{line}: {printed}");
    }
    Ok(())
}

/// Turns capabilities of migration on; its events are always.
///
/// # Errors
/// When QEMU refuses.
pub fn enable(qmp: &mut Qmp, capabilities: &[&str]) -> Result<()> {
    let list: Vec<Value> = capabilities
        .iter()
        .chain(&["events"])
        .map(|name| json!({ "capability": name, "state": true }))
        .collect();
    let arguments = json!({ "capabilities": list });
    qmp.execute("migrate-set-capabilities", arguments).map(drop)
}

/// Where a destination listens.
#[must_use]
pub fn address(bench: &Bench) -> String {
    format!("unix:{}", bench.path(".migration").display())
}

/// Begins the migration to the destination of the bench, and waits until all that is left
/// is to change hands: the source still has the disk.
///
/// # Errors
/// When QEMU refuses, or the migration ends before.
pub fn start(qmp: &mut Qmp, bench: &Bench) -> Result<()> {
    enable(qmp, &["pause-before-switchover"])?;
    let uri = json!({ "uri": address(bench) });
    qmp.execute("migrate", uri)?;
    wait_for(qmp, "pre-switchover")
}

/// Has a migration go on that was [started](start).
///
/// # Errors
/// When QEMU refuses.
pub fn go_on(qmp: &mut Qmp) -> Result<()> {
    let state = json!({ "state": "pre-switchover" });
    qmp.execute("migrate-continue", state).map(drop)
}

/// Has a machine that was started with `-incoming defer` listen.
///
/// # Errors
/// When QEMU refuses.
pub fn listen(qmp: &mut Qmp, bench: &Bench) -> Result<()> {
    let uri = json!({ "uri": address(bench) });
    qmp.execute("migrate-incoming", uri).map(drop)
}

/// Waits until the migration is `wanted`.
///
/// # Errors
/// When it comes to another end.
pub fn wait_for(qmp: &mut Qmp, wanted: &str) -> Result<()> {
    let ends = ["completed", "failed", "cancelled"];
    let event = qmp.event("MIGRATION", |data| {
        let status = data["status"].as_str().unwrap_or_default();
        status == wanted || ends.contains(&status)
    })?;
    let status = event["data"]["status"].as_str().context("no status")?;
    if status != wanted {
        let why = qmp.execute("query-migrate", json!({}))?;
        bail!("the migration is {status}, not {wanted}: {why}");
    }
    Ok(())
}

/// Has a migration that was [started](start) go on, until it is completed on both sides.
///
/// # Errors
/// When it fails on one.
pub fn complete(source: &mut Qmp, destination: &mut Qmp) -> Result<()> {
    go_on(source)?;
    wait_for(source, "completed")?;
    wait_for(destination, "completed")
}
