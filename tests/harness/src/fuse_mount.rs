// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node of the storage daemon as a file, through FUSE.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::json;

use crate::{Bench, StorageDaemon};

/// An export that shows as a file; unmounted when dropped, also after the daemon was killed.
#[derive(Debug)]
pub struct FuseMount {
    path: PathBuf,
}

impl FuseMount {
    /// Exports node `disk` for writing as the file `name` of the bench's directory.
    ///
    /// Nothing where the kernel has no FUSE or lets nobody mount.
    ///
    /// # Errors
    /// When it fails for another reason.
    pub fn export(
        bench: &Bench,
        daemon: &mut StorageDaemon,
        name: &str,
        growable: bool,
    ) -> Result<Option<Self>> {
        if !Path::new("/dev/fuse").exists() {
            Bench::leave_out("there is no /dev/fuse")?;
            return Ok(None);
        }
        bench.write(name, "")?;
        let path = bench.path(name);
        let export = json!({
            "type": "fuse", "id": name, "node-name": "disk", "mountpoint": path,
            "writable": true, "growable": growable, "allow-other": "off",
        });
        if let Err(error) = daemon.qmp.execute("block-export-add", export) {
            // libfuse says why on the daemon's standard error.
            let stderr = daemon.stderr();
            let refused = stderr.lines().any(|line| {
                let of_fuse = line.contains("fusermount3:") || line.contains("/dev/fuse");
                of_fuse && (line.contains("not permitted") || line.contains("ermission denied"))
            });
            if refused {
                Bench::leave_out(&format!("nobody may mount here: {stderr}"))?;
                return Ok(None);
            }
            bail!("{error:#}\n{stderr}");
        }
        Ok(Some(Self { path }))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        // An end in order has unmounted it; there is nobody to tell.
        let mut umount = Command::new("fusermount3");
        let _ = umount.args(["-u", "-z", "-q"]).arg(&self.path).output();
    }
}
