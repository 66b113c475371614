// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's image locks: open-file-description locks on single bytes that stand for permissions.
//!
//! `block/file-posix.c` (`raw_apply_lock_bytes`, `raw_check_lock_bytes`): byte 100+i is read-locked by whoever uses
//! permission i, byte 200+i by whoever does not let others use it. A process first locks its own bytes, then looks
//! whether anybody holds the opposite ones.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "small constants"
)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, fcntl};

/// Byte that stands for using permission 0.
const USED_BASE: i64 = 100;
/// Byte that stands for not sharing permission 0.
const UNSHARED_BASE: i64 = 200;

/// Permission numbers: the bit numbers of `BLK_PERM_*` in `include/block/block-common.h`.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const WRITE_UNCHANGED: i64 = 2;
const RESIZE: i64 = 3;

/// Who else may have the descriptor open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// We read; nobody may write.
    Read,
    /// We write; nobody else may, and nobody may read who does not allow writers.
    Write,
}

impl LockMode {
    fn used(self) -> &'static [i64] {
        match self {
            Self::Read => &[CONSISTENT_READ],
            Self::Write => &[CONSISTENT_READ, WRITE, RESIZE],
        }
    }

    fn unshared(self) -> &'static [i64] {
        match self {
            Self::Read => &[WRITE, RESIZE],
            Self::Write => &[WRITE, WRITE_UNCHANGED, RESIZE],
        }
    }
}

/// A file that is unlocked before it is closed: a process that was forked meanwhile has it open too, if only until it runs
/// another program, and would keep the locks.
#[derive(Debug)]
pub(crate) struct LockableFile {
    file: File,
    /// The process that locked it; 0: none. What is closed in a fork of that one stays locked for it.
    owner: AtomicU32,
}

impl LockableFile {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            owner: AtomicU32::new(0),
        }
    }

    /// Takes the locks of `mode`, or none.
    pub(crate) fn lock(&self, mode: LockMode) -> io::Result<()> {
        let result = try_lock(&self.file, mode);
        if result.is_err() {
            unlock(&self.file);
        } else {
            self.owner.store(std::process::id(), Ordering::Relaxed);
        }
        result
    }

    /// Closing will not unlock.
    pub(crate) fn leave_locked(&self) {
        self.owner.store(0, Ordering::Relaxed);
    }
}

impl Deref for LockableFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl AsFd for LockableFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for LockableFile {
    fn drop(&mut self) {
        if *self.owner.get_mut() == std::process::id() {
            unlock(&self.file);
        }
    }
}

fn unlock(file: &File) {
    // It can only fail for a file that is not one; then there are no locks either.
    let _ = set(file, libc::F_UNLCK, USED_BASE, 200);
}

fn try_lock(file: &File, mode: LockMode) -> io::Result<()> {
    for permission in mode.used() {
        set(file, libc::F_RDLCK, USED_BASE + permission, 1)?;
    }
    for permission in mode.unshared() {
        set(file, libc::F_RDLCK, UNSHARED_BASE + permission, 1)?;
    }
    for permission in mode.used() {
        check_free(file, UNSHARED_BASE + permission)?;
    }
    for permission in mode.unshared() {
        check_free(file, USED_BASE + permission)?;
    }
    Ok(())
}

fn request(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

fn set(file: &File, kind: libc::c_int, start: i64, length: i64) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&request(kind, start, length)))?;
    Ok(())
}

/// Fails with `EAGAIN` when another open file description holds `byte`.
fn check_free(file: &File, byte: i64) -> io::Result<()> {
    let mut found = request(libc::F_WRLCK, byte, 1);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    if libc::c_int::from(found.l_type) == libc::F_UNLCK {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn lockable(path: &Path) -> LockableFile {
        #[expect(clippy::disallowed_methods, reason = "a test of the seam itself")]
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        LockableFile::new(file.unwrap())
    }

    fn twice(first: LockMode, second: LockMode) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locked");
        let (one, two) = (lockable(&path), lockable(&path));
        one.lock(first).unwrap();
        two.lock(second).is_ok()
    }

    #[test]
    fn readers_share_and_writers_exclude() {
        assert!(twice(LockMode::Read, LockMode::Read));
        assert!(!twice(LockMode::Read, LockMode::Write));
        assert!(!twice(LockMode::Write, LockMode::Read));
        assert!(!twice(LockMode::Write, LockMode::Write));
    }

    #[test]
    fn a_closed_file_is_unlocked_though_somebody_shares_it() {
        // A thread that started a program kept, until that one ran, what another thread had closed: the next open failed.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locked");
        let file = lockable(&path);
        file.lock(LockMode::Write).unwrap();
        let _shared = file.try_clone().unwrap();
        drop(file);
        lockable(&path).lock(LockMode::Write).unwrap();
    }

    #[test]
    fn a_file_left_locked_stays_locked_while_somebody_shares_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locked");
        let file = lockable(&path);
        file.lock(LockMode::Write).unwrap();
        let _shared = file.try_clone().unwrap();
        file.leave_locked();
        drop(file);
        lockable(&path).lock(LockMode::Write).unwrap_err();
    }
}
