// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole bitmap in memory: a table of chunks, of which only those with a bit set ever exist.

use std::sync::Arc;

use super::checksum::append_zeros;
use super::table::Table;
use super::{BitRange, CHUNK_BITS, CHUNK_BYTES, Chunk};
use crate::caps;

/// Bits `0..bits_count`. Tests are lock-free; whoever sets bits makes sure of the order against the bitmap file.
///
/// No bit at or after `bits_count` is ever set. Memory: at most 8 KiB for each chunk of 32,768 bits that has had a bit set.
#[derive(Debug)]
pub(crate) struct BitMap {
    bits_count: u64,
    table: Table,
}

/// The first bit of the chunk at `index`.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an index is a bit's number divided by CHUNK_BITS"
)]
fn base(index: u64) -> u64 {
    index * CHUNK_BITS
}

impl BitMap {
    pub(crate) fn new(bits_count: u64) -> Self {
        debug_assert!(bits_count <= caps::BITMAP_BITS_MAX);
        Self {
            bits_count,
            table: Table::new(bits_count.div_ceil(CHUNK_BITS)),
        }
    }

    pub(crate) fn bits_count(&self) -> u64 {
        self.bits_count
    }

    #[cfg(test)]
    pub(crate) fn chunks_count(&self) -> u64 {
        self.table.chunks_count()
    }

    pub(crate) fn chunk(&self, index: u64) -> Option<&Arc<Chunk>> {
        self.table.get(index)
    }

    /// The chunk at `index`, made if it was not there; `None` beyond the table.
    pub(crate) fn chunk_or_zeroed(&self, index: u64) -> Option<&Arc<Chunk>> {
        self.table.get_or_init(index, || Arc::new(Chunk::zeroed()))
    }

    /// The chunks that exist, in order, each with its index; all others are zero.
    pub(crate) fn iter_present_chunks(&self) -> impl Iterator<Item = (u64, &Arc<Chunk>)> {
        self.table.present(0)
    }

    /// `range` cut at the chunks' borders: chunk index, and the bits within that chunk.
    pub(crate) fn pieces(range: BitRange) -> impl Iterator<Item = (u64, BitRange)> {
        let chunks = if range.is_empty() {
            0..0
        } else {
            range.start / CHUNK_BITS..range.end.div_ceil(CHUNK_BITS)
        };
        chunks.map(move |index| {
            let base = base(index);
            let within = BitRange {
                start: range.start.saturating_sub(base),
                end: range.end.saturating_sub(base).min(CHUNK_BITS),
            };
            (index, within)
        })
    }

    /// Those [`pieces`](Self::pieces) of `range` whose chunks exist; all others are zero.
    pub(crate) fn present_pieces(&self, range: BitRange) -> impl Iterator<Item = (u64, BitRange)> {
        let chunks = self.table.present(range.start / CHUNK_BITS);
        let chunks = chunks.take_while(move |(index, _)| base(*index) < range.end);
        chunks.flat_map(move |(index, _)| {
            let base = base(index);
            Self::pieces(BitRange {
                start: range.start.max(base),
                end: range.end.min(base.saturating_add(CHUNK_BITS)),
            })
        })
    }

    pub(crate) fn all_set(&self, range: BitRange) -> bool {
        Self::pieces(range).all(|(index, within)| {
            self.chunk(index)
                .is_some_and(|chunk| chunk.all_set(within.start, within.end))
        })
    }

