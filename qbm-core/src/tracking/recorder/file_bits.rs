// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a bitmap file.

use std::io;

use crate::bits::{BitMap, CHUNK_BITS, CHUNK_BYTES};
use crate::caps;
use crate::storage::StorageFile;

const CHUNK: u64 = CHUNK_BYTES as u64;
/// Most that is read at once: whole chunks.
const READ_BYTES_MAX: u64 = 256 * CHUNK;

/// Reads `bits_count` bits, skipping what the file system knows to be zero, and tells whether padding was set after them.
pub(super) fn read_bits(file: &dyn StorageFile, bits_count: u64) -> io::Result<(BitMap, bool)> {
    let mut padding_was_set = false;
    let map = BitMap::new(bits_count);
    let file_bytes = caps::bitmap_file_bytes(bits_count);
    let mut buffer = Vec::new();
    let mut next = 0;
    while let Some((start, end)) = file.next_data(next)? {
        // Whole chunks, as far as the file goes.
        let mut at = start.saturating_sub(start % CHUNK);
        let end = end.checked_next_multiple_of(CHUNK).unwrap_or(u64::MAX);
        let end = end.min(file_bytes);
        while at < end {
            let length = end.saturating_sub(at).min(READ_BYTES_MAX);
            buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
            file.read_at(at, &mut buffer)?;
            for (index, bytes) in (at / CHUNK..).zip(buffer.chunks(CHUNK_BYTES)) {
                padding_was_set |= load_chunk(&map, index, bytes);
            }
            at = at.saturating_add(length);
        }
        next = end.max(next.saturating_add(1));
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
    let first_bit = index.saturating_mul(CHUNK_BITS);
    clear_from(&mut whole, map.bits_count().saturating_sub(first_bit));
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

/// Zeroes the bits of a chunk from `bits_count` on.
pub(super) fn clear_from(bytes: &mut [u8; CHUNK_BYTES], bits_count: u64) {
    use bitvec::prelude::*;
    let first = usize::try_from(bits_count).unwrap_or(usize::MAX);
    if bits_count < CHUNK_BITS
        && let Some(tail) = bytes.view_bits_mut::<Lsb0>().get_mut(first..)
    {
        tail.fill(false);
    }
}
