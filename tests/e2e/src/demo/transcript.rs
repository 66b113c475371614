// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the person at the terminal sees.

use std::time::Instant;

use anyhow::Result;
use qbm_testkit::{Args, Bench, Output};

/// Prints steps, commands and what they said.
#[derive(Debug)]
pub(super) struct Transcript<'a> {
    bench: &'a Bench,
    began: Instant,
}

impl<'a> Transcript<'a> {
    pub(super) fn begin(bench: &'a Bench) -> Self {
        println!("QBM: incremental backups of a raw disk, across shutdowns and a crash");
        println!("in {}", bench.directory().display());
        Self {
            bench,
            began: Instant::now(),
        }
    }

    pub(super) fn end(&self) {
        let seconds = self.began.elapsed().as_secs_f32();
        println!("\nAll five steps went as they should, in {seconds:.1} s.");
    }

    pub(super) fn bench(&self) -> &'a Bench {
        self.bench
    }

    /// A heading.
    pub(super) fn step(&self, number: u32, title: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        let heading = format!("{number}. {title}");
        println!("\n{heading:<72}[{seconds:5.1} s]");
        println!("{}", "-".repeat(81));
    }

    /// A remark; checked facts are marked so.
    pub(super) fn checked(&self, fact: &str) {
        println!("  ok: {fact}");
    }

    /// A command as it would be typed, and what came of it.
    pub(super) fn typed(&self, command: &str, output: &str) {
        println!("  $ {command}");
        self.said(output);
    }

    /// A command typed in the guest, and what came of it.
    pub(super) fn typed_in_guest(&self, command: &str, output: &str) {
        println!("  guest# {command}");
        self.said(output);
    }

    /// A QMP command.
    pub(super) fn qmp(&self, command: &str) {
        println!("  QMP> {command}");
    }

    fn said(&self, output: &str) {
        for line in output.lines() {
            println!("      {line}");
        }
    }

    /// Runs one of QEMU's programs and shows it.
    pub(super) fn qemu(&self, program: &str, args: impl Args) -> Result<Output> {
        let output = self.bench.run(program, args)?.succeeded()?;
        self.typed(&output.command, &(output.stdout.clone() + &output.stderr));
        Ok(output)
    }

    /// Runs a program of the machine's own and shows it.
    pub(super) fn host(&self, program: &str, args: impl Args) -> Result<Output> {
        let output = self.bench.host(program, args)?;
        self.typed(&output.command, &output.stdout);
        Ok(output)
    }

    /// The SHA-256 of a file, shown.
    pub(super) fn sha256(&self, file: &str) -> Result<String> {
        let output = self.host("sha256sum", file)?;
        let sum = output.stdout.split_whitespace().next().unwrap_or_default();
        Ok(sum.to_owned())
    }
}
