// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu-storage-daemon: QEMU's block layer without a guest.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::nbd::NbdClient;
use crate::qmp::Qmp;
use crate::{Bench, Process};

/// The name under which [`StorageDaemon::export`] exports.
pub const NBD_EXPORT: &str = "disk";

/// A running qemu-storage-daemon and its monitor.  Killed when dropped.
#[derive(Debug)]
pub struct StorageDaemon {
    /// The monitor.
    pub qmp: Qmp,
    process: Process,
    nbd_socket: PathBuf,
}

impl StorageDaemon {
    /// Starts a daemon with no images in the bench's directory.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(bench: &Bench) -> Result<Self> {
        static STARTED_COUNT: AtomicU32 = AtomicU32::new(0);
        let number = STARTED_COUNT.fetch_add(1, Ordering::Relaxed);
        let (monitor, theirs) = Qmp::pair()?;
        let mut command = bench.command("qemu-storage-daemon");
        command
            .args(["--chardev", "socket,id=monitor,fd=0"])
            .args(["--monitor", "chardev=monitor"])
            .stdin(theirs);
        let mut process = Process::start(
            &mut command,
            bench.path(&format!(".daemon-{number}.stderr")),
        )?;
        // With it goes our copy of the daemon's socket: its end would not be seen.
        drop(command);
        let qmp = Qmp::negotiate(monitor, &mut process)?;
        let nbd_socket = bench.path(&format!(".daemon-{number}.nbd"));
        Ok(Self {
            qmp,
            process,
            nbd_socket,
        })
    }

    /// Starts a daemon with the qbm image `file` open for writing as node `disk`.
    ///
    /// # Errors
    /// When it does not come up or the image does not open.
    pub fn with_image(bench: &Bench, file: &str) -> Result<Self> {
        Self::with_image_options(bench, file, &json!({}))
    }

    /// As [`StorageDaemon::with_image`], with more options for the node.
    ///
    /// # Errors
    /// As [`StorageDaemon::with_image`].
    pub fn with_image_options(bench: &Bench, file: &str, options: &Value) -> Result<Self> {
        let mut daemon = Self::start(bench)?;
        daemon.add_image(file, options)?;
        Ok(daemon)
    }

    /// Opens the qbm image `file` as node `disk`, trims passed on.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub fn add_image(&mut self, file: &str, options: &Value) -> Result<()> {
        self.qmp
            .execute("blockdev-add", image_node(file, options))
            .map(drop)
    }

    /// As [`StorageDaemon::add_image`], which must be refused; gives QEMU's words.
    ///
    /// # Errors
    /// When the image opens.
    pub fn refuses_image(&mut self, file: &str, options: &Value) -> Result<String> {
        self.qmp.refuses("blockdev-add", image_node(file, options))
    }

    /// Where [`StorageDaemon::export`] has the daemon listen.
    #[must_use]
    pub fn nbd_socket(&self) -> &Path {
        &self.nbd_socket
    }

    /// Starts the NBD server, at [`StorageDaemon::nbd_socket`].
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn listen(&mut self) -> Result<()> {
        let address = json!({ "type": "unix", "data": { "path": self.nbd_socket } });
        self.qmp
            .execute("nbd-server-start", json!({ "addr": address }))
            .map(drop)
    }

    /// Starts the NBD server and exports a node for writing, under [`NBD_EXPORT`].
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn export_node(&mut self, node: &str) -> Result<()> {
        self.listen()?;
        let export = json!({
            "type": "nbd", "id": "export", "node-name": node, "name": NBD_EXPORT, "writable": true,
        });
        self.qmp.execute("block-export-add", export).map(drop)
    }

    /// Exports node `disk` for writing, and connects to it.
    ///
    /// # Errors
    /// When the export or the connection fails.
    pub fn export(&mut self) -> Result<NbdClient> {
        self.export_node("disk")?;
        NbdClient::connect(&self.nbd_socket, NBD_EXPORT)
    }

    /// Takes an export away from its clients.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn unexport(&mut self, id: &str) -> Result<()> {
        let export = json!({ "id": id, "mode": "hard" });
        self.qmp.execute("block-export-del", export)?;
        self.qmp
            .event("BLOCK_EXPORT_DELETED", |data| data["id"] == id)
            .map(drop)
    }

    /// The daemon's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the daemon with SIGKILL.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Ends the daemon in order; gives what it wrote to its standard error.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn quit(mut self) -> Result<String> {
        self.qmp.quit().context("quit")?;
        self.process.wait_success()
    }

    /// What the daemon wrote to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }
}

/// The arguments of `blockdev-add` for a qbm image as node `disk`.
fn image_node(file: &str, options: &Value) -> Value {
    let mut node = json!({
        "driver": "qbm",
        "node-name": "disk",
        "discard": "unmap",
        "file": { "driver": "file", "node-name": "descriptor", "filename": file },
    });
    if let (Some(node), Some(options)) = (node.as_object_mut(), options.as_object()) {
        node.extend(options.clone());
    }
    node
}
