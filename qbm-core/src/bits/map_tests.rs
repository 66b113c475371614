// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map against plain vectors of booleans.

use proptest::prelude::*;

use super::*;

fn range(start: u64, end: u64) -> BitRange {
    BitRange { start, end }
}

fn map_of(bits: &[bool]) -> BitMap {
    let map = BitMap::new(bits.len() as u64);
    for (index, bit) in (0..).zip(bits) {
        if *bit {
            map.set(range(index, index + 1));
        }
    }
    map
}

/// The file's bytes, one bit at a time.
fn bytes_of(bits: &[bool]) -> Vec<u8> {
    let mut bytes = vec![0; bits.len().div_ceil(8)];
    for (index, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
        bytes[index / 8] |= 1 << (index % 8);
    }
    bytes
}

fn bits_of(map: &BitMap) -> Vec<bool> {
    let bits = 0..map.bits_count();
    bits.map(|bit| map.all_set(range(bit, bit + 1))).collect()
}

/// Bits in runs, so that chunks are absent, mixed and full.
fn bits() -> impl Strategy<Value = Vec<bool>> {
    let run = (any::<bool>(), prop_oneof![1..70_usize, 1..50_000_usize]);
    prop::collection::vec(run, 0..12).prop_map(|runs| {
        let runs = runs.into_iter();
        runs.flat_map(|(bit, length)| std::iter::repeat_n(bit, length))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_map_is_what_its_bits_say(bits in bits(), starts in prop::collection::vec(0..400_000_usize, 8)) {
        let map = map_of(&bits);
        let dirty = bits.iter().filter(|bit| **bit).count() as u64;
        prop_assert_eq!(map.count(), dirty);
        prop_assert_eq!(map.crc32c(), crc32c::crc32c(&bytes_of(&bits)));
        for start in starts.into_iter().chain([0, bits.len().saturating_sub(1), bits.len()]) {
            let next = |wanted: bool| {
                let rest = bits.iter().skip(start).position(|bit| *bit == wanted)?;
                Some((start + rest) as u64)
            };
            prop_assert_eq!(map.next_set(start as u64), next(true));
            prop_assert_eq!(map.next_clear(start as u64), next(false));
            let kept = (0..).zip(&bits).map(|(index, bit)| *bit && index >= start);
            prop_assert_eq!(bits_of(&map.rest(start as u64)), kept.collect::<Vec<_>>());
        }
        let mut extents = 0;
        let mut next = 0;
        while let Some(extent) = map.next_extent(next) {
            prop_assert!(map.all_set(extent) && extent.end <= map.bits_count());
            prop_assert!(extent.end == map.bits_count() || !bits[extent.end as usize], "maximal");
            extents += extent.end - extent.start;
            next = extent.end;
        }
        prop_assert_eq!(extents, dirty);
    }

    #[test]
    fn merging_is_the_union(first in bits(), second in bits()) {
        let (target, source) = (map_of(&first), map_of(&second));
        target.merge(&source);
        let mut expected = first;
        for (bit, other) in expected.iter_mut().zip(&second) {
            *bit |= other;
        }
        prop_assert_eq!(bits_of(&target), &*expected);
        prop_assert_eq!(target.count(), expected.iter().filter(|bit| **bit).count() as u64, "no padding");
        prop_assert_eq!(bits_of(&source), second);
    }

    #[test]
    fn resizing_keeps_what_fits(bits in bits(), length in 0..400_000_usize) {
        let map = map_of(&bits);
        let resized = map.resized(length as u64);
        let mut expected = bits.clone();
        expected.resize(length, false);
        prop_assert_eq!(resized.count(), expected.iter().filter(|bit| **bit).count() as u64);
        prop_assert_eq!(resized.crc32c(), crc32c::crc32c(&bytes_of(&expected)));
        prop_assert_eq!(bits_of(&map), bits, "the old map is as it was");
    }
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
    assert_eq!(map.next_set(u64::MAX), None);
    assert_eq!(map.next_clear(u64::MAX), None);
    assert!(map.all_set(range(5, 5)), "nothing is missing from nothing");
}

#[test]
fn absent_chunks_are_passed_over() {
    let map = BitMap::new(1 << 36);
    for bit in [5, (1 << 30) + 7, (1 << 36) - 1] {
        map.set(range(bit, bit + 1));
    }
    assert_eq!(map.iter_present_chunks().count(), 3);
    assert_eq!(map.next_set(6), Some((1 << 30) + 7));
    assert_eq!(map.next_set((1 << 30) + 8), Some((1 << 36) - 1));
    assert_eq!(
        map.next_extent(6),
        Some(range((1 << 30) + 7, (1 << 30) + 8))
    );
    assert_eq!(map.next_clear((1 << 36) - 1), None);
    let found: Vec<_> = map.iter_present_chunks().map(|(index, _)| index).collect();
    assert_eq!(found, [0, 1 << 15, (1 << 21) - 1]);
    let small = map.resized(1 << 30);
    assert_eq!((small.count(), small.chunks_count()), (1, 1 << 15));
}

#[test]
fn a_chunk_of_zeros_and_no_chunk_have_one_checksum() {
    let map = BitMap::new(10 * CHUNK_BITS + 3);
    let expected = crc32c::crc32c(&vec![0; 10 * CHUNK_BYTES + 1]);
    assert_eq!(map.crc32c(), expected);
    for index in [3, 4, 10] {
        map.chunk_or_zeroed(index);
    }
    assert_eq!(map.crc32c(), expected);
    assert_eq!(BitMap::new(0).crc32c(), 0);
}

#[test]
fn pieces_that_are_there() {
    let map = BitMap::new(1 << 36);
    assert_eq!(map.present_pieces(range(0, 1 << 36)).count(), 0);
    for bit in [5, CHUNK_BITS * 7, CHUNK_BITS * 9] {
        map.set(range(bit, bit + 1));
    }
    let pieces = |start, end| -> Vec<_> { map.present_pieces(range(start, end)).collect() };
    let whole = range(0, CHUNK_BITS);
    assert_eq!(pieces(0, 1 << 36), [(0, whole), (7, whole), (9, whole)]);
    let cut = [(7, range(64, CHUNK_BITS)), (9, range(0, 128))];
    assert_eq!(pieces(CHUNK_BITS * 7 + 64, CHUNK_BITS * 9 + 128), cut);
    assert_eq!(
        pieces(CHUNK_BITS * 7 + 64, CHUNK_BITS * 7 + 128),
        [(7, range(64, 128))]
    );
    assert_eq!(pieces(CHUNK_BITS * 8, CHUNK_BITS * 9), []);
    assert_eq!(pieces(64, 64), []);
}