    /// Sets bits in memory only.
    pub(crate) fn set(&self, range: BitRange) {
        for (index, within) in Self::pieces(range) {
            if let Some(chunk) = self.chunk_or_zeroed(index) {
                chunk.set(within.start, within.end);
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.iter_present_chunks()
            .map(|(_, chunk)| chunk.count())
            .sum()
    }

    /// The first bit set at or after `start`.
    pub(crate) fn next_set(&self, start: u64) -> Option<u64> {
        self.table
            .present(start / CHUNK_BITS)
            .find_map(|(index, chunk)| {
                let base = base(index);
                let found = chunk.next_set(start.saturating_sub(base))?;
                Some(base.saturating_add(found))
            })
    }

    /// The first bit clear at or after `start`, and before `bits_count`.
    pub(crate) fn next_clear(&self, start: u64) -> Option<u64> {
        let mut bit = start;
        while bit < self.bits_count {
            let index = bit / CHUNK_BITS;
            let Some(chunk) = self.chunk(index) else {
                return Some(bit);
            };
            let found = chunk.next_clear(bit % CHUNK_BITS);
            bit = base(index).saturating_add(found.unwrap_or(CHUNK_BITS));
            if found.is_some() {
                return Some(bit).filter(|bit| *bit < self.bits_count);
            }
        }
        None
    }

    /// The first run of set bits at or after `start`: it begins at `start` if that bit is set, and is as long as it can be.
    pub(crate) fn next_extent(&self, start: u64) -> Option<BitRange> {
        let start = self.next_set(start)?;
        let end = self.next_clear(start).unwrap_or(self.bits_count);
        Some(BitRange { start, end })
    }

    /// Sets every bit that is set in `other`, in memory only. Both have bits of one granularity; what `other` has beyond
    /// the end of this map is left out.
    pub(crate) fn merge(&self, other: &Self) {
        for (index, chunk) in other.iter_present_chunks() {
            let Some(target) = self.chunk_or_zeroed(index) else {
                break;
            };
            let bits_count = self.bits_count.saturating_sub(base(index));
            if bits_count < CHUNK_BITS && other.bits_count > self.bits_count {
                target.merge(&cut(chunk, 0, bits_count));
            } else {
                target.merge(chunk);
            }
        }
    }

    /// CRC-32C of the bitmap file's bytes. Chunks that do not exist are not looked at.
    pub(crate) fn crc32c(&self) -> u32 {
        let file_bytes = caps::bitmap_file_bytes(self.bits_count);
        let (mut crc, mut end) = (0, 0);
        for (index, chunk) in self.iter_present_chunks() {
            let start = base(index) / 8;
            let bytes = chunk.to_bytes();
            let length = file_bytes.saturating_sub(start).min(CHUNK_BYTES as u64);
            let length = usize::try_from(length).unwrap_or(CHUNK_BYTES);
            crc = append_zeros(crc, start.saturating_sub(end));
            crc = crc32c::crc32c_append(crc, bytes.get(..length).unwrap_or(&bytes));
            end = start.saturating_add(length as u64);
        }
        append_zeros(crc, file_bytes.saturating_sub(end))
    }

    /// The same bits for another size: bits beyond it are dropped, new ones are zero.
    ///
    /// Chunks are shared with the old map, so that a thread that still tests the old one sees no bit vanish; only the
    /// chunk that a smaller size cuts is a copy.
    pub(crate) fn resized(&self, bits_count: u64) -> Self {
        let new = Self::new(bits_count);
        for (index, chunk) in self.iter_present_chunks() {
            let kept = bits_count.saturating_sub(base(index));
            let make = || {
                if bits_count < self.bits_count && kept < CHUNK_BITS {
                    Arc::new(cut(chunk, 0, kept))
                } else {
                    Arc::clone(chunk)
                }
            };
            if new.table.get_or_init(index, make).is_none() {
                break;
            }
        }
        new
    }

    /// The bits at or after `first`; all before it are zero. Chunks are shared with this map, but for the one that `first`
    /// cuts.
    pub(crate) fn rest(&self, first: u64) -> Self {
        let new = Self::new(self.bits_count);
        for (index, chunk) in self.table.present(first / CHUNK_BITS) {
            let dropped = first.saturating_sub(base(index));
            new.table.get_or_init(index, || match dropped {
                0 => Arc::clone(chunk),
                _ => Arc::new(cut(chunk, dropped, CHUNK_BITS)),
            });
        }
        new
    }
}

/// A copy of `chunk` with nothing before bit `start`, and nothing at or after bit `end`.
fn cut(chunk: &Chunk, start: u64, end: u64) -> Chunk {
    use bitvec::prelude::*;
    let mut bytes = chunk.to_bytes();
    let bits = bytes.view_bits_mut::<Lsb0>();
    let bit = |bit: u64| usize::try_from(bit).unwrap_or(usize::MAX);
    if let Some(head) = bits.get_mut(..bit(start)) {
        head.fill(false);
    }
    if let Some(tail) = bits.get_mut(bit(end)..) {
        tail.fill(false);
    }
    let copy = Chunk::zeroed();
    copy.replace(&bytes);
    copy.mark_unsaved();
    copy
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
