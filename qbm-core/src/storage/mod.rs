// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seam between the engine and everything outside it.
//!
//! Descriptor and bitmap files are reached through these traits only; guest data never passes here (`data` has its own). Besides files the
//! seam answers one question about the host: which boot of it this is.

mod lock;
mod os;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use lock::LockMode;
pub(crate) use lock::LockableFile;

pub use os::OsStorage;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Tells whether two names lead to one file: device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device the file is on.
    pub device: u64,
    /// Inode number there.
    pub inode: u64,
}

/// When a file's content changed last, by the clock of the file system that it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// Since 1970-01-01T00:00:00Z, leap seconds not counted.
    pub seconds: i64,
    /// Of the second, below 1,000,000,000.
    #[serde(deserialize_with = "nanoseconds")]
    pub nanoseconds: u32,
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let nanoseconds = u32::deserialize(deserializer)?;
    if nanoseconds < 1_000_000_000 {
        Ok(nanoseconds)
    } else {
        Err(D::Error::custom("nanoseconds: a second or more"))
    }
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Identity of the file.
    pub id: FileId,
    /// Length in bytes; 0 for anything but a regular file.
    pub length_bytes: u64,
    /// Whether it is a regular file.
    pub is_regular: bool,
    /// When its content changed last; meaningful for a regular file only.
    pub modified: Timestamp,
}

/// Whether an error says that a resource is exhausted: too many open files, no memory. It says nothing of a file.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether an error says that a path leads to nothing that we can reach, now and at the next try.
pub(crate) fn leads_nowhere(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    let names = [libc::ENOENT, libc::ENOTDIR, libc::ENAMETOOLONG, libc::ELOOP];
    let rights = [libc::EACCES, libc::EPERM];
    errno.is_some_and(|errno| names.contains(&errno) || rights.contains(&errno))
        || error.kind() == io::ErrorKind::NotFound
}

/// Names, and the host.
///
/// Paths are taken as they are: the engine resolves what a descriptor says before it comes here.
pub trait Storage: Debug + Send + Sync {
    /// Opens an existing regular file.
    ///
    /// # Errors
    /// Whatever the system says; anything but a regular file is refused without waiting for it (a FIFO does not block).
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>>;

    /// Creates an empty file for reading and writing. A name that exists is `EEXIST`, whatever it leads to.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// What `path` leads to, without opening it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// As [`metadata`](Self::metadata), for a data image that is being sealed: its modification time is durable when this
    /// returns, and no later change of the file can leave the same one. Waits for the disk, and for the file system's
    /// clock to tick: some milliseconds, two seconds where file times are whole seconds; a file that is written all the
    /// time is not waited for longer than that. It is opened for reading only.
    ///
    /// # Errors
    /// Whatever the system says.
    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// The same file's path without symbolic links: what is beside it is found there by whatever name it was opened.
    ///
    /// # Errors
    /// Whatever the system says.
    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Names in a directory, without `.` and `..`, in no particular order.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Removes a name.
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `directory` durable. Waits for the disk.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// An identifier that changes whenever the host's page cache may have been lost: Linux's boot id.
    ///
    /// # Errors
    /// Whatever the system says.
    fn boot_id(&self) -> io::Result<String>;
}

/// One open file. Positions are explicit, so that any number of threads can share it.
pub trait StorageFile: Debug + Send + Sync {
    /// Fills `buffer` from `offset_bytes` on.
    ///
    /// # Errors
    /// Whatever the system says; `UnexpectedEof` beyond the end.
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset_bytes`. Survives the process when this returns, not the host.
    ///
    /// # Errors
    /// Whatever the system says; then any part of `data` may have been written.
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or grows it with zeros that take no space.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_length(&self, length_bytes: u64) -> io::Result<()>;

    /// Makes content and length durable. Waits for the disk.
    ///
    /// # Errors
    /// Whatever the system says; what was written since the last success may be lost then, and trying again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// The next stretch `[start, end)` at or after `offset_bytes` that may hold something but zeros; `None`: zeros to the end.
    ///
    /// # Errors
    /// Whatever the system says.
    fn next_data(&self, offset_bytes: u64) -> io::Result<Option<(u64, u64)>>;

    /// Identity of the file.
    ///
    /// # Errors
    /// Whatever the system says.
    fn id(&self) -> io::Result<FileId>;

    /// Takes the lock that QEMU takes (`block/file-posix.c`), for as long as the file is open.
    ///
    /// # Errors
    /// `EAGAIN` when another process holds a conflicting one.
    fn lock(&self, mode: LockMode) -> io::Result<()>;

    /// Gives the file the owner, the group and the permissions of the one at `path`, as far as that can be done: who can
    /// use that one can use this one, too.
    fn take_rights_of(&self, path: &Path) {
        let _ = path;
    }

    /// Closing the file in this process will not give the lock back, which belongs to the one that forked it.
    fn leave_locked(&self) {}
}
