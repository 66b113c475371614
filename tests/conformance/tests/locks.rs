// SPDX-License-Identifier: MIT OR Apache-2.0
//! The locks (section 13), byte by byte, as another process sees them.
//!
//! Nothing here starts a process: between fork and exec it would hold what the others have just let go.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
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
