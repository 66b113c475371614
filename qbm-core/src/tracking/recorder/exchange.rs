// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits of a bitmap in and out, laid out as in the bitmap file.

use std::ops::Range;

use super::Recorder;
use super::file_bits::clear_from;
use crate::bits::{BitMap, BitRange, CHUNK_BITS, CHUNK_BYTES};
use crate::descriptor::Durability;
use crate::error::{Error, Result};

impl Recorder {
    fn chunk_range(&self, offset_bytes: u64, length_bytes: u64, map: &BitMap) -> Result<BitRange> {
        let range = self
            .granularity
            .touched(offset_bytes, length_bytes, map.bits_count());
        let unit_bytes = self.granularity.bytes().saturating_mul(64);
        let aligned = |bytes: u64| bytes.is_multiple_of(unit_bytes);
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
            let (from, to) = byte_ranges(range, index, within);
            if let (Some(source), Some(target)) = (bytes.get(from), bits.get_mut(to)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
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

    /// Writes a whole chunk. After an error the file holds the old one again, or the bitmap is given up: memory must not
    /// say that a bit is recorded which the file may have lost (I1).
    fn write_or_restore(
        &self,
        index: u64,
        new: &[u8; CHUNK_BYTES],
        old: &[u8; CHUNK_BYTES],
    ) -> Result<()> {
        let write = |bytes| self.write(&*self.file, index, bytes, 0, CHUNK_BYTES as u64);
        write(new).inspect_err(|_| {
            if write(old).is_err() {
                self.give_up();
            }
        })
    }

    fn change_bits(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        bits: Option<&[u8]>,
        combine: impl Fn(u8, u8) -> u8,
    ) -> Result<()> {
        let _writing = self.lock();
        let map = self.map.load();
        let range = self.chunk_range(offset_bytes, length_bytes, &map)?;
        if let Some(bits) = bits {
            buffer(bits.len(), range).ok_or_else(too_small)?;
        }
        // Zeros concern only what is there: the rest of a large map is not walked over.
        let pieces: Vec<_> = match bits {
            Some(_) => BitMap::pieces(range).collect(),
            None => map.present_pieces(range).collect(),
        };
        for (index, within) in pieces {
            let (bytes_range, given) = byte_ranges(range, index, within);
            let source = bits.map(|bits| bits.get(given).unwrap_or_default());
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
                map.bits_count()
                    .saturating_sub(index.saturating_mul(CHUNK_BITS)),
            );
            if new == old && !chunk.is_unsaved() {
                continue;
            }
            match self.durability {
                Durability::Close => chunk.mark_unsaved(),
                Durability::Process => {
                    self.write_or_restore(index, &new, &old)?;
                    chunk.mark_saved();
                }
            }
            chunk.replace(&new);
        }
        Ok(())
    }
}

/// Where the bits `within` chunk `index` are: bytes of the chunk, and of a buffer that holds the bits of `range`.
fn byte_ranges(range: BitRange, index: u64, within: BitRange) -> (Range<usize>, Range<usize>) {
    // Below 2^36 bits each; a range begins at a multiple of 64.
    let bytes = |start: u64, end: u64| {
        let byte = |bit: u64| usize::try_from(bit).unwrap_or(usize::MAX);
        byte(start / 8)..byte(end.div_ceil(8))
    };
    let first = index.saturating_mul(CHUNK_BITS);
    let in_buffer = |bit: u64| first.saturating_add(bit).saturating_sub(range.start);
    (
        bytes(within.start, within.end),
        bytes(in_buffer(within.start), in_buffer(within.end)),
    )
}

fn too_small() -> Error {
    Error::invalid("the buffer is too small for the range's bits")
}

/// The bytes of a buffer of `length_bytes` that `range` needs, if it has them.
fn buffer(length_bytes: usize, range: BitRange) -> Option<usize> {
    let needed = usize::try_from(range.end.saturating_sub(range.start).div_ceil(8)).ok()?;
    (length_bytes >= needed).then_some(needed)
}
