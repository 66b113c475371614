// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps without a file.

use std::io;
use std::path::Path;

use super::Recorder;
use crate::bits::{BitMap, Granularity};
use crate::descriptor::Durability;
use crate::storage::{FileId, LockMode, StorageFile};

/// Keeps nothing, and never fails at it.
#[derive(Debug)]
struct NoFile;

impl StorageFile for NoFile {
    fn read_at(&self, _offset_bytes: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, _offset_bytes: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_length(&self, _length_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, _offset_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    fn id(&self) -> io::Result<FileId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, _mode: LockMode) -> io::Result<()> {
        Ok(())
    }
}

impl Recorder {
    /// A bitmap that only memory has: recording in it writes nothing and cannot fail.
    fn in_memory(granularity: Granularity, map: BitMap) -> Self {
        Self::over(
            Path::new(""),
            Box::new(NoFile),
            granularity,
            map,
            Durability::Close,
        )
    }

    /// One of the same granularity and size without a bit set, in memory only.
    pub(crate) fn empty_in_memory(&self) -> Self {
        let bits_count = self.map.load().bits_count();
        Self::in_memory(self.granularity, BitMap::new(bits_count))
    }

    /// The granules from number `first` on, in memory only. Neither of the two is to be changed but by a resize: they
    /// share chunks.
    pub(crate) fn rest_in_memory(&self, first: u64) -> Self {
        Self::in_memory(self.granularity, self.map.load().rest(first))
    }
}
