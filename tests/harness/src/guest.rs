// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real Linux guest, driven over its serial line.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::qmp::Qmp;
use crate::{Args, Bench, GuestFiles, PATIENCE, Process};

/// Lines that begin so are the guest's init talking to us.
const MARK: &str = "@qbm ";

/// A running guest.  Killed when dropped.
#[derive(Debug)]
pub struct Guest {
    /// The monitor.
    pub qmp: Qmp,
    process: Process,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Guest {
    /// Boots a guest with the disk that `disk_args` describe, and waits until it takes
    /// commands.
    ///
    /// # Errors
    /// When QEMU refuses its arguments or the guest does not come up.
    pub fn boot(bench: &Bench, disk_args: impl Args) -> Result<Self> {
        let files = GuestFiles::from_env()?;
        let monitor = bench.path(".guest.qmp");
        // A killed QEMU leaves its socket behind; the next must not connect to that.
        let _ = std::fs::remove_file(&monitor);
        let mut command = bench.command("qemu-system-x86_64");
        command
            // TCG everywhere: what can be counted on is the same on every machine.
            .args(["-accel", "tcg", "-cpu", "max", "-m", "256"])
            .args([
                "-nodefaults",
                "-vga",
                "none",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-serial", "stdio"])
            .arg("-L")
            .arg(files.firmware())
            .arg("-kernel")
            .arg(files.kernel())
            .arg("-initrd")
            .arg(files.initramfs())
            // Linux takes a timer that a busy machine holds up for a broken one.
            .args(["-append", "console=ttyS0 quiet loglevel=1 no_timer_check"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .args(disk_args.list())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command, bench.path(".guest.stderr"))?;
        let input = process
            .child()
            .stdin
            .take()
            .context("the guest has no stdin")?;
        let output = process
            .child()
            .stdout
            .take()
            .context("the guest has no stdout")?;
        let qmp = Qmp::connect(&monitor, &mut process)?;
        let mut guest = Self {
            qmp,
            process,
            input,
            lines: read_lines(output),
        };
        guest.wait_for("ready")?;
        Ok(guest)
    }

    /// Runs a shell command in the guest, which must succeed; gives its output.
    ///
    /// # Errors
    /// When it fails; the message holds its output.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.start(command)?;
        let (status, output) = self.wait_for("exit ")?;
        ensure!(
            status == "0",
            "guest: `{command}` exited with {status}:\n{output}"
        );
        Ok(output)
    }

    /// Begins a shell command in the guest and does not wait for it.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn start(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}").context("the guest's serial line")
    }

    /// Waits for a line `@qbm ` + `mark`; gives the rest of that line, and the output
    /// before it.
    ///
    /// # Errors
    /// When the guest is gone or stuck.
    pub fn wait_for(&mut self, mark: &str) -> Result<(String, String)> {
        let mut output = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                let stderr = self.process.stderr();
                bail!("the guest is gone or stuck, waiting for {mark:?} after:\n{output}{stderr}");
            };
            if let Some(rest) = line
                .strip_prefix(MARK)
                .and_then(|line| line.strip_prefix(mark))
            {
                return Ok((rest.to_owned(), output));
            }
            output.push_str(&line);
            output.push('\n');
        }
    }

    /// Shuts the guest down in order: unmounts, powers off, QEMU ends by itself.  Gives
    /// what QEMU wrote to its standard error.
    ///
    /// # Errors
    /// When QEMU fails or does not end.
    pub fn power_off(mut self) -> Result<String> {
        self.start("sync; umount /mnt 2>/dev/null; poweroff -f")?;
        self.process.wait_success()
    }

    /// What QEMU wrote to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// QEMU's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Kills QEMU with SIGKILL, whatever the guest is doing.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}

/// Reads the serial line in a thread: what is waited for can then have a time limit.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(output).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches('\r')
                .to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
