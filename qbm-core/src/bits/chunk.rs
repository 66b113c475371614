// SPDX-License-Identifier: MIT OR Apache-2.0
//! A piece of a bitmap: 4 KiB of bits that any thread may test while another sets some.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bits of one chunk.
pub(crate) const CHUNK_BITS: u64 = 32768;
/// Bytes of one chunk in the bitmap file.
pub(crate) const CHUNK_BYTES: usize = (CHUNK_BITS / 8) as usize;
const WORD_BITS: u64 = 64;
const WORDS: usize = CHUNK_BYTES / 8;

/// Bits as little-endian words, and whether the file lacks some of them.
#[derive(Debug)]
pub(crate) struct Chunk {
    words: [AtomicU64; WORDS],
    unsaved: AtomicBool,
}

/// The word that a bit of a chunk is in; a bit beyond the chunk is in none that exists.
fn word_of(bit: u64) -> usize {
    usize::try_from(bit / WORD_BITS).unwrap_or(WORDS)
}

/// A word with the bits set that are at or after `bit` in its word.
fn from(bit: u64) -> u64 {
    let below = u32::try_from(bit % WORD_BITS).unwrap_or(0);
    u64::MAX.wrapping_shl(below)
}

impl Chunk {
    pub(crate) fn zeroed() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; WORDS],
            unsaved: AtomicBool::new(false),
        }
    }

    /// Calls `visit` with each word that bits `[start, end)` fall into and the mask of those bits, until it says false.
    fn visit(&self, start: u64, end: u64, visit: impl Fn(&AtomicU64, u64) -> bool) -> bool {
        debug_assert!(start < end && end <= CHUNK_BITS);
        let (first, last) = (word_of(start), word_of(end.saturating_sub(1)));
        let first_mask = from(start);
        // All up to the last bit; of a multiple of 64 that is the whole word.
        let last_mask = if end.is_multiple_of(WORD_BITS) {
            u64::MAX
        } else {
            !from(end)
        };
        match self.words.get(first..=last) {
            Some([word]) => visit(word, first_mask & last_mask),
            Some([first, middle @ .., last]) => {
                visit(first, first_mask)
                    && middle.iter().all(|word| visit(word, u64::MAX))
                    && visit(last, last_mask)
            }
            _ => true,
        }
    }

    pub(crate) fn all_set(&self, start: u64, end: u64) -> bool {
        // Acquire pairs with the Release below: who sees a bit also knows that its file write came before.
        self.visit(start, end, |word, mask| {
            word.load(Ordering::Acquire) & mask == mask
        })
    }

    pub(crate) fn set(&self, start: u64, end: u64) {
        self.visit(start, end, |word, mask| {
            word.fetch_or(mask, Ordering::Release);
            true
        });
    }

    /// Sets every bit that is set in `other`.
    pub(crate) fn merge(&self, other: &Self) {
        for (word, other) in self.words.iter().zip(&other.words) {
            let bits = other.load(Ordering::Acquire);
            if bits != 0 {
                word.fetch_or(bits, Ordering::Release);
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        // Loads of atomics stay one by one; counting in a plain copy is done several words at once, as bitvec does it.
        let mut plain = [0; 64];
        let pieces = self.words.chunks_exact(plain.len());
        pieces
            .map(|words| {
                for (copy, word) in plain.iter_mut().zip(words) {
                    *copy = word.load(Ordering::Acquire);
                }
                let counts = plain.iter().map(|word: &u64| u64::from(word.count_ones()));
                counts.sum::<u64>()
            })
            .sum()
    }

    /// The first bit at or after `start` that is set in `look` of its word.
    fn next(&self, start: u64, look: impl Fn(u64) -> u64) -> Option<u64> {
        let first = word_of(start);
        let words = self.words.iter().enumerate().skip(first);
        let mut mask = from(start);
        for (index, word) in words {
            let bits = look(word.load(Ordering::Acquire)) & mask;
            if bits != 0 {
                let base = (index as u64).saturating_mul(WORD_BITS);
                return Some(base.saturating_add(u64::from(bits.trailing_zeros())));
            }
            mask = u64::MAX;
        }
        None
    }

    /// The first bit set at or after `start`.
    pub(crate) fn next_set(&self, start: u64) -> Option<u64> {
        self.next(start, |word| word)
    }

    /// The first bit clear at or after `start`.
    pub(crate) fn next_clear(&self, start: u64) -> Option<u64> {
        self.next(start, |word| !word)
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
                assert_eq!(chunk.next_clear(start), (end < CHUNK_BITS).then_some(end));
                let copy = Chunk::zeroed();
                copy.merge(&chunk);
                assert_eq!(copy.to_bytes(), chunk.to_bytes());
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
