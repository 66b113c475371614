// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu-system-x86_64 without a guest: for the monitor commands that the storage daemon
//! has not.

use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::qmp::Qmp;
use crate::{Args, Bench, Process};

/// A running QEMU whose machine has no processor, and its monitor.  Killed when dropped.
#[derive(Debug)]
pub struct Machine {
    /// The monitor.
    pub qmp: Qmp,
    process: Process,
}

impl Machine {
    /// Starts QEMU with the disks that `disk_args` describe.
    ///
    /// # Errors
    /// When QEMU refuses its arguments.
    pub fn start(bench: &Bench, disk_args: impl Args) -> Result<Self> {
        static STARTED_COUNT: AtomicU32 = AtomicU32::new(0);
        let number = STARTED_COUNT.fetch_add(1, Ordering::Relaxed);
        let (monitor, theirs) = Qmp::pair()?;
        let mut command = bench.command("qemu-system-x86_64");
        command
            .args(["-machine", "none", "-nodefaults", "-display", "none"])
            .args([
                "-chardev",
                "socket,id=qmp,fd=0",
                "-mon",
                "chardev=qmp,mode=control",
            ])
            .args(disk_args.list())
            .stdin(theirs)
            // The human monitor's commands print there.
            .stdout(Stdio::null());
        let stderr = bench.path(&format!(".machine-{number}.stderr"));
        let mut process = Process::start(&mut command, stderr)?;
        // With it goes our copy of QEMU's socket: its end would not be seen.
        drop(command);
        let qmp = Qmp::negotiate(monitor, &mut process)?;
        Ok(Self { qmp, process })
    }

    /// What QEMU wrote to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Waits until QEMU has ended in order; gives what it wrote to its standard error.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn wait(mut self) -> Result<String> {
        self.process.wait_success()
    }

    /// Sends QEMU a signal.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn signal(&mut self, name: &str) -> Result<()> {
        self.process.signal(name)
    }

    /// Kills QEMU with SIGKILL.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Ends QEMU in order; gives what it wrote to its standard error.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn quit(mut self) -> Result<String> {
        self.qmp.quit().context("quit")?;
        self.process.wait_success()
    }
}
