// SPDX-License-Identifier: MIT OR Apache-2.0
//! One bitmap that is loaded: its bits in memory, its file, and the order between the two.

mod exchange;
mod file_bits;
mod in_memory;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use file_bits::read_bits;

use super::published::Published;
use crate::bits::{BitMap, BitRange, CHUNK_BYTES, Chunk, Granularity};
use crate::caps;
use crate::descriptor::Durability;
use crate::error::{Error, ErrorKind, Result};
use crate::sabotage::sabotaged;
use crate::storage::StorageFile;

/// A loaded bitmap.
///
/// The file is written from memory, under one lock, so that no write carries an older copy of a neighbour's bits. A bit
/// is set in memory only after it is in the file (from `process` on): who finds it set needs to do nothing.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    granularity: Granularity,
    durability: Durability,
    map: Published<BitMap>,
    file: Arc<dyn StorageFile>,
    /// Held by whoever writes the file, and by nobody who waits for a disk.
    writing: Mutex<()>,
    /// The file was written since the last successful sync.
    unsynced: AtomicBool,
    /// A write could not be recorded; the bitmap misses it from now on.
    failed: AtomicBool,
}

impl Recorder {
    /// A bitmap of `bits_count` zeros over `file`, which is made to fit.
    pub(crate) fn create(
        path: &Path,
        file: Box<dyn StorageFile>,
        granularity: Granularity,
        bits_count: u64,
        durability: Durability,
    ) -> Result<Self> {
        file.set_length(caps::bitmap_file_bytes(bits_count))
            .map_err(|error| Error::io("cannot create bitmap file", path, error))?;
        Ok(Self::over(
            path,
            file,
            granularity,
            BitMap::new(bits_count),
            durability,
        ))
    }

    /// The bits that `file` holds, and whether any after them was set. Such padding does not count, and is zero again
    /// after the next clean close.
    pub(crate) fn load(
        path: &Path,
        file: Box<dyn StorageFile>,
        granularity: Granularity,
        bits_count: u64,
        durability: Durability,
    ) -> Result<(Self, bool)> {
        let (map, padding_was_set) = read_bits(&*file, bits_count)
            .map_err(|error| Error::io("cannot read bitmap file", path, error))?;
        let recorder = Self::over(path, file, granularity, map, durability);
        Ok((recorder, padding_was_set))
    }

    fn over(
        path: &Path,
        file: Box<dyn StorageFile>,
        granularity: Granularity,
        map: BitMap,
        durability: Durability,
    ) -> Self {
        Self {
            path: path.to_owned(),
            granularity,
            durability,
            map: Published::new(map),
            file: Arc::from(file),
            writing: Mutex::new(()),
            // A file that was just made, or that a crash left, may not be durable.
            unsynced: AtomicBool::new(true),
            failed: AtomicBool::new(false),
        }
    }

