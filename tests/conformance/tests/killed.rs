// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a process leaves that is killed.

use std::fs::File;
use std::process::Command;

use anyhow::{Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use qbm_conformance::disk::Disk;

/// FORMAT: M1, M11
///
/// The shell holds an open file with a lock, writes, and is killed.
#[test]
fn a_killed_process_leaves_its_writes_and_no_locks() -> Result<()> {
    let disk = Disk::new()?;
    let path = disk.file("x.qbm.raw");
    let script = "exec 9<>\"$1\"; flock -s 9; printf bits >&9; kill -KILL $$";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&path)
        .status()?;
    ensure!(!status.success(), "it was not killed");
    ensure!(
        std::fs::read(&path)?.starts_with(b"bits"),
        "its write is lost"
    );
    let lock = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
    ensure!(lock.is_ok(), "its lock is held");
    Ok(())
}
