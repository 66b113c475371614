// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits in memory, beside a loop over single bits and beside bitvec, on the same bits.

use std::hint::black_box;

use bitvec::prelude::*;
use divan::Bencher;
use qbm_core::{Durability, Image};
use qbm_scale::{Disk, GRANULARITY_BYTES, far_apart, write};

/// 1 TiB: 16 Mi bits, a bitmap file of 2 MiB.
const BITS_COUNT: u64 = 1 << 24;
const SIZE_BYTES: u64 = BITS_COUNT * GRANULARITY_BYTES;

fn main() {
    divan::main();
}

/// Which bits are set.
#[derive(Debug, Clone, Copy)]
enum Fill {
    /// 1,000 single ones.
    Sparse,
    /// Runs of 100 of every 200.
    Runs,
    /// All but 1,000.
    Dense,
}

const FILLS: [Fill; 3] = [Fill::Sparse, Fill::Runs, Fill::Dense];

impl Fill {
    fn bits(self) -> BitVec<u64, Lsb0> {
        let mut bits = BitVec::repeat(matches!(self, Self::Dense), BITS_COUNT as usize);
        match self {
            Self::Sparse => {
                far_apart(1000, BITS_COUNT).for_each(|bit| bits.set(bit as usize, true))
            }
            Self::Runs => bits
                .chunks_exact_mut(200)
                .for_each(|run| run[..100].fill(true)),
            Self::Dense => {
                far_apart(1000, BITS_COUNT).for_each(|bit| bits.set(bit as usize, false))
            }
        }
        bits
    }

    fn image(self) -> (Disk, Image) {
        let disk = Disk::new(SIZE_BYTES);
        disk.add_bitmap("b", GRANULARITY_BYTES);
        let image = disk.activated(false, Durability::Close);
        let bits = self.bits();
        image
            .store_bits("b", 0, SIZE_BYTES, Some(&bytes(&bits)))
            .expect("stored");
        (disk, image)
    }
}

/// As a bitmap file holds them.
fn bytes(bits: &BitVec<u64, Lsb0>) -> Vec<u8> {
    let words = bits.as_raw_slice().iter();
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// One bit after the other.
fn bit(bytes: &[u8], index: u64) -> bool {
    bytes[(index / 8) as usize] >> (index % 8) & 1 != 0
}

mod count {
    use super::*;

    #[divan::bench(args = FILLS)]
    fn qbm(bencher: Bencher<'_, '_>, fill: Fill) {
        let (_disk, image) = fill.image();
        bencher.bench(|| image.dirty_count("b").expect("loaded"));
    }

    #[divan::bench(args = FILLS)]
    fn bitvec(bencher: Bencher<'_, '_>, fill: Fill) {
        let bits = fill.bits();
        bencher.bench(|| black_box(&bits).count_ones());
    }

    #[divan::bench(args = FILLS, sample_count = 10)]
    fn bit_by_bit(bencher: Bencher<'_, '_>, fill: Fill) {
        let bytes = bytes(&fill.bits());
        bencher.bench(|| {
            let bytes = black_box(&bytes);
            (0..BITS_COUNT).filter(|index| bit(bytes, *index)).count()
        });
    }
}

/// All extents of dirty bits.
mod extents {
    use super::*;

    #[divan::bench(args = FILLS)]
    fn qbm(bencher: Bencher<'_, '_>, fill: Fill) {
        let (_disk, image) = fill.image();
        bencher.bench(|| {
            let (mut count, mut next) = (0, 0);
            while let Some(extent) = image.next_dirty_extent("b", next).expect("loaded") {
                next = extent.offset_bytes + extent.length_bytes;
                count += 1;
            }
            count
        });
    }

    #[divan::bench(args = FILLS)]
    fn bitvec(bencher: Bencher<'_, '_>, fill: Fill) {
        let bits = fill.bits();
        bencher.bench(|| {
            let (mut count, mut rest) = (0, black_box(bits.as_bitslice()));
            while let Some(start) = rest.first_one() {
                let after = &rest[start..];
                rest = &after[after.first_zero().unwrap_or(after.len())..];
                count += 1;
            }
            count
        });
    }

    #[divan::bench(args = FILLS, sample_count = 10)]
    fn bit_by_bit(bencher: Bencher<'_, '_>, fill: Fill) {
        let bytes = bytes(&fill.bits());
        bencher.bench(|| {
            let bytes = black_box(&bytes);
            let (mut count, mut before) = (0, false);
            for index in 0..BITS_COUNT {
                let now = bit(bytes, index);
                count += u64::from(now && !before);
                before = now;
            }
            count
        });
    }
}

/// What a guest's write waits for: lengths in granules.
mod begin_write {
    use super::*;

    const LENGTHS: [u64; 3] = [1, 16, 4096];

    /// The bits are set already.
    #[divan::bench(args = LENGTHS)]
    fn warm(bencher: Bencher<'_, '_>, granules: u64) {
        let (_disk, image) = Fill::Sparse.image();
        write(&image, 1 << 30, granules * GRANULARITY_BYTES);
        bencher.bench(|| write(&image, black_box(1 << 30), granules * GRANULARITY_BYTES));
    }

    #[divan::bench(args = LENGTHS)]
    fn warm_bitvec(bencher: Bencher<'_, '_>, granules: u64) {
        let mut bits = Fill::Sparse.bits();
        let range = 16384..16384 + granules as usize;
        bits[range.clone()].fill(true);
        bencher.bench(|| black_box(&bits)[range.clone()].all());
    }

    /// The bits go to the file, in the page cache.
    #[divan::bench(args = LENGTHS, max_time = 2)]
    fn cold(bencher: Bencher<'_, '_>, granules: u64) {
        cold_as(bencher, granules, Durability::Process);
    }

    /// The bits are set in memory only.
    #[divan::bench(args = LENGTHS, max_time = 2)]
    fn cold_durability_close(bencher: Bencher<'_, '_>, granules: u64) {
        cold_as(bencher, granules, Durability::Close);
    }

    fn cold_as(bencher: Bencher<'_, '_>, granules: u64, durability: Durability) {
        let disk = Disk::new(SIZE_BYTES);
        disk.add_bitmap("b", GRANULARITY_BYTES);
        let image = disk.activated(false, durability);
        let length = granules * GRANULARITY_BYTES;
        let mut next = 0;
        bencher
            .with_inputs(|| {
                next += length;
                if next + length > SIZE_BYTES {
                    image.store_bits("b", 0, SIZE_BYTES, None).expect("cleared");
                    next = 0;
                }
                next
            })
            .bench_local_values(|offset| write(&image, offset, length));
    }
}
