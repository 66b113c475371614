// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a data image must be able to do.

use std::fmt::Debug;
use std::io;

use crate::storage::{FileId, LockMode};

/// An open data image. Positions are explicit: any number of threads use it at once.
pub(crate) trait DataFile: Debug + Send + Sync {
    /// Fills `buffer` from `offset_bytes` on as far as the file goes; returns how many bytes that are.
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `data` at `offset_bytes`. After an error any part of it may have been written.
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()>;

    /// Makes a range read as zeros; the file does not grow. `may_unmap`: its space may be given back.
    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool)
    -> io::Result<()>;

    /// Gives a range's space back where that is possible; otherwise nothing happens.
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()>;

    /// Length in bytes; of a block device, its size.
    fn length(&self) -> io::Result<u64>;

    /// Cuts a regular file, or grows it with zeros that take no space.
    fn set_length(&self, length_bytes: u64) -> io::Result<()>;

    /// Makes content and length durable. Waits for the disk.
    fn sync(&self) -> io::Result<()>;

    /// Whether it is a regular file, not a block device.
    fn is_regular(&self) -> bool;

    /// Identity of the file.
    fn id(&self) -> io::Result<FileId>;

    /// Takes the lock that QEMU takes, for as long as the file is open; `EAGAIN` when another holds a conflicting one.
    fn lock(&self, mode: LockMode) -> io::Result<()>;

    /// Closing the file in this process will not give the lock back, which belongs to the one that forked it.
    fn leave_locked(&self) {}
}