    pub(crate) fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// As if the file system had refused a write.
    #[cfg(test)]
    pub(crate) fn fail_for_test(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// The file is known to be durable as it is.
    pub(crate) fn mark_synced(&self) {
        self.unsynced.store(false, Ordering::SeqCst);
    }

    /// The bitmap misses something from now on: [`has_failed`](Self::has_failed).
    fn give_up(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a write. Returns false when that failed, now or earlier: the bitmap cannot be trusted.
    pub(crate) fn record(&self, offset_bytes: u64, length_bytes: u64) -> bool {
        let map = self.map.load();
        let range = self
            .granularity
            .touched(offset_bytes, length_bytes, map.bits_count());
        if map.all_set(range) {
            return !self.has_failed();
        }
        if self.has_failed() {
            return false;
        }
        let _writing = self.lock();
        let file = &self.file;
        // Under the lock the map is the current one: a resize may have come between.
        let map = self.map.load();
        let range = self
            .granularity
            .touched(offset_bytes, length_bytes, map.bits_count());
        let result = self.set(&map, &**file, range);
        if result.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        result.is_ok()
    }

    /// Sets every bit, as [`record`](Self::record) does.
    pub(crate) fn set_all(&self) -> Result<()> {
        let _writing = self.lock();
        let file = &self.file;
        let map = self.map.load();
        let all = BitRange {
            start: 0,
            end: map.bits_count(),
        };
        self.set(&map, &**file, all)
    }

    /// Sets bits, in the file first. The lock is held.
    fn set(&self, map: &BitMap, file: &dyn StorageFile, range: BitRange) -> Result<()> {
        for (index, within) in BitMap::pieces(range) {
            let Some(chunk) = map.chunk_or_zeroed(index) else {
                continue;
            };
            if chunk.all_set(within.start, within.end) {
                continue;
            }
            match self.durability {
                Durability::Close => chunk.mark_unsaved(),
                Durability::Process if sabotaged!("let-through-before-recorded") => {
                    chunk.mark_unsaved();
                }
                Durability::Process => {
                    let wanted = Chunk::zeroed();
                    wanted.replace(&chunk.to_bytes());
                    wanted.set(within.start, within.end);
                    let (first, end) = (within.start / 8, within.end.div_ceil(8));
                    self.write(file, index, &wanted.to_bytes(), first, end)?;
                }
            }
            chunk.set(within.start, within.end);
        }
        Ok(())
    }

    /// Writes bytes `[first, end)` of chunk `index` from `bytes`, cut at the end of the file.
    fn write(
        &self,
        file: &dyn StorageFile,
        index: u64,
        bytes: &[u8; CHUNK_BYTES],
        first: u64,
        end: u64,
    ) -> Result<()> {
        let base = index.saturating_mul(CHUNK_BYTES as u64);
        let file_bytes = caps::bitmap_file_bytes(self.map.load().bits_count());
        let end = end.min(file_bytes.saturating_sub(base));
        let in_chunk = |byte: u64| usize::try_from(byte).unwrap_or(CHUNK_BYTES);
        let piece = bytes
            .get(in_chunk(first)..in_chunk(end))
            .unwrap_or_default();
        self.unsynced.store(true, Ordering::SeqCst);
        file.write_at(base.saturating_add(first), piece)
            .map_err(|error| Error::io("cannot write bitmap file", &self.path, error))
    }

    /// The first dirty granule at or after `offset_bytes`, as an offset.
    pub(crate) fn next_dirty(&self, offset_bytes: u64) -> Option<u64> {
        let bit = self
            .map
            .load()
            .next_set(self.granularity.granule(offset_bytes))?;
        let bits = BitRange {
            start: bit,
            end: bit,
        };
        Some(self.granularity.bytes_of(bits).0)
    }

    /// The first run of dirty granules at or after the granule that holds `offset_bytes`, as bits.
    pub(crate) fn next_extent(&self, offset_bytes: u64) -> Option<BitRange> {
        self.map
            .load()
            .next_extent(self.granularity.granule(offset_bytes))
    }

    /// CRC-32C of the bitmap file's bytes, as they are once everything is saved.
    pub(crate) fn crc32c(&self) -> u32 {
        self.map.load().crc32c()
    }

    /// Adds what is dirty in `other`, in memory only: for a bitmap that is not on record before its next
    /// [`sync`](Self::sync).
    pub(crate) fn absorb(&self, other: &Self) {
        // Under the lock, no save can come between a bit and its chunk's being marked.
        let _writing = self.lock();
        let map = self.map.load();
        let theirs = other.map.load();
        if self.granularity == other.granularity {
            map.merge(&theirs);
        } else {
            let mut next = 0;
            while let Some(bits) = theirs.next_extent(next) {
                let (offset_bytes, length_bytes) = other.granularity.bytes_of(bits);
                map.set(
                    self.granularity
                        .touched(offset_bytes, length_bytes, map.bits_count()),
                );
                next = bits.end;
            }
        }
        for (_, chunk) in map.iter_present_chunks() {
            chunk.mark_unsaved();
        }
    }

    /// Records what is dirty in `other`, as [`record`](Self::record) does.
    pub(crate) fn record_all_of(&self, other: &Self) -> bool {
        let theirs = other.map.load();
        let mut next = 0;
        while let Some(bits) = theirs.next_extent(next) {
            let (offset_bytes, length_bytes) = other.granularity.bytes_of(bits);
            if !self.record(offset_bytes, length_bytes) {
                return false;
            }
            next = bits.end;
        }
        true
    }

    /// Dirty granules.
    pub(crate) fn count(&self) -> u64 {
        self.map.load().count()
    }

    /// Bytes in dirty granules of a disk of `size_bytes`; the last granule is cut at its end.
    pub(crate) fn dirty_bytes(&self, size_bytes: u64) -> u64 {
        let map = self.map.load();
        let disk = self.granularity.touched(0, size_bytes, map.bits_count());
        let beyond = map.rest(disk.end);
        let granules = map.count().saturating_sub(beyond.count());
        let bytes = granules.saturating_mul(self.granularity.bytes());
        let (_, covered_bytes) = self.granularity.bytes_of(disk);
        match disk.end.checked_sub(1) {
            Some(last) if map.next_set(last) == Some(last) => {
                bytes.saturating_sub(covered_bytes.saturating_sub(size_bytes))
            }
            _ => bytes,
        }
    }

    /// Fits the bitmap to another size; new bits are zero. Page cache only.
    pub(crate) fn resize(&self, bits_count: u64) -> Result<()> {
        let _writing = self.lock();
        let file = &self.file;
        let map = self.map.load();
        if map.bits_count() == bits_count {
            return Ok(());
        }
        self.unsynced.store(true, Ordering::SeqCst);
        let new = Arc::new(map.resized(bits_count));
        // Growing: first make sure that what becomes part of the bitmap is zero, in the file too.
        let shorter_bits = bits_count.min(map.bits_count());
        let resized = file
            .set_length(caps::bitmap_file_bytes(shorter_bits))
            .and_then(|()| file.set_length(caps::bitmap_file_bytes(bits_count)))
            .map_err(|error| Error::io("cannot resize bitmap file", &self.path, error))
            .and_then(|()| {
                self.map.replace(Arc::clone(&new));
                self.save(&new, &**file)
            });
        if resized.is_err() {
            // It no longer covers the disk.
            self.failed.store(true, Ordering::SeqCst);
        }
        resized
    }

    /// [`resize`](Self::resize) for a file whose length a crash may have left at another size.
    pub(crate) fn fit(&self, bits_count: u64) -> Result<()> {
        {
            let _writing = self.lock();
            let file = &self.file;
            let expected_bytes = caps::bitmap_file_bytes(self.map.load().bits_count());
            let failed = |error| Error::io("cannot resize bitmap file", &self.path, error);
            if file.length().map_err(failed)? != expected_bytes {
                file.set_length(expected_bytes).map_err(failed)?;
            }
        }
        self.resize(bits_count)
    }

    /// Another size for a bitmap whose file is not to be touched.
    pub(crate) fn resize_in_memory(&self, bits_count: u64) {
        let map = self.map.load();
        if map.bits_count() != bits_count {
            self.map.replace(Arc::new(map.resized(bits_count)));
        }
    }

    /// Sets the bits of a byte range where the file is not to be touched.
    pub(crate) fn set_in_memory(&self, offset_bytes: u64, length_bytes: u64) {
        let map = self.map.load();
        map.set(
            self.granularity
                .touched(offset_bytes, length_bytes, map.bits_count()),
        );
    }

    /// Writes the chunks that the file lacks. The lock is held.
    fn save(&self, map: &BitMap, file: &dyn StorageFile) -> Result<()> {
        for (index, chunk) in map.iter_present_chunks() {
            if chunk.is_unsaved() {
                self.write(file, index, &chunk.to_bytes(), 0, CHUNK_BYTES as u64)?;
                chunk.mark_saved();
            }
        }
        Ok(())
    }

    /// Makes the file hold exactly the bits in memory, durably. Waits for the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.has_failed() {
            return Err(Error::new(
                ErrorKind::Io,
                "a write could not be recorded in the bitmap file",
            ));
        }
        {
            let _writing = self.lock();
            self.save(&self.map.load(), &*self.file)?;
        }
        // Guest writes are recorded while this waits for the disk.
        let is_unsynced = self.unsynced.swap(false, Ordering::SeqCst);
        if is_unsynced && !sabotaged!("bitmap-not-synced") {
            self.file.sync_data().map_err(|error| {
                // What a failed sync dropped cannot be known; the bitmap is not to be trusted again. Until that is on
                // record the page cache is to say all that it said: a kill must not find less.
                self.failed.store(true, Ordering::SeqCst);
                let _writing = self.lock();
                let map = self.map.load();
                map.iter_present_chunks()
                    .for_each(|(_, chunk)| chunk.mark_unsaved());
                let _ = self.save(&map, &*self.file);
                Error::io("cannot sync bitmap file", &self.path, error)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
