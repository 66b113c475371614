// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assumptions about the medium that the operating system's storage can be held to. Those that take a power cut are the
//! simulated disk's.

use std::fs;

use anyhow::{Result, ensure};
use qbm_conformance::sandbox::{Sandbox, boot_id};
use qbm_core::storage::{OsStorage, Storage};

/// FORMAT: M8
#[test]
fn no_change_after_settling_leaves_the_same_time() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let path = sandbox.file("disk.raw");
    fs::write(&path, "old")?;
    for round in 0..20 {
        let settled = OsStorage.settled_metadata(&path)?;
        fs::write(&path, "new")?;
        let changed = OsStorage.metadata(&path)?;
        ensure!(
            changed.modified > settled.modified,
            "round {round}: {settled:?}"
        );
    }
    Ok(())
}

/// FORMAT: M10, N7
#[test]
fn a_name_that_exists_is_not_made_again() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (file, link) = (sandbox.file("file"), sandbox.file("link"));
    fs::write(&file, "somebody's")?;
    std::os::unix::fs::symlink("nowhere", &link)?;
    for path in [&file, &link] {
        let error = OsStorage.create_new(path).err();
        let kind = error.map(|error| error.kind());
        ensure!(kind == Some(std::io::ErrorKind::AlreadyExists), "{kind:?}");
    }
    ensure!(fs::read(&file)? == b"somebody's", "written over");
    ensure!(
        fs::symlink_metadata(sandbox.file("nowhere")).is_err(),
        "made through a link"
    );
    Ok(())
}

/// FORMAT: M5
#[test]
fn the_boot_id_is_that_of_the_kernel() -> Result<()> {
    ensure!(OsStorage.boot_id()? == boot_id()?, "another boot");
    ensure!(!boot_id()?.is_empty(), "no boot id");
    Ok(())
}
