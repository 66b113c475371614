// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes that fail on purpose.

use anyhow::Result;
use serde_json::{Value, json};

use crate::qmp::Qmp;

/// The options of a node over `image` on which every request of the kind given (`write`,
/// `flush`, `discard`, ...) fails with EIO.
#[must_use]
#[allow(clippy::needless_pass_by_value)]
pub fn failing(iotype: &str, image: Value) -> Value {
    json!({
        "driver": "blkdebug", "image": image,
        "inject-error": [{ "event": "none", "iotype": iotype, "errno": 5 }],
    })
}

/// Opens the raw `file` as a node to which no write succeeds.
///
/// # Errors
/// When QEMU refuses it.
pub fn open_failing_target(qmp: &mut Qmp, node: &str, file: &str) -> Result<()> {
    let image = json!({ "driver": "file", "filename": file });
    let options = json!({ "driver": "raw", "node-name": node, "file": failing("write", image) });
    qmp.execute("blockdev-add", options).map(drop)
}
