// SPDX-License-Identifier: MIT OR Apache-2.0
//! A piece of a bitmap: 4 KiB of bits that any thread may test while another sets some.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bits of one chunk.
pub(crate) const CHUNK_BITS: u64 = 32768;
/// Bytes of one chunk in the bitmap file.
pub(crate) const CHUNK_BYTES: usize = (CHUNK_BITS / 8) as usize;
const WORDS: usize = CHUNK_BYTES / 8;

/// Bits as little-endian words, and whether the file lacks some of them.
#[derive(Debug)]
pub(crate) struct Chunk {
    words: Box<[AtomicU64]>,
    unsaved: AtomicBool,
}

/// The words that bits `[start, end)` of a chunk fall into, each with the mask of those bits.
fn masks(start: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    debug_assert!(start < end && end <= CHUNK_BITS);
    let (first, last) = (start / 64, (end - 1) / 64);
    (first..=last).map(move |word| {
        let mut mask = u64::MAX;
        if word == first {
            mask &= u64::MAX << (start % 64);
        }
        if word == last {
            mask &= u64::MAX >> (63 - (end - 1) % 64);
        }
        (word as usize, mask)
    })
}

impl Chunk {
    pub(crate) fn zeroed() -> Self {
        Self {
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            unsaved: AtomicBool::new(false),
        }
    }

    fn word(&self, index: usize) -> u64 {
        // Acquire pairs with the Release below: who sees a bit also knows that its file write came before.
        self.words
            .get(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(crate) fn all_set(&self, start: u64, end: u64) -> bool {
        masks(start, end).all(|(index, mask)| self.word(index) & mask == mask)
    }

    pub(crate) fn set(&self, start: u64, end: u64) {
        for (index, mask) in masks(start, end) {
            if let Some(word) = self.words.get(index) {
                word.fetch_or(mask, Ordering::Release);
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.load(Ordering::Acquire).count_ones()))
            .sum()
    }

    /// The first bit set at or after `start`.
    pub(crate) fn next_set(&self, start: u64) -> Option<u64> {
        let first = (start / 64) as usize;
        (first..WORDS).find_map(|index| {
            let mut word = self.word(index);
            if index == first {
                word &= u64::MAX << (start % 64);
            }
            (word != 0).then(|| index as u64 * 64 + u64::from(word.trailing_zeros()))
        })
    }

    /// The chunk as the bitmap file holds it.
    pub(crate) fn to_bytes(&self) -> [u8; CHUNK_BYTES] {
        let mut bytes = [0; CHUNK_BYTES];
        for (piece, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            piece.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
        }
        bytes
    }

    /// Makes the chunk hold exactly `bytes`.
    pub(crate) fn replace(&self, bytes: &[u8; CHUNK_BYTES]) {
        for (piece, word) in bytes.chunks_exact(8).zip(&self.words) {
            let mut value = [0; 8];
            value.copy_from_slice(piece);
            word.store(u64::from_le_bytes(value), Ordering::Release);
        }
    }

    pub(crate) fn mark_unsaved(&self) {
        self.unsaved.store(true, Ordering::Release);
    }

    pub(crate) fn mark_saved(&self) {
        self.unsaved.store(false, Ordering::Release);
    }

    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_against_single_bits() {
        let edges = [0, 1, 63, 64, 65, 127, 128, 4095, 32767, 32768];
        for start in edges {
            for end in edges.into_iter().filter(|end| *end > start) {
                let chunk = Chunk::zeroed();
                assert!(!chunk.all_set(start, end));
                chunk.set(start, end);
                assert!(chunk.all_set(start, end));
                assert_eq!(chunk.count(), end - start);
                assert_eq!(chunk.next_set(0), Some(start));
                if end < CHUNK_BITS {
                    assert_eq!(chunk.next_set(end), None);
                    assert!(!chunk.all_set(start, end + 1));
                }
            }
        }
    }

    #[test]
    fn the_least_significant_bit_of_the_first_byte_is_the_first_granule() {
        let chunk = Chunk::zeroed();
        chunk.set(0, 1);
        chunk.set(9, 10);
        let bytes = chunk.to_bytes();
        assert_eq!(&bytes[..2], &[0x01, 0x02]);
        let copy = Chunk::zeroed();
        copy.replace(&bytes);
        assert_eq!(copy.to_bytes(), bytes);
    }
}
