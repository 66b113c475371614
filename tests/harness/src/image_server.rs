// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that serves an image over NBD: qemu-nbd or nbdkit.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Bench, PATIENCE, Process};

/// Which program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// QEMU's own, the one under test.
    QemuNbd,
    /// nbdkit with its plugin `file`.
    Nbdkit,
}

/// A running server of one raw file, for any number of clients.  Killed when dropped.
#[derive(Debug)]
pub struct ImageServer {
    server: Server,
    file: String,
    socket: PathBuf,
    process: Process,
}

impl ImageServer {
    /// Serves the raw `file` of the bench's directory, until it listens.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(bench: &Bench, server: Server, file: &str) -> Result<Self> {
        static STARTED_COUNT: AtomicU32 = AtomicU32::new(0);
        let number = STARTED_COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = bench.path(&format!("server-{number}"));
        let process = serve(bench, server, file, &socket)?;
        Ok(Self {
            server,
            file: file.to_owned(),
            socket,
            process,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its address, as one types it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// The options of a node that is its client.
    #[must_use]
    pub fn node(&self) -> Value {
        json!({ "driver": "nbd", "server": { "type": "unix", "path": self.socket } })
    }

    /// Kills it with SIGKILL: its clients see the connection end.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Serves `file`, the same or another, at the same place again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_with(&mut self, bench: &Bench, file: &str) -> Result<()> {
        file.clone_into(&mut self.file);
        // nbdkit refuses a socket that is there.
        fs::remove_file(&self.socket).context("the socket of the dead server")?;
        self.process = serve(bench, self.server, &self.file, &self.socket)?;
        Ok(())
    }

    /// Serves the same file at the same place again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, bench: &Bench) -> Result<()> {
        let file = self.file.clone();
        self.restart_with(bench, &file)
    }
}

fn serve(bench: &Bench, server: Server, file: &str, socket: &Path) -> Result<Process> {
    let mut command = match server {
        Server::QemuNbd => {
            let mut command = bench.command("qemu-nbd");
            command
                .args(["--persistent", "--shared=0", "--discard=unmap", "-f", "raw"])
                .arg("-k")
                .arg(socket)
                .arg(file);
            command
        }
        Server::Nbdkit => {
            let mut command = Command::new("nbdkit");
            command
                .args(["--foreground", "--unix"])
                .arg(socket)
                .args(["file", file])
                .current_dir(bench.directory());
            command
        }
    };
    let name = socket.file_name().context("a socket's name")?;
    let stderr = bench.path(&format!(".{}.stderr", name.to_string_lossy()));
    let mut process = Process::start(&mut command, stderr)?;
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).is_err() {
        process.require_running()?;
        ensure!(Instant::now() < deadline, "nobody listens");
        sleep(Duration::from_millis(2));
    }
    Ok(process)
}
