// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open file of the simulated disk.

use std::io;
use std::path::PathBuf;

use qbm_core::storage::{FileId, LockMode, StorageFile};

use super::fault::{Failure, Operation};
use super::inode::{Change, Fate};
use super::{SimulatedDisk, errno};

#[derive(Debug)]
pub(super) struct SimulatedFile {
    pub(super) disk: SimulatedDisk,
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    pub(super) number: u64,
}

impl StorageFile for SimulatedFile {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if let Some(failure) = inner.enter(Operation::ReadAt, &self.path) {
            return Err(errno(failure.errno()));
        }
        let content = &inner.world.inode(self.inode).cached;
        if offset_bytes + buffer.len() as u64 > content.length_bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(offset_bytes, buffer);
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let inner = &mut *inner;
        let failure = inner.enter(Operation::WriteAt, &self.path);
        inner.guard(Operation::WriteAt, &self.path, self.inode);
        inner.world.tick();
        // Anything from one byte to all but one; which, follows from the operation's number.
        let mut random = fastrand::Rng::with_seed(inner.operations);
        let prefix = &data[..random.usize(0..=data.len().saturating_sub(1))];
        let write = |data: &[u8]| Change::Write {
            offset_bytes,
            data: data.into(),
        };
        if let Some(failure) = failure {
            if failure == Failure::Short && !prefix.is_empty() {
                inner.world.change(self.inode, write(prefix));
            }
            return Err(errno(failure.errno()));
        }
        if inner.watching && !prefix.is_empty() {
            let mut within = inner.world.clone();
            within.change(self.inode, write(prefix));
            inner.see(Operation::WriteAt, &self.path, 1, Some(within));
        }
        if !data.is_empty() {
            inner.world.change(self.inode, write(data));
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut inner = self.disk.lock();
        match inner.enter(Operation::Length, &self.path) {
            Some(failure) => Err(errno(failure.errno())),
            None => Ok(inner.world.inode(self.inode).cached.length_bytes()),
        }
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if let Some(failure) = inner.enter(Operation::SetLength, &self.path) {
            return Err(errno(failure.errno()));
        }
        inner.guard(Operation::SetLength, &self.path, self.inode);
        inner.world.tick();
        inner.world.change(self.inode, Change::Length(length_bytes));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let Some(failure) = inner.enter(Operation::SyncData, &self.path) else {
            inner.world.inode_mut(self.inode).sync();
            return Ok(());
        };
        let mut random = fastrand::Rng::with_seed(inner.operations);
        let fate = || match random.u8(0..4) {
            0 => Fate::Kept,
            1 => Fate::Torn(random.u64(..)),
            _ => Fate::Dropped,
        };
        let inode = inner.world.inode_mut(self.inode);
        inode.fail_sync(failure.of_sync(), fate);
        Err(errno(failure.errno()))
    }

    fn next_data(&self, offset_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        let mut inner = self.disk.lock();
        match inner.enter(Operation::NextData, &self.path) {
            Some(failure) => Err(errno(failure.errno())),
            None => Ok(inner.world.inode(self.inode).cached.next_data(offset_bytes)),
        }
    }

    fn id(&self) -> io::Result<FileId> {
        let mut inner = self.disk.lock();
        match inner.enter(Operation::Id, &self.path) {
            Some(failure) => Err(errno(failure.errno())),
            None => Ok(FileId {
                device: 1,
                inode: self.inode,
            }),
        }
    }

    fn lock(&self, mode: LockMode) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if let Some(failure) = inner.enter(Operation::Lock, &self.path) {
            return Err(errno(failure.errno()));
        }
        if inner.locks.take(self.number, self.inode, mode) {
            Ok(())
        } else {
            Err(errno(libc::EAGAIN))
        }
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.lock().locks.release(self.number);
    }
}
