// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole bitmap in memory: a table of chunks, of which only those with a bit set ever exist.

use std::sync::{Arc, OnceLock};

use super::{BitRange, CHUNK_BITS, Chunk};

/// Bits `0..bits_count`. Tests are lock-free; whoever sets bits makes sure of the order against the bitmap file.
///
/// Memory: 16 bytes a chunk of 32,768 bits, and 4 KiB for each chunk that has had a bit set.
#[derive(Debug)]
pub(crate) struct BitMap {
    bits_count: u64,
    chunks: Box<[OnceLock<Arc<Chunk>>]>,
}

impl BitMap {
    pub(crate) fn new(bits_count: u64) -> Self {
        let chunks = (0..bits_count.div_ceil(CHUNK_BITS))
            .map(|_| OnceLock::new())
            .collect();
        Self { bits_count, chunks }
    }

    pub(crate) fn bits_count(&self) -> u64 {
        self.bits_count
    }

    pub(crate) fn chunks_count(&self) -> u64 {
        self.chunks.len() as u64
    }

    pub(crate) fn chunk(&self, index: u64) -> Option<&Arc<Chunk>> {
        self.chunks.get(usize::try_from(index).ok()?)?.get()
    }

    /// The chunk at `index`, made if it was not there; `None` beyond the table.
    pub(crate) fn chunk_or_zeroed(&self, index: u64) -> Option<&Arc<Chunk>> {
        let slot = self.chunks.get(usize::try_from(index).ok()?)?;
        Some(slot.get_or_init(|| Arc::new(Chunk::zeroed())))
    }

    /// `range` cut at the chunks' borders: chunk index, and the bits within that chunk.
    pub(crate) fn pieces(range: BitRange) -> impl Iterator<Item = (u64, BitRange)> {
        let chunks = if range.is_empty() {
            0..0
        } else {
            range.start / CHUNK_BITS..(range.end - 1) / CHUNK_BITS + 1
        };
        chunks.map(move |index| {
            let base = index * CHUNK_BITS;
            let within = BitRange {
                start: range.start.max(base) - base,
                end: range.end.min(base + CHUNK_BITS) - base,
            };
            (index, within)
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
        self.chunks
            .iter()
            .filter_map(|slot| slot.get())
            .map(|chunk| chunk.count())
            .sum()
    }

    /// The first bit set at or after `start`.
    pub(crate) fn next_set(&self, start: u64) -> Option<u64> {
        if start >= self.bits_count {
            return None;
        }
        (start / CHUNK_BITS..self.chunks_count()).find_map(|index| {
            let base = index * CHUNK_BITS;
            let found = self.chunk(index)?.next_set(start.max(base) - base)?;
            Some(base + found)
        })
    }

    /// The same bits for another size: bits beyond it are dropped, new ones are zero.
    ///
    /// Chunks are shared with the old map, so that a thread that still tests the old one sees no bit vanish; only the
    /// chunk that a smaller size cuts is a copy.
    pub(crate) fn resized(&self, bits_count: u64) -> Self {
        let new = Self::new(bits_count);
        for (index, slot) in self.chunks.iter().enumerate() {
            let (Some(chunk), Some(target)) = (slot.get(), new.chunks.get(index)) else {
                continue;
            };
            let base = index as u64 * CHUNK_BITS;
            let chunk = if bits_count < self.bits_count && bits_count - base < CHUNK_BITS {
                Arc::new(cut(chunk, bits_count - base))
            } else {
                Arc::clone(chunk)
            };
            // A fresh slot takes what it is given.
            let _ = target.set(chunk);
        }
        new
    }
}

/// A copy of `chunk` with nothing at or after bit `bits_count`.
fn cut(chunk: &Chunk, bits_count: u64) -> Chunk {
    use bitvec::prelude::*;
    let mut bytes = chunk.to_bytes();
    if let Some(tail) = bytes.view_bits_mut::<Lsb0>().get_mut(bits_count as usize..) {
        tail.fill(false);
    }
    let copy = Chunk::zeroed();
    copy.replace(&bytes);
    copy.mark_unsaved();
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> BitRange {
        BitRange { start, end }
    }

    #[test]
    fn ranges_cross_chunks() {
        let map = BitMap::new(100_000);
        assert!(!map.all_set(range(0, 1)));
        map.set(range(32_000, 70_000));
        assert!(map.all_set(range(32_000, 70_000)));
        assert!(!map.all_set(range(31_999, 70_000)));
        assert!(!map.all_set(range(32_000, 70_001)));
        assert_eq!(map.count(), 38_000);
        assert_eq!(map.next_set(0), Some(32_000));
        assert_eq!(map.next_set(70_000), None);
        assert_eq!(map.next_set(u64::MAX), None);
        assert!(map.all_set(range(5, 5)), "nothing is missing from nothing");
    }

    #[test]
    fn untouched_chunks_take_no_memory() {
        let map = BitMap::new(1 << 30);
        map.set(range(1 << 29, (1 << 29) + 1));
        let present = (0..map.chunks_count())
            .filter(|index| map.chunk(*index).is_some())
            .count();
        assert_eq!(present, 1);
    }

    #[test]
    fn a_smaller_map_forgets_and_a_larger_one_does_not_remember() {
        let map = BitMap::new(40_000);
        map.set(range(0, 40_000));
        let small = map.resized(35_001);
        assert_eq!(small.count(), 35_001);
        let large = small.resized(80_000);
        assert_eq!(large.count(), 35_001);
        assert_eq!(large.next_set(35_001), None);
        assert_eq!(map.count(), 40_000, "the old map is as it was");
    }
}
