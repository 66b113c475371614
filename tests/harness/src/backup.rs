// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a backup tool does over QMP.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::qmp::Qmp;

/// Opens `file` as a node that backups can be written to.
///
/// # Errors
/// When QEMU refuses it.
pub fn open_target(qmp: &mut Qmp, node: &str, format: &str, file: &str) -> Result<()> {
    let options = json!({
        "driver": format, "node-name": node, "file": { "driver": "file", "filename": file },
    });
    qmp.execute("blockdev-add", options).map(drop)
}

/// Closes such a node again.
///
/// # Errors
/// When QEMU refuses.
pub fn close_target(qmp: &mut Qmp, node: &str) -> Result<()> {
    qmp.execute("blockdev-del", json!({ "node-name": node }))
        .map(drop)
}

/// The action of a transaction that adds a persistent bitmap to node `disk`.
#[must_use]
pub fn add_action(name: &str, granularity_bytes: u64) -> Value {
    json!({
        "type": "block-dirty-bitmap-add",
        "data": { "node": "disk", "name": name, "persistent": true, "granularity": granularity_bytes },
    })
}

/// The action of a transaction that backs node `disk` up in full.
#[must_use]
pub fn full_backup_action(target: &str) -> Value {
    json!({
        "type": "blockdev-backup",
        "data": { "job-id": "backup", "device": "disk", "target": target, "sync": "full" },
    })
}

/// Adds a persistent bitmap and backs up in full, from the same instant on.
///
/// # Errors
/// When the transaction is refused or the job fails.
pub fn full(qmp: &mut Qmp, bitmap: &str, granularity_bytes: u64, target: &str) -> Result<()> {
    let actions = [
        add_action(bitmap, granularity_bytes),
        full_backup_action(target),
    ];
    qmp.execute("transaction", json!({ "actions": actions }))?;
    wait(qmp).map(drop)
}

/// Backs up what `bitmap` marks; gives the bytes that were copied.
///
/// # Errors
/// When the job is refused or fails.
pub fn incremental(qmp: &mut Qmp, bitmap: &str, target: &str) -> Result<u64> {
    let job = json!({
        "job-id": "backup", "device": "disk", "target": target,
        "sync": "incremental", "bitmap": bitmap,
    });
    qmp.execute("blockdev-backup", job)?;
    wait(qmp)
}

/// Waits for the job `backup` to end; gives the bytes that it copied.
///
/// # Errors
/// When it failed.
pub fn wait(qmp: &mut Qmp) -> Result<u64> {
    let event = qmp.event("BLOCK_JOB_COMPLETED", |data| data["device"] == "backup")?;
    let data = &event["data"];
    if let Some(error) = data.get("error") {
        bail!("the backup failed: {error}");
    }
    ensure!(
        data["offset"] == data["len"],
        "the backup is not complete: {data}"
    );
    data["offset"].as_u64().context("no length in the event")
}

/// What QEMU says of a bitmap of node `disk`; nothing when there is none of the name.
///
/// # Errors
/// When QEMU does not answer.
pub fn query_bitmap(qmp: &mut Qmp, name: &str) -> Result<Option<Value>> {
    let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true }))?;
    let disk = nodes
        .as_array()
        .and_then(|nodes| nodes.iter().find(|node| node["node-name"] == "disk"));
    let bitmaps = disk.context("there is no node \"disk\"")?["dirty-bitmaps"].as_array();
    Ok(bitmaps
        .and_then(|list| list.iter().find(|bitmap| bitmap["name"] == name))
        .cloned())
}

/// Requires that node `disk` has the bitmap, persistent, recording and consistent;
/// gives the bytes that it marks.
///
/// # Errors
/// When it has not.
pub fn require_good_bitmap(qmp: &mut Qmp, name: &str) -> Result<u64> {
    let bitmap =
        query_bitmap(qmp, name)?.with_context(|| format!("there is no bitmap {name:?}"))?;
    ensure!(
        bitmap.get("inconsistent") != Some(&json!(true)),
        "inconsistent: {bitmap}"
    );
    ensure!(
        bitmap["persistent"] == true && bitmap["recording"] == true,
        "{bitmap}"
    );
    bitmap["count"]
        .as_u64()
        .context("no count in the bitmap's description")
}
