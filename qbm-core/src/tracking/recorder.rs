// SPDX-License-Identifier: MIT OR Apache-2.0
//! One bitmap that is loaded: its bits in memory, its file, and the order between the two.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::bits::{BitMap, BitRange, CHUNK_BITS, CHUNK_BYTES, Chunk, Granularity};
use crate::caps;
use crate::descriptor::Durability;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::StorageFile;

/// Read size when a file is loaded: whole chunks.
const LOAD_BYTES: usize = 256 * CHUNK_BYTES;

/// A loaded bitmap.
///
/// The file is written from memory, under one lock, so that no write carries an older copy of a neighbour's bits. A bit
/// is set in memory only after it is in the file (from `process` on): who finds it set needs to do nothing.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    granularity: Granularity,
    durability: Durability,
    map: ArcSwap<BitMap>,
    file: Mutex<Box<dyn StorageFile>>,
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
            map: ArcSwap::from_pointee(map),
            file: Mutex::new(file),
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

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn StorageFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
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
        let file = self.lock();
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
        let file = self.lock();
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
                Durability::Process => {
                    let wanted = Chunk::zeroed();
                    wanted.replace(&chunk.to_bytes());
                    wanted.set(within.start, within.end);
                    let (first, last) = (within.start / 8, (within.end - 1) / 8);
                    self.write(file, index, &wanted.to_bytes(), first, last + 1)?;
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
        let base = index * CHUNK_BYTES as u64;
        let file_bytes = caps::bitmap_file_bytes(self.map.load().bits_count());
        let end = end.min(file_bytes.saturating_sub(base));
        let piece = bytes.get(first as usize..end as usize).unwrap_or_default();
        self.unsynced.store(true, Ordering::SeqCst);
        file.write_at(base + first, piece)
            .map_err(|error| Error::io("cannot write bitmap file", &self.path, error))
    }

    fn chunk_range(&self, offset_bytes: u64, length_bytes: u64, map: &BitMap) -> Result<BitRange> {
        let range = self
            .granularity
            .touched(offset_bytes, length_bytes, map.bits_count());
        let aligned = |bytes: u64| bytes.is_multiple_of(64 * self.granularity.bytes());
        let reaches_end = range.end == map.bits_count();
        if !aligned(offset_bytes) || !(aligned(length_bytes) || reaches_end) {
            return Err(Error::invalid(format!(
                "range of {length_bytes} bytes at {offset_bytes}: not a multiple of 64 granules of {} bytes",
                self.granularity.bytes()
            )));
        }
        Ok(range)
    }

    /// The bits of a range as the bitmap file holds them, into `bits`.
    pub(crate) fn load_bits(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        bits: &mut [u8],
    ) -> Result<()> {
        let map = self.map.load();
        let range = self.chunk_range(offset_bytes, length_bytes, &map)?;
        let bits = buffer(bits.len(), range).and_then(|length| bits.get_mut(..length));
        let bits = bits.ok_or_else(too_small)?;
        bits.fill(0);
        for (index, within) in BitMap::pieces(range) {
            let Some(chunk) = map.chunk(index) else {
                continue;
            };
            let bytes = chunk.to_bytes();
            let at = ((index * CHUNK_BITS + within.start - range.start) / 8) as usize;
            let from = within.start as usize / 8..within.end.div_ceil(8) as usize;
            if let (Some(source), Some(target)) =
                (bytes.get(from.clone()), bits.get_mut(at..at + from.len()))
            {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    /// The first dirty granule at or after `offset_bytes`, as an offset.
    pub(crate) fn next_dirty(&self, offset_bytes: u64) -> Option<u64> {
        let bit = self
            .map
            .load()
            .next_set(offset_bytes / self.granularity.bytes())?;
        Some(bit * self.granularity.bytes())
    }

    /// The first run of dirty granules at or after the granule that holds `offset_bytes`, as bits.
    pub(crate) fn next_extent(&self, offset_bytes: u64) -> Option<BitRange> {
        self.map
            .load()
            .next_extent(offset_bytes / self.granularity.bytes())
    }

    /// CRC-32C of the bitmap file's bytes, as they are once everything is saved.
    pub(crate) fn crc32c(&self) -> u32 {
        self.map.load().crc32c()
    }

    /// Adds what is dirty in `other`, in memory only: for a bitmap that is not on record before its next
    /// [`sync`](Self::sync).
    pub(crate) fn absorb(&self, other: &Self) {
        // Under the lock, no save can come between a bit and its chunk's being marked.
        let _file = self.lock();
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

    /// Dirty granules.
    pub(crate) fn count(&self) -> u64 {
        self.map.load().count()
    }

    /// Replaces the bits of a range; `None`: by zeros. The caller knows that no write is in flight.
    pub(crate) fn store_bits(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        bits: Option<&[u8]>,
    ) -> Result<()> {
        self.change_bits(offset_bytes, length_bytes, bits, |_, new| new)
    }

    /// Adds the bits of a range.
    pub(crate) fn merge_bits(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        bits: &[u8],
    ) -> Result<()> {
        self.change_bits(offset_bytes, length_bytes, Some(bits), |old, new| old | new)
    }

    fn change_bits(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        bits: Option<&[u8]>,
        combine: impl Fn(u8, u8) -> u8,
    ) -> Result<()> {
        let file = self.lock();
        let map = self.map.load();
        let range = self.chunk_range(offset_bytes, length_bytes, &map)?;
        if let Some(bits) = bits {
            buffer(bits.len(), range).ok_or_else(too_small)?;
        }
        for (index, within) in BitMap::pieces(range) {
            let at = ((index * CHUNK_BITS + within.start - range.start) / 8) as usize;
            let bytes_range = within.start as usize / 8..within.end.div_ceil(8) as usize;
            let source = bits.map(|bits| bits.get(at..at + bytes_range.len()).unwrap_or_default());
            let is_zero = source.is_none_or(|source| source.iter().all(|byte| *byte == 0));
            if is_zero && map.chunk(index).is_none() {
                continue;
            }
            let Some(chunk) = map.chunk_or_zeroed(index) else {
                continue;
            };
            let old = chunk.to_bytes();
            let mut new = old;
            let target = new.get_mut(bytes_range.clone()).unwrap_or_default();
            for (position, byte) in target.iter_mut().enumerate() {
                let given = source.and_then(|source| source.get(position));
                *byte = combine(*byte, given.copied().unwrap_or(0));
            }
            // Padding stays zero whatever the caller's last byte holds.
            clear_from(
                &mut new,
                map.bits_count().saturating_sub(index * CHUNK_BITS),
            );
            if new == old && !chunk.is_unsaved() {
                continue;
            }
            match self.durability {
                Durability::Close => chunk.mark_unsaved(),
                Durability::Process => {
                    self.write(&**file, index, &new, 0, CHUNK_BYTES as u64)?;
                    chunk.mark_saved();
                }
            }
            chunk.replace(&new);
        }
        Ok(())
    }

    /// Fits the bitmap to another size; new bits are zero. Page cache only.
    pub(crate) fn resize(&self, bits_count: u64) -> Result<()> {
        let file = self.lock();
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
                self.map.store(Arc::clone(&new));
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
            let file = self.lock();
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
            self.map.store(Arc::new(map.resized(bits_count)));
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
        let file = self.lock();
        let map = self.map.load();
        self.save(&map, &**file)?;
        if self.unsynced.load(Ordering::SeqCst) {
            if let Err(error) = file.sync_data() {
                // What a failed sync dropped cannot be known; the bitmap is not to be trusted again. Until that is on
                // record the page cache is to say all that it said: a kill must not find less.
                self.failed.store(true, Ordering::SeqCst);
                map.iter_present_chunks()
                    .for_each(|(_, chunk)| chunk.mark_unsaved());
                let _ = self.save(&map, &**file);
                return Err(Error::io("cannot sync bitmap file", &self.path, error));
            }
            self.unsynced.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

fn too_small() -> Error {
    Error::invalid("the buffer is too small for the range's bits")
}

/// The bytes of a buffer of `length_bytes` that `range` needs, if it has them.
fn buffer(length_bytes: usize, range: BitRange) -> Option<usize> {
    let needed = usize::try_from((range.end - range.start).div_ceil(8)).ok()?;
    (length_bytes >= needed).then_some(needed)
}

/// Zeroes the bits of a chunk from `bits_count` on.
fn clear_from(bytes: &mut [u8; CHUNK_BYTES], bits_count: u64) {
    use bitvec::prelude::*;
    if bits_count < CHUNK_BITS
        && let Some(tail) = bytes.view_bits_mut::<Lsb0>().get_mut(bits_count as usize..)
    {
        tail.fill(false);
    }
}

/// Reads `bits_count` bits, skipping what the file system knows to be zero.
fn read_bits(file: &dyn StorageFile, bits_count: u64) -> std::io::Result<(BitMap, bool)> {
    let mut padding_was_set = false;
    let map = BitMap::new(bits_count);
    let file_bytes = caps::bitmap_file_bytes(bits_count);
    let mut buffer = vec![0; LOAD_BYTES.min((map.chunks_count() as usize) * CHUNK_BYTES)];
    let mut next = 0;
    while let Some((start, end)) = file.next_data(next)? {
        let mut at = start / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
        let end = end.min(file_bytes);
        while at < end {
            let length = (buffer.len() as u64).min(file_bytes - at) as usize;
            let Some(piece) = buffer.get_mut(..length) else {
                break;
            };
            file.read_at(at, piece)?;
            for (index, bytes) in piece.chunks(CHUNK_BYTES).enumerate() {
                padding_was_set |= load_chunk(&map, at / CHUNK_BYTES as u64 + index as u64, bytes);
            }
            at += length as u64;
        }
        next = end.max(at);
        if next >= file_bytes {
            break;
        }
    }
    Ok((map, padding_was_set))
}

/// Takes over a chunk as the file holds it; returns whether padding was set in it.
fn load_chunk(map: &BitMap, index: u64, bytes: &[u8]) -> bool {
    let mut whole = [0; CHUNK_BYTES];
    if let Some(start) = whole.get_mut(..bytes.len()) {
        start.copy_from_slice(bytes);
    }
    let as_read = whole;
    clear_from(
        &mut whole,
        map.bits_count().saturating_sub(index * CHUNK_BITS),
    );
    if as_read.iter().any(|byte| *byte != 0)
        && let Some(chunk) = map.chunk_or_zeroed(index)
    {
        chunk.replace(&whole);
        if whole != as_read {
            chunk.mark_unsaved();
        }
    }
    whole != as_read
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
