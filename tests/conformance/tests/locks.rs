// SPDX-License-Identifier: MIT OR Apache-2.0
//! The locks (section 13), byte by byte, as another process sees them.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use qbm_conformance::disk::{Disk, GRANULE_BYTES, SIZE_BYTES};
use qbm_core::{Activation, ErrorKind, OpenOptions};

const READER: OpenOptions = OpenOptions {
    no_lock: false,
    shared: false,
    read_only: true,
};
const SHARED: OpenOptions = OpenOptions {
    no_lock: false,
    shared: true,
    read_only: true,
};

/// Bytes of a file, up to 300, that somebody holds.
fn held(path: &Path) -> Result<Vec<i64>> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut held = Vec::new();
    for byte in 0..300 {
        let mut request = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut request))?;
        if libc::c_int::from(request.l_type) != libc::F_UNLCK {
            held.push(byte);
        }
    }
    Ok(held)
}

/// FORMAT: L1, L3, L6
#[test]
fn readers_and_writers_hold_the_bytes_of_the_table() -> Result<()> {
    let disk = Disk::new()?;
    let image = disk.activated()?;
    image.add_bitmap("b", GRANULE_BYTES, true)?;
    ensure!(
        held(&disk.sandbox.descriptor())? == [100, 101, 103, 201, 202, 203],
        "writer"
    );
    for other in ["x.qbm.raw", "x.qbm.b.bitmap"] {
        ensure!(held(&disk.file(other))?.is_empty(), "{other} is locked");
    }
    // Not only while it is active.
    image.inactivate()?;
    ensure!(
        !held(&disk.sandbox.descriptor())?.is_empty(),
        "let go while open"
    );
    drop(image);
    ensure!(
        held(&disk.sandbox.descriptor())?.is_empty(),
        "held by nobody"
    );
    let _reader = disk.opened(READER)?;
    ensure!(
        held(&disk.sandbox.descriptor())? == [100, 201, 203],
        "reader"
    );
    Ok(())
}

/// FORMAT: L1, L2
#[test]
fn readers_share_an_image_and_a_writer_has_it_alone() -> Result<()> {
    let disk = Disk::new()?;
    let refused = |options| -> Result<()> {
        let error = disk.opened(options).err().context("not refused")?;
        ensure!(error.kind() == ErrorKind::Locked, "{error}");
        Ok(())
    };
    let first = disk.opened(READER)?;
    let second = disk.opened(READER)?;
    refused(OpenOptions::default())?;
    // Who was refused gave its bytes back.
    ensure!(
        held(&disk.sandbox.descriptor())? == [100, 201, 203],
        "bytes are left"
    );
    drop((first, second));
    let _writer = disk.opened(OpenOptions::default())?;
    refused(READER)?;
    refused(OpenOptions::default())
}

/// FORMAT: L4, S4
#[test]
fn who_shares_takes_no_lock_and_reads_no_bits_in_use() -> Result<()> {
    let (disk, _writer) = Disk::with_bitmap(qbm_core::Durability::Process)?;
    let before = held(&disk.sandbox.descriptor())?;
    let image = disk.opened(SHARED)?;
    image.activate(&Activation {
        size_bytes: SIZE_BYTES,
        read_only: true,
        ..Activation::default()
    })?;
    ensure!(held(&disk.sandbox.descriptor())? == before, "another lock");
    let bitmap = image.bitmap("b").context("no bitmap")?;
    ensure!(bitmap.in_use && !bitmap.inconsistent, "{bitmap:?}");
    ensure!(image.dirty_count("b").is_err(), "read beside its writer");
    Ok(())
}

/// FORMAT: L5
#[test]
fn a_library_that_is_told_so_takes_no_lock() -> Result<()> {
    let disk = Disk::new()?;
    let options = OpenOptions {
        no_lock: true,
        ..OpenOptions::default()
    };
    let image = disk.opened(options)?;
    image.activate(&Activation {
        size_bytes: SIZE_BYTES,
        ..Activation::default()
    })?;
    ensure!(held(&disk.sandbox.descriptor())?.is_empty(), "locked");
    Ok(())
}

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
