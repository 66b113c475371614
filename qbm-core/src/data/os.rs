// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data images of the operating system: regular files and block devices.
#![expect(
    clippy::disallowed_methods,
    reason = "guest data does not pass the storage seam: this file is its own"
)]

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use super::file::DataFile;
use crate::storage::{Access, FileId, LockMode, LockableFile};

/// Zeros are written in pieces of this many bytes where the system has no better way.
const ZEROES_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct OsDataFile {
    file: LockableFile,
    is_regular: bool,
}

/// Whether it is a regular file; anything but that or a block device is refused.
fn check_kind(metadata: &fs::Metadata) -> io::Result<bool> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a regular file nor a block device",
        ));
    }
    Ok(kind.is_file())
}

impl OsDataFile {
    pub(super) fn open(path: &Path, access: Access) -> io::Result<Self> {
        // Opening a FIFO waits, and opening a device can do things; look before, and again at what was opened.
        check_kind(&fs::metadata(path)?)?;
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let is_regular = check_kind(&file.metadata()?)?;
        Ok(Self {
            file: LockableFile::new(file),
            is_regular,
        })
    }

    /// The part of a range that the file has: what is behind its end reads as zeros already. `None`: no part.
    fn within(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        let end = offset_bytes.saturating_add(length_bytes);
        let end = end.min(self.length()?);
        let length_bytes = end.saturating_sub(offset_bytes);
        Ok((length_bytes > 0).then_some((offset_bytes, length_bytes)))
    }

    /// `false`: the file system, the device or the kernel cannot do it there.
    fn allocate(&self, mode: FallocateFlags, offset: u64, length: u64) -> io::Result<bool> {
        let position = |value| libc::off_t::try_from(value).map_err(|_| Errno::EOVERFLOW);
        let (offset, length) = (position(offset)?, position(length)?);
        loop {
            return match fallocate(&self.file, mode, offset, length) {
                Ok(()) => Ok(true),
                Err(Errno::EINTR) => continue,
                // A range that a device's blocks do not divide, and old kernels: EINVAL. Devices, before Linux 4.9: ENODEV.
                Err(
                    Errno::EOPNOTSUPP
                    | Errno::EINVAL
                    | Errno::ENOSYS
                    | Errno::ENODEV
                    | Errno::ENOTTY,
                ) => Ok(false),
                Err(errno) => Err(errno.into()),
            };
        }
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<bool> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.allocate(mode, offset, length)
    }
}

impl DataFile for OsDataFile {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0_usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let offset = offset_bytes.saturating_add(filled as u64);
            match self.file.read_at(rest, offset) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset_bytes)
    }

    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
    ) -> io::Result<()> {
        let Some((mut offset, length)) = self.within(offset_bytes, length_bytes)? else {
            return Ok(());
        };
        if may_unmap && self.punch(offset, length)? {
            return Ok(());
        }
        let mode = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if self.allocate(mode, offset, length)? {
            return Ok(());
        }
        let end = offset.saturating_add(length);
        let piece = usize::try_from(length.min(ZEROES_BYTES_MAX)).unwrap_or(0);
        let zeroes = vec![0; piece];
        while offset < end {
            let count = end.saturating_sub(offset).min(ZEROES_BYTES_MAX);
            let count = usize::try_from(count).unwrap_or(piece);
            let piece = zeroes.get(..count).unwrap_or(&zeroes);
            self.file.write_all_at(piece, offset)?;
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        if let Some((offset, length)) = self.within(offset_bytes, length_bytes)? {
            self.punch(offset, length)?;
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        if self.is_regular {
            return Ok(self.file.metadata()?.len());
        }
        let end = lseek(&self.file, 0, Whence::SeekEnd)?;
        u64::try_from(end).map_err(|_| Errno::EOVERFLOW.into())
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_regular(&self) -> bool {
        self.is_regular
    }

    fn id(&self) -> io::Result<FileId> {
        let metadata = self.file.metadata()?;
        Ok(FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn lock(&self, mode: LockMode) -> io::Result<()> {
        self.file.lock(mode)
    }

    fn leave_locked(&self) {
        self.file.leave_locked();
    }
}
