// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block device over a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{Bench, Output};

/// A loop device; taken away when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a device to the `file` of the bench's directory.
    ///
    /// Nothing when the kernel has none to give: in a container, say.
    ///
    /// # Errors
    /// When it fails for another reason.
    pub fn attach(bench: &Bench, file: &str) -> Result<Option<Self>> {
        let mut losetup = losetup();
        losetup.args(["--find", "--show"]).arg(bench.path(file));
        let output = Output::of(&mut losetup)?;
        if !output.status.success() {
            let refusals = [
                "cannot find an unused loop device",
                "Operation not permitted",
                "Permission denied",
            ];
            let refused = refusals.iter().any(|words| output.stderr.contains(words));
            if refused {
                Bench::leave_out(&format!("no loop device: {}", output.stderr.trim()))?;
                return Ok(None);
            }
            bail!("{output}");
        }
        let path = PathBuf::from(output.stdout.trim());
        Ok(Some(Self { path }))
    }

    /// Its name under `/dev`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file's new size over, if that is permitted: who may attach a file need not
    /// be root, who does this must be.
    ///
    /// # Errors
    /// When losetup fails for another reason.
    pub fn follow_size(&self) -> Result<bool> {
        let output = Output::of(losetup().arg("--set-capacity").arg(&self.path))?;
        if output.stderr.contains("Operation not permitted") {
            Bench::leave_out(output.stderr.trim())?;
            return Ok(false);
        }
        output
            .succeeded()
            .context("the new size of a loop device")?;
        Ok(true)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = losetup().arg("--detach").arg(&self.path).output();
    }
}

/// An ordinary user's PATH on Debian has no losetup in it.
fn losetup() -> Command {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("losetup");
    command.env("PATH", path);
    command
}
