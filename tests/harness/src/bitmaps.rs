// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps over QMP, held against what is stored.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::qmp::Qmp;
use crate::{Bench, PATIENCE};

/// Names a bitmap of node `disk`, as most commands take it.
#[must_use]
pub fn on_disk(name: &str) -> Value {
    json!({ "node": "disk", "name": name })
}

/// An action of a transaction.
#[must_use]
#[allow(clippy::needless_pass_by_value)]
pub fn action(kind: &str, data: Value) -> Value {
    json!({ "type": kind, "data": data })
}

/// An action on a bitmap of node `disk`: `clear` stands for `block-dirty-bitmap-clear`.
#[must_use]
pub fn bitmap_action(verb: &str, name: &str) -> Value {
    action(&format!("block-dirty-bitmap-{verb}"), on_disk(name))
}

/// Runs `block-dirty-bitmap-VERB` on a bitmap of node `disk`.
///
/// # Errors
/// When QEMU refuses.
pub fn run(qmp: &mut Qmp, verb: &str, name: &str) -> Result<()> {
    let command = format!("block-dirty-bitmap-{verb}");
    qmp.execute(&command, on_disk(name)).map(drop)
}

/// Adds a persistent bitmap to node `disk`.
///
/// # Errors
/// When QEMU refuses.
pub fn add(qmp: &mut Qmp, name: &str, granularity_bytes: u64) -> Result<()> {
    let add = json!({
        "node": "disk", "name": name, "persistent": true, "granularity": granularity_bytes,
    });
    qmp.execute("block-dirty-bitmap-add", add).map(drop)
}

/// Runs a transaction that must succeed.
///
/// # Errors
/// When QEMU refuses it.
pub fn transaction(qmp: &mut Qmp, actions: &[Value]) -> Result<()> {
    qmp.execute("transaction", json!({ "actions": actions }))
        .map(drop)
}

/// Runs a transaction that must fail; gives QEMU's words.
///
/// # Errors
/// When it succeeds.
pub fn transaction_fails(qmp: &mut Qmp, actions: &[Value]) -> Result<String> {
    qmp.refuses("transaction", json!({ "actions": actions }))
}

/// What QEMU says of the bitmaps of a node.
///
/// # Errors
/// When there is no such node.
pub fn list(qmp: &mut Qmp, node: &str) -> Result<Vec<Value>> {
    let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true }))?;
    let found = nodes
        .as_array()
        .and_then(|nodes| nodes.iter().find(|found| found["node-name"] == node))
        .with_context(|| format!("there is no node {node:?}"))?;
    Ok(found["dirty-bitmaps"]
        .as_array()
        .cloned()
        .unwrap_or_default())
}

/// The checksum of a bitmap's bits in QEMU's memory.
///
/// # Errors
/// When there is no such bitmap.
pub fn checksum(qmp: &mut Qmp, node: &str, name: &str) -> Result<String> {
    let bitmap = json!({ "node": node, "name": name });
    let reply = qmp.execute("x-debug-block-dirty-bitmap-sha256", bitmap)?;
    let sum = reply["sha256"].as_str().context("no checksum")?;
    Ok(sum.to_owned())
}

/// The same checksum of the bits in a bitmap's file.
///
/// # Errors
/// When the descriptor has no such bitmap.
pub fn stored_checksum(bench: &Bench, image: &str, name: &str) -> Result<String> {
    let path = bench.descriptor(image)?.bitmap_path(name)?;
    let mut bits = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    // QEMU keeps whole words, and one at least.
    bits.resize(bits.len().next_multiple_of(8).max(8), 0);
    let copy = ".checksum";
    bench.write(copy, bits)?;
    let printed = bench.host("sha256sum", [copy])?.stdout;
    let sum = printed.split_whitespace().next().context("no checksum")?;
    Ok(sum.to_owned())
}

/// Requires that the stored bitmap has these granules of its own: more are allowed, at
/// once after a command.
///
/// # Errors
/// When one is missing.
pub fn require_covered(bench: &Bench, name: &str, granules: &[u64]) -> Result<()> {
    let bitmap = bench.descriptor("disk.qbm")?.bitmap(name)?;
    for &granule in granules {
        ensure!(
            bitmap.is_set(granule),
            "bitmap {name:?}: granule {granule} is in memory and not on disk"
        );
    }
    Ok(())
}

/// Requires that memory and disk come to be the same: the driver takes bits off the disk
/// when the command that cleared them is over.
///
/// # Errors
/// When they do not.
pub fn require_settled(bench: &Bench, qmp: &mut Qmp, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let memory = checksum(qmp, "disk", name)?;
        let disk = stored_checksum(bench, "disk.qbm", name)?;
        if memory == disk {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "bitmap {name:?}: memory {memory}, disk {disk}"
        );
        sleep(Duration::from_millis(5));
    }
}

/// The extents that an exported bitmap marks, as libnbd's nbdinfo finds them: offsets and
/// lengths in bytes.
///
/// # Errors
/// When the export has no such bitmap, or nbdinfo is missing.
pub fn dirty_over_nbd(bench: &Bench, uri: &str, bitmap: &str) -> Result<Vec<(u64, u64)>> {
    let map = format!("--map=qemu:dirty-bitmap:{bitmap}");
    let printed = bench.host("nbdinfo", ["--json", &map, uri])?.stdout;
    let extents: Value = serde_json::from_str(&printed).context(printed)?;
    let mut dirty = Vec::new();
    for extent in extents.as_array().context("no list of extents")? {
        if extent["type"] == 1 {
            let number = |key: &str| extent[key].as_u64().context("no number");
            dirty.push((number("offset")?, number("length")?));
        }
    }
    Ok(dirty)
}
