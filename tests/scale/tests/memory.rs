// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory and disk space follow what is dirty, not the size of the disk.
//!
//! The allocator counts for the whole process, so this is one test after the other.

use peak_alloc::PeakAlloc;
use qbm_core::Durability;
use qbm_scale::{Disk, GRANULARITY_BYTES, LARGE_BYTES, far_apart, write};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const BITS_COUNT: u64 = LARGE_BYTES / GRANULARITY_BYTES;

/// What `work` returned, and the largest sum of live allocations that it had of its own.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    (result, ALLOCATOR.peak_usage().saturating_sub(before))
}

#[test]
fn size_costs_nothing() {
    a_large_disk_with_ten_dirty_chunks();
    a_thousand_bitmaps_of_a_large_disk();
    files_stay_sparse();
}

/// Besides a chunk's 4 KiB there are the nodes above it, and the buffer that files are read with (1 MiB).
fn a_large_disk_with_ten_dirty_chunks() {
    const BOUND: usize = MIB + 256 * KIB;
    let disk = Disk::new(LARGE_BYTES);
    disk.add_bitmap("b", GRANULARITY_BYTES);
    disk.set("b", GRANULARITY_BYTES, far_apart(10, BITS_COUNT));
    for read_only in [true, false] {
        let (image, bytes) = peak(|| disk.activated(read_only, Durability::Process));
        assert!(bytes < BOUND, "{bytes} bytes, read-only {read_only}");
        assert_eq!(image.dirty_count("b").unwrap(), 10);
        let kept = {
            let before = ALLOCATOR.current_usage();
            drop(image);
            before - ALLOCATOR.current_usage()
        };
        assert!(
            kept < 128 * KIB,
            "{kept} bytes were kept, read-only {read_only}"
        );
    }
}

fn a_thousand_bitmaps_of_a_large_disk() {
    const COUNT: u64 = 1024;
    /// A few KiB each, text and nodes, and a chunk for each once written.
    const BOUND: usize = 16 * MIB;
    let disk = Disk::with_bitmaps(LARGE_BYTES, GRANULARITY_BYTES, COUNT);
    let ((), bytes) = peak(|| {
        let image = disk.activated(false, Durability::Process);
        assert_eq!(image.bitmaps().len() as u64, COUNT);
        write(&image, LARGE_BYTES / 2, 1);
        for index in 0..COUNT {
            assert_eq!(image.dirty_count(&format!("b{index}")).unwrap(), 1);
        }
        image.inactivate().unwrap();
    });
    assert!(bytes < BOUND, "{bytes} bytes");
    let allocated = disk.allocated_bytes();
    assert!(allocated < COUNT * 8192 + 2 * MIB as u64, "{allocated}");
}

/// A bitmap file has 128 MiB here. Ten writes at each of three sessions take a block each.
fn files_stay_sparse() {
    const BOUND: u64 = 30 * 4096 + 64 * KIB as u64;
    let disk = Disk::new(LARGE_BYTES);
    disk.add_bitmap("b", GRANULARITY_BYTES);
    for (session, durability) in [Durability::Process, Durability::Close, Durability::Process]
        .into_iter()
        .enumerate()
    {
        let image = disk.activated(false, durability);
        for bit in far_apart(10, BITS_COUNT) {
            write(
                &image,
                (bit + 1000 * session as u64) * GRANULARITY_BYTES,
                4096,
            );
        }
        image.inactivate().unwrap();
        drop(image);
        let length = std::fs::metadata(disk.path("x.qbm.b.bitmap"))
            .unwrap()
            .len();
        assert_eq!(length, BITS_COUNT / 8);
        let allocated = disk.allocated_bytes();
        assert!(
            allocated < BOUND,
            "{allocated} bytes after session {session}"
        );
    }
    let image = disk.activated(true, Durability::Process);
    assert_eq!(image.dirty_count("b").unwrap(), 30);
}
