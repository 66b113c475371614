// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exports of nodes that are not called `disk`.

use anyhow::Result;
use serde_json::json;

use crate::{NBD_EXPORT, StorageDaemon};

/// Exports a node for writing, where and as [`StorageDaemon::export`] exports `disk`.
///
/// # Errors
/// When QEMU refuses.
pub fn writable(daemon: &mut StorageDaemon, node: &str) -> Result<()> {
    let address = json!({ "type": "unix", "data": { "path": daemon.nbd_socket() } });
    daemon
        .qmp
        .execute("nbd-server-start", json!({ "addr": address }))?;
    let export = json!({
        "type": "nbd", "id": "export", "node-name": node, "name": NBD_EXPORT, "writable": true,
    });
    daemon.qmp.execute("block-export-add", export).map(drop)
}
