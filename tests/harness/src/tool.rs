// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running a program to its end and keeping what it said.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

/// The arguments of a program: a string is split at blanks, a list is taken as it
/// is (for names with blanks in them).
pub trait Args {
    /// The arguments, one by one.
    fn list(&self) -> Vec<String>;
}

impl Args for &str {
    fn list(&self) -> Vec<String> {
        self.split_whitespace().map(str::to_owned).collect()
    }
}

impl Args for &String {
    fn list(&self) -> Vec<String> {
        self.as_str().list()
    }
}

impl<const N: usize> Args for [&str; N] {
    fn list(&self) -> Vec<String> {
        self.iter().map(|&arg| arg.to_owned()).collect()
    }
}

impl Args for &[String] {
    fn list(&self) -> Vec<String> {
        self.to_vec()
    }
}

/// What a program that has ended said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Runs `command` and waits for it.
    ///
    /// # Errors
    /// When the program cannot be started.  Its failure is no error here.
    pub fn of(command: &mut Command) -> Result<Self> {
        let shown = show(command);
        let output = command.output().with_context(|| format!("run {shown}"))?;
        Ok(Self {
            command: shown,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Requires that the program succeeded.
    ///
    /// # Errors
    /// When it did not; the message holds all that it said.
    pub fn succeeded(self) -> Result<Self> {
        ensure!(self.status.success(), "should have succeeded: {self}");
        Ok(self)
    }

    /// Requires that the program refused: it ended by itself, with a failure.
    ///
    /// # Errors
    /// When it succeeded, or a signal ended it: a crash is no refusal.
    pub fn refused(self) -> Result<Self> {
        let refused = self.status.code().is_some_and(|code| code != 0);
        ensure!(refused, "should have been refused: {self}");
        Ok(self)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            status,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "`{command}` ended with {status}\n--- stdout\n{stdout}--- stderr\n{stderr}---"
        )
    }
}

/// A command as one would type it, without the directory of its program.
fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let mut shown = name.to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        shown.push(' ');
        if arg.contains(|c: char| c.is_whitespace() || "'\"{}*".contains(c)) || arg.is_empty() {
            shown.push('\'');
            shown.push_str(&arg.replace('\'', r"'\''"));
            shown.push('\'');
        } else {
            shown.push_str(&arg);
        }
    }
    shown
}
