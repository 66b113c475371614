// SPDX-License-Identifier: MIT OR Apache-2.0
//! How an operator puts QBM under a disk that a guest uses: the commands that
//! `qemu-glue/README.md` describes.

use anyhow::Result;
use serde_json::json;

use crate::jobs::create;
use crate::qmp::Qmp;

/// Makes the descriptor `disk.qbm` for the image that `node` gives access to.
///
/// # Errors
/// When a command is refused or a job fails.
pub fn create_over(qmp: &mut Qmp, node: &str, size_bytes: u64) -> Result<()> {
    create(
        qmp,
        json!({ "driver": "file", "filename": "disk.qbm", "size": 0 }),
    )?;
    let descriptor = json!({
        "driver": "file", "node-name": "descriptor", "filename": "disk.qbm",
    });
    qmp.execute("blockdev-add", descriptor)?;
    create(
        qmp,
        json!({
            "driver": "qbm", "file": "descriptor", "data-file": node, "size": size_bytes,
        }),
    )
}

/// Opens `disk.qbm`, whose descriptor is open already, over `node` as node `disk`.
///
/// # Errors
/// When QEMU refuses.
pub fn open_over(qmp: &mut Qmp, node: &str) -> Result<()> {
    let image = json!({
        "driver": "qbm", "node-name": "disk", "file": "descriptor", "data-file": node,
        "discard": "unmap",
    });
    qmp.execute("blockdev-add", image).map(drop)
}

/// Leads the guest's device `id` to `node`.
///
/// # Errors
/// When QEMU refuses.
pub fn lead_device_to(qmp: &mut Qmp, id: &str, node: &str) -> Result<()> {
    let drive = json!({
        "path": format!("/machine/peripheral/{id}"), "property": "drive", "value": node,
    });
    qmp.execute("qom-set", drive).map(drop)
}

/// Has the descriptor's node in the iothread where the data image is.
///
/// # Errors
/// When QEMU refuses.
pub fn move_descriptor_to(qmp: &mut Qmp, iothread: &str) -> Result<()> {
    let there = json!({ "node-name": "descriptor", "iothread": iothread });
    qmp.execute("x-blockdev-set-iothread", there).map(drop)
}

/// All of it: from a device on `node`, maybe in an iothread, to the same device on QBM
/// over `node`.
///
/// # Errors
/// When a step fails.
pub fn put_under(
    qmp: &mut Qmp,
    device: &str,
    node: &str,
    size_bytes: u64,
    iothread: Option<&str>,
) -> Result<()> {
    create_over(qmp, node, size_bytes)?;
    if let Some(iothread) = iothread {
        move_descriptor_to(qmp, iothread)?;
    }
    open_over(qmp, node)?;
    lead_device_to(qmp, device, "disk")
}
