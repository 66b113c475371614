// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that runs beside the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::Output;

/// How long anything may take before it counts as stuck.  Far above what it takes on
/// a busy machine: no test's result depends on speed.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`, with its standard error going to the file `stderr`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command, stderr: PathBuf) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = File::create(&stderr).with_context(|| format!("create {}", stderr.display()))?;
        let child = command
            .stderr(Stdio::from(log))
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name,
            child,
            stderr,
        })
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        let bytes = fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Requires that it still runs.
    ///
    /// # Errors
    /// When it has ended; the message holds its standard error.
    pub fn require_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended early with {status}:\n{}",
                self.name,
                self.stderr()
            );
        }
        Ok(())
    }

    /// Sends it a signal, named as `kill` names it: `TERM`, `STOP`.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        self.require_running()?;
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).arg(self.id().to_string());
        Output::of(&mut kill)?.succeeded().map(drop)
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself before: then the kill tested nothing.
    pub fn kill(&mut self) -> Result<()> {
        self.require_running()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(2));
        }
        bail!("{} does not end:\n{}", self.name, self.stderr())
    }

    /// Waits for its end, which must be a success; gives its standard error.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn wait_success(&mut self) -> Result<String> {
        let status = self.wait()?;
        let stderr = self.stderr();
        ensure!(
            status.success(),
            "{} ended with {status}:\n{stderr}",
            self.name
        );
        Ok(stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; there is nobody to tell either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
