// SPDX-License-Identifier: MIT OR Apache-2.0
//! A test's own directory and the QEMU that works in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use crate::{Args, Descriptor, Output, Qemu};

/// A directory of its own, removed at the end, and a QEMU whose programs run in it:
/// file names in commands are plain, as one would type them.
#[derive(Debug)]
pub struct Bench {
    qemu: Qemu,
    directory: tempfile::TempDir,
}

impl Bench {
    /// An empty directory, and the QEMU of the environment.
    ///
    /// # Errors
    /// As [`Qemu::from_env`].
    pub fn new() -> Result<Self> {
        let qemu = Qemu::from_env()?;
        let directory = tempfile::Builder::new().prefix("qbm-").tempdir()?;
        Ok(Self { qemu, directory })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of a file in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Is QEMU too old for what came with version `since`?  Says so, past the capture of
    /// a test's output: what a test leaves out must not look as if it had been tested.
    ///
    /// # Errors
    /// When QEMU does not tell its version.
    pub fn lacks(&self, what: &str, since: (u32, u32)) -> Result<bool> {
        let (major, minor) = self.qemu.version()?;
        let lacks = (major, minor) < since;
        if lacks {
            Self::leave_out(&format!("QEMU {major}.{minor} has no {what}"))?;
        }
        Ok(lacks)
    }

    /// Says that the test that runs leaves something out, and why, past the capture of a
    /// test's output.
    ///
    /// # Errors
    /// When nothing can be said.
    pub fn leave_out(why: &str) -> Result<()> {
        let test = thread::current().name().unwrap_or("?").to_owned();
        writeln!(io::stderr(), "left out of {test}: {why}")?;
        Ok(())
    }

    /// A command that runs one of QEMU's programs in the directory.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.qemu.program(program));
        command.current_dir(self.directory());
        command
    }

    /// Runs one of QEMU's programs to its end, however it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, program: &str, args: impl Args) -> Result<Output> {
        Output::of(self.command(program).args(args.list()))
    }

    /// Runs a program of the machine's own, which must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn host(&self, program: &str, args: impl Args) -> Result<Output> {
        // An ordinary user's PATH on Debian has no mkfs in it.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new(program);
        command
            .env("PATH", path)
            .args(args.list())
            .current_dir(self.directory());
        Output::of(&mut command)?.succeeded()
    }

    /// `qemu-img` that makes an encrypted image, which must succeed.
    ///
    /// QEMU measures how fast it is for that, and 7.2 gives up where a quick machine
    /// measures nothing: it is tried again then.
    ///
    /// # Errors
    /// When it fails for another reason, or again and again.
    pub fn img_encrypted(&self, args: impl Args) -> Result<Output> {
        let args = args.list();
        let mut output = self.run("qemu-img", args.as_slice())?;
        for _ in 0..50 {
            if !output.stderr.contains("accurate CPU usage") {
                break;
            }
            output = self.run("qemu-img", args.as_slice())?;
        }
        output.succeeded()
    }

    /// Makes a LUKS image, whose passphrase is the secret `key`.
    ///
    /// # Errors
    /// When qemu-img fails.
    pub fn luks_image(&self, name: &str, size_bytes: u64, secret: &str) -> Result<()> {
        // The fewest iterations: it is no secret.
        let options = "key-secret=key,iter-time=10";
        let line = format!("create -q -f luks --object {secret} -o {options} {name} {size_bytes}");
        self.img_encrypted(&line).map(drop)
    }

    /// `qemu-img`, which must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn img(&self, args: impl Args) -> Result<Output> {
        self.run("qemu-img", args)?.succeeded()
    }

    /// `qemu-img`, which must refuse.
    ///
    /// # Errors
    /// When it does not.
    pub fn img_refuses(&self, args: impl Args) -> Result<Output> {
        self.run("qemu-img", args)?.refused()
    }

    /// Makes a qbm image with one bitmap, `b0`, of the granularity given.
    ///
    /// # Errors
    /// When qemu-img fails.
    pub fn image_with_bitmap(&self, name: &str, size: &str, granularity: &str) -> Result<()> {
        self.image_with_bitmap_as("qbm", name, size, granularity)
    }

    /// Makes an image of the format given with one bitmap, `b0`.
    ///
    /// # Errors
    /// As [`Bench::image_with_bitmap`].
    pub fn image_with_bitmap_as(
        &self,
        format: &str,
        name: &str,
        size: &str,
        granularity: &str,
    ) -> Result<()> {
        self.img(["create", "-q", "-f", format, name, size])?;
        let add = [
            "bitmap",
            "--add",
            "-g",
            granularity,
            "-f",
            format,
            name,
            "b0",
        ];
        self.img(add).map(drop)
    }

    /// `qemu-io` commands on a qbm image, which must succeed.
    ///
    /// # Errors
    /// When one fails; a pattern that does not match is a failure.
    pub fn io(&self, image: &str, commands: &[&str]) -> Result<Output> {
        self.io_as("qbm", image, commands)
    }

    /// `qemu-io` commands on an image of the format given, which must succeed.
    ///
    /// # Errors
    /// As [`Bench::io`].
    pub fn io_as(&self, format: &str, image: &str, commands: &[&str]) -> Result<Output> {
        self.io_command(format, image, commands)?.succeeded()
    }

    /// `qemu-io` commands on an image of the format given, however they end.
    ///
    /// # Errors
    /// When qemu-io cannot be started.
    pub fn io_command(&self, format: &str, image: &str, commands: &[&str]) -> Result<Output> {
        let mut qemu_io = self.command("qemu-io");
        // Trims and zeroes are to reach the file as such.
        qemu_io.args(["-d", "unmap", "-f", format]);
        for command in commands {
            qemu_io.args(["-c", command]);
        }
        Output::of(qemu_io.arg(image))
    }

    /// `qemu-img info --output=json` of an image, nothing said about its format.
    ///
    /// # Errors
    /// When qemu-img fails or prints no JSON.
    pub fn info(&self, image: &str) -> Result<serde_json::Value> {
        let output = self.img(["info", "--output=json", image])?;
        serde_json::from_str(&output.stdout).with_context(|| output.to_string())
    }

    /// What the descriptor says, read without QBM's help.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON object of the format's shape.
    pub fn descriptor(&self, name: &str) -> Result<Descriptor> {
        Descriptor::read(&self.path(name))
    }

    /// A file's whole content.
    ///
    /// # Errors
    /// When it cannot be read; the message names it.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.path(name)).with_context(|| format!("read {name}"))
    }

    /// Writes a file, replacing what was there.
    ///
    /// # Errors
    /// When it cannot be written; the message names it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.path(name), content).with_context(|| format!("write {name}"))
    }

    /// Makes a sparse file of `size_bytes` with `marks` in it, each at its offset.
    ///
    /// # Errors
    /// When it cannot be written; the message names it.
    pub fn sparse(&self, name: &str, size_bytes: u64, marks: &[(u64, &[u8])]) -> Result<()> {
        let file = File::create(self.path(name)).with_context(|| format!("create {name}"))?;
        file.set_len(size_bytes)?;
        for (offset, bytes) in marks {
            file.write_all_at(bytes, *offset)?;
        }
        Ok(())
    }
}
