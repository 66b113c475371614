// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap files: opening, storing, merging.

use divan::Bencher;
use qbm_core::{Durability, Image};
use qbm_scale::{CHUNK_BITS, Disk, GRANULARITY_BYTES, LARGE_BYTES, far_apart, write};

const BITS_COUNT: u64 = LARGE_BYTES / GRANULARITY_BYTES;
/// 1 TiB: a bitmap file of 2 MiB.
const SMALL_BYTES: u64 = 1 << 40;

fn main() {
    divan::main();
}

/// A disk of 64 TiB whose bitmap has this many dirty bits, each in a chunk of its own.
fn large(dirty: u64) -> Disk {
    let disk = Disk::new(LARGE_BYTES);
    disk.add_bitmap("b", GRANULARITY_BYTES);
    disk.set("b", GRANULARITY_BYTES, far_apart(dirty, BITS_COUNT));
    disk
}

/// A disk of 1 TiB with every bit set.
fn dense() -> Disk {
    let disk = Disk::new(SMALL_BYTES);
    disk.add_bitmap("b", GRANULARITY_BYTES);
    let image = disk.activated(false, Durability::Close);
    write(&image, 0, SMALL_BYTES);
    image.inactivate().expect("closed");
    drop(image);
    disk
}

mod open {
    use super::*;

    #[divan::bench(args = [0, 10, 1000, 30000])]
    fn sparse_64_tib(bencher: Bencher<'_, '_>, chunks: u64) {
        let disk = large(chunks);
        bencher.bench(|| disk.activated(true, Durability::Process));
    }

    #[divan::bench]
    fn dense_1_tib(bencher: Bencher<'_, '_>) {
        let disk = dense();
        bencher.bench(|| disk.activated(true, Durability::Process));
    }

    /// The same bytes, read and looked at by one loop.
    #[divan::bench]
    fn dense_1_tib_plain_read(bencher: Bencher<'_, '_>) {
        let disk = dense();
        let path = disk.path("x.qbm.b.bitmap");
        bencher.bench(|| {
            let bytes = std::fs::read(&path).expect("the file is there");
            bytes
                .iter()
                .map(|byte| u64::from(byte.count_ones()))
                .sum::<u64>()
        });
    }
}

/// Closing after a session that set these bits at durability close: everything is written, summed and synced.
mod store {
    use super::*;

    #[divan::bench(args = [10, 1000], sample_count = 10, sample_size = 1)]
    fn sparse_64_tib(bencher: Bencher<'_, '_>, chunks: u64) {
        let disk = large(0);
        bencher
            .with_inputs(|| {
                let image = disk.activated(false, Durability::Close);
                for bit in far_apart(chunks, BITS_COUNT) {
                    write(&image, bit * GRANULARITY_BYTES, 1);
                }
                image
            })
            .bench_local_values(|image| image.inactivate().expect("closed"));
    }

    #[divan::bench(sample_count = 10, sample_size = 1)]
    fn dense_1_tib(bencher: Bencher<'_, '_>) {
        let disk = dense();
        bencher
            .with_inputs(|| {
                let image = disk.activated(false, Durability::Close);
                image
                    .store_bits("b", 0, SMALL_BYTES, None)
                    .expect("cleared");
                write(&image, 0, SMALL_BYTES);
                image
            })
            .bench_local_values(|image| image.inactivate().expect("closed"));
    }
}

/// Into an empty bitmap, from one with a run of 100 dirty granules in every chunk.
mod merge {
    use super::*;

    fn image(disk: &Disk, target_granularity: u64) -> Image {
        let image = disk.activated(false, Durability::Close);
        image
            .add_bitmap("source", GRANULARITY_BYTES, true)
            .expect("added");
        for chunk in 0..SMALL_BYTES / GRANULARITY_BYTES / CHUNK_BITS {
            let offset = chunk * CHUNK_BITS * GRANULARITY_BYTES;
            write(&image, offset, 100 * GRANULARITY_BYTES);
        }
        image.set_recording("source", false).expect("turned off");
        image
            .add_bitmap("target", target_granularity, true)
            .expect("added");
        image
    }

    #[divan::bench(args = [GRANULARITY_BYTES, 4096, 1 << 20], sample_count = 10)]
    fn qbm(bencher: Bencher<'_, '_>, target_granularity: u64) {
        let disk = Disk::new(SMALL_BYTES);
        let image = image(&disk, target_granularity);
        bencher.bench_local(|| image.merge_bitmaps("target", &["source"]).expect("merged"));
    }

    #[divan::bench(sample_count = 10)]
    fn bit_by_bit(bencher: Bencher<'_, '_>) {
        let disk = Disk::new(SMALL_BYTES);
        let image = image(&disk, GRANULARITY_BYTES);
        let bits_count = SMALL_BYTES / GRANULARITY_BYTES;
        let mut source = vec![0; (bits_count / 8) as usize];
        image
            .load_bits("source", 0, SMALL_BYTES, &mut source)
            .expect("loaded");
        let mut target = vec![0_u8; source.len()];
        bencher.bench_local(|| {
            for bit in 0..bits_count as usize {
                if source[bit / 8] >> (bit % 8) & 1 != 0 {
                    target[bit / 8] |= 1 << (bit % 8);
                }
            }
            target[0]
        });
    }
}
