// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental copy: freeze, checkpoint, commit, abort.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::stubborn::Stubborn;
use super::*;

const GRANULE: u64 = 65536;

fn image_with(disk: &Disk, durability: Durability, names: &[&str]) -> Image {
    let image = disk.activated_as(durability);
    for name in names {
        image.add_bitmap(name, GRANULE, true).unwrap();
    }
    image
}

fn write_granules(image: &Image, granules: &[u64]) {
    for granule in granules {
        write(image, granule * GRANULE, 1);
    }
}

/// Numbers of the dirty granules, by every way to ask for them.
fn granules(image: &Image, name: &str) -> Vec<u64> {
    let found: Vec<u64> = dirty(image, name, GRANULE)
        .into_iter()
        .map(|offset| offset / GRANULE)
        .collect();
    assert_eq!(image.dirty_count(name).unwrap(), found.len() as u64);
    let size_bytes = image.info().size_bytes.unwrap();
    let mut bits = vec![0; size_bytes.div_ceil(GRANULE * 8) as usize];
    image.load_bits(name, 0, size_bytes, &mut bits).unwrap();
    let mut touched = Vec::new();
    let mut next = 0;
    while let Some(extent) = image.next_dirty_extent(name, next).unwrap() {
        touched.extend(extent.offset_bytes / GRANULE..extent.end_bytes().div_ceil(GRANULE));
        next = extent.end_bytes();
    }
    assert_eq!(touched, found);
    for (granule, byte) in (0..).step_by(8).zip(bits) {
        let set = (granule..granule + 8).filter(|granule| found.contains(granule));
        assert_eq!(byte, set.map(|granule| 1 << (granule % 8)).sum::<u8>());
    }
    found
}

fn frozen(image: &Image, name: &str) -> bool {
    image.bitmap(name).unwrap().frozen
}

#[test]
fn a_frozen_bitmap_shows_what_it_was_and_a_commit_leaves_what_came_since() {
    for durability in [Durability::Process, Durability::Close] {
        let disk = Disk::new(MIB);
        let image = image_with(&disk, durability, &["b"]);
        write_granules(&image, &[1, 5]);
        image.freeze_bitmap("b").unwrap();
        assert!(frozen(&image, "b"));
        write_granules(&image, &[5, 9]);
        assert_eq!(granules(&image, "b"), [1, 5]);
        assert_eq!(image.dirty_bytes("b").unwrap(), 2 * GRANULE);
        image.commit_bitmap("b").unwrap();
        assert!(!frozen(&image, "b"));
        assert_eq!(granules(&image, "b"), [5, 9]);
        write_granules(&image, &[2]);
        image.inactivate().unwrap();
        drop(image);
        assert_eq!(granules(&disk.activated(), "b"), [2, 5, 9]);
    }
}

#[test]
fn a_write_in_flight_at_the_freeze_is_a_later_one() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["b"]);
    let (before, _) = image.begin_write(0, 1).unwrap();
    image.freeze_bitmap("b").unwrap();
    let (during, _) = image.begin_write(4 * GRANULE, 1).unwrap();
    image.end_write(before);
    image.checkpoint_bitmap("b", MIB).unwrap();
    assert_eq!(granules(&image, "b"), [0_u64; 0]);
    image.end_write(during);
    image.commit_bitmap("b").unwrap();
    assert_eq!(granules(&image, "b"), [0, 4]);
    drop(image); // As a crash does.
    assert_eq!(granules(&disk.activated(), "b"), [0, 4]);
}

#[test]
fn a_checkpoint_rounds_down_and_keeps_the_rest_and_what_came_since() {
    let cases: [(u64, &[u64], &[u64]); 7] = [
        (0, &[1, 5, 9], &[1, 3, 5, 9]),
        (GRANULE, &[1, 5, 9], &[1, 3, 5, 9]),
        (2 * GRANULE - 1, &[1, 5, 9], &[1, 3, 5, 9]),
        (2 * GRANULE, &[5, 9], &[1, 3, 5, 9]),
        (9 * GRANULE + 1, &[9], &[1, 3, 9]),
        (MIB, &[], &[1, 3]),
        (u64::MAX, &[], &[1, 3]),
    ];
    for (offset, left, after_crash) in cases {
        for abort in [false, true] {
            let disk = Disk::new(MIB);
            let image = image_with(&disk, Durability::Process, &["b"]);
            write_granules(&image, &[1, 5, 9]);
            image.freeze_bitmap("b").unwrap();
            write_granules(&image, &[1, 3]);
            image.checkpoint_bitmap("b", offset).unwrap();
            assert!(frozen(&image, "b"));
            assert_eq!(granules(&image, "b"), left, "{offset}");
            if abort {
                image.abort_bitmap("b").unwrap();
                assert_eq!(granules(&image, "b"), after_crash, "{offset}");
            }
            drop(image); // As a crash does.
            let image = disk.activated();
            assert!(!frozen(&image, "b"));
            assert_eq!(granules(&image, "b"), after_crash, "{offset}");
            assert_eq!(disk.listing().len(), 3, "no file is left behind");
        }
    }
}

#[test]
fn the_last_granule_is_copied_with_the_end_of_the_disk() {
    let disk = Disk::new(MIB + 512);
    let image = image_with(&disk, Durability::Process, &["b"]);
    write(&image, MIB, 512);
    image.freeze_bitmap("b").unwrap();
    assert_eq!(image.dirty_bytes("b").unwrap(), 512);
    image.checkpoint_bitmap("b", MIB + 511).unwrap();
    assert_eq!(granules(&image, "b"), [16]);
    image.checkpoint_bitmap("b", MIB + 512).unwrap();
    assert_eq!(granules(&image, "b"), [0_u64; 0]);
}

#[test]
fn copies_follow_one_another() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["b"]);
    write_granules(&image, &[0]);
    for round in 1..12 {
        image.freeze_bitmap("b").unwrap();
        assert_eq!(granules(&image, "b"), [round - 1]);
        write_granules(&image, &[round]);
        image.commit_bitmap("b").unwrap();
    }
    image.freeze_bitmap("b").unwrap();
    write_granules(&image, &[13]);
    image.abort_bitmap("b").unwrap();
    assert_eq!(granules(&image, "b"), [11, 13]);
}

#[test]
fn two_bitmaps_are_frozen_each_for_itself() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["a", "b", "c"]);
    write_granules(&image, &[1]);
    image.freeze_bitmap("a").unwrap();
    write_granules(&image, &[2]);
    image.freeze_bitmap("b").unwrap();
    write_granules(&image, &[3]);
    assert_eq!(granules(&image, "a"), [1]);
    assert_eq!(granules(&image, "b"), [1, 2]);
    assert_eq!(granules(&image, "c"), [1, 2, 3]);
    image.commit_bitmap("a").unwrap();
    assert!(!frozen(&image, "a") && frozen(&image, "b"));
    write_granules(&image, &[4]);
    image.commit_bitmap("b").unwrap();
    drop(image); // As a crash does.
    let image = disk.activated();
    assert_eq!(granules(&image, "a"), [2, 3, 4]);
    assert_eq!(granules(&image, "b"), [3, 4]);
    assert_eq!(granules(&image, "c"), [1, 2, 3, 4]);
}

#[test]
fn one_that_does_not_record_has_what_is_marked() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["b"]);
    write_granules(&image, &[1]);
    image.set_recording("b", false).unwrap();
    image.freeze_bitmap("b").unwrap();
    write_granules(&image, &[2]);
    image.mark_dirty("b", 3 * GRANULE, 1).unwrap();
    image.merge_bits("b", 0, MIB, &[0x10, 0]).unwrap();
    assert_eq!(granules(&image, "b"), [1]);
    image.commit_bitmap("b").unwrap();
    assert_eq!(granules(&image, "b"), [3, 4]);
    assert!(!image.bitmap("b").unwrap().recording);
}

#[test]
fn what_would_change_what_is_frozen_is_refused() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["b", "c"]);
    write_granules(&image, &[1]);
    image.freeze_bitmap("b").unwrap();
    let text = disk.text();
    let refused = [
        image.freeze_bitmap("b"),
        image.remove_bitmap("b"),
        image.clear_bitmap("b"),
        image.rename_bitmap("b", "d"),
        image.rename_bitmap("b", "b"),
        image.set_recording("b", false),
        image.set_recording("b", true),
        image.set_granularity("b", 512),
        image.store_bits("b", 0, MIB, None),
        image.merge_bitmaps("b", &["c"]),
        image.merge_bitmaps("c", &["b"]),
        image.merge_bitmaps("c", &["c", "b"]),
    ];
    for (index, result) in refused.into_iter().enumerate() {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Busy, "{index}");
    }
    assert_eq!(disk.text(), text);
    assert_eq!(granules(&image, "b"), [1]);
    image.set_user_data("b", Some(b"x")).unwrap();
    image.rename_bitmap("c", "d").unwrap();
    for result in [
        image.checkpoint_bitmap("d", 0),
        image.commit_bitmap("d"),
        image.abort_bitmap("d"),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
    }
    for result in [
        image.freeze_bitmap("none"),
        image.checkpoint_bitmap("none", 0),
        image.commit_bitmap("none"),
        image.abort_bitmap("none"),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
    }
    image.inactivate().unwrap();
    for result in [image.freeze_bitmap("b"), image.abort_bitmap("b")] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
}

#[test]
fn a_clean_close_ends_the_freeze_and_keeps_everything() {
    for durability in [Durability::Process, Durability::Close] {
        let disk = Disk::new(MIB);
        let image = image_with(&disk, durability, &["b"]);
        write_granules(&image, &[1]);
        image.freeze_bitmap("b").unwrap();
        write_granules(&image, &[2]);
        image.inactivate().unwrap();
        let activation = Activation {
            size_bytes: MIB,
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        assert!(!frozen(&image, "b"));
        assert_eq!(granules(&image, "b"), [1, 2]);
    }
}

#[test]
fn a_bitmap_that_is_given_up_is_no_longer_frozen() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["a", "b", "c", "d"]);
    for name in ["a", "b", "c"] {
        image.freeze_bitmap(name).unwrap();
    }
    image.set_inconsistent("a", "a test").unwrap();
    for name in ["b", "c", "d"] {
        let state = image.lock();
        let recorder = state.active.as_ref().unwrap().recorder(name).unwrap();
        recorder.fail_for_test();
    }
    let error = image.commit_bitmap("b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let error = image.freeze_bitmap("d").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let (ticket, begun) = image.begin_write(0, 1).unwrap();
    assert_eq!(begun, Begun::MustWait);
    image.wait_write().unwrap();
    image.end_write(ticket);
    for name in ["a", "b", "c", "d"] {
        assert!(inconsistent(&image, name) && !frozen(&image, name));
        let error = image.abort_bitmap(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        image.remove_bitmap(name).unwrap();
    }
    let (ticket, begun) = image.begin_write(GRANULE, 1).unwrap();
    assert_eq!(begun, Begun::Ready);
    image.end_write(ticket);
}

#[test]
fn what_the_disk_gains_was_written_since() {
    let disk = Disk::new(MIB);
    let image = image_with(&disk, Durability::Process, &["on", "off"]);
    image.set_recording("off", false).unwrap();
    write_granules(&image, &[1, 15]);
    for name in ["on", "off"] {
        image.mark_dirty(name, 15 * GRANULE, 1).unwrap();
        image.freeze_bitmap(name).unwrap();
    }
    let resize = |size_bytes: u64| {
        image.begin_resize(size_bytes).unwrap();
        let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
        data.unwrap().set_len(size_bytes).unwrap();
        image.end_resize(size_bytes).unwrap();
    };
    resize(MIB + 2 * GRANULE);
    assert_eq!(granules(&image, "on"), [1, 15]);
    assert_eq!(granules(&image, "off"), [15]);
    write_granules(&image, &[17]);
    // Cut, and grown again: what was there is gone.
    resize(8 * GRANULE);
    assert_eq!(granules(&image, "on"), [1]);
    resize(10 * GRANULE);
    assert_eq!(granules(&image, "on"), [1]);
    image.commit_bitmap("on").unwrap();
    image.commit_bitmap("off").unwrap();
    assert_eq!(granules(&image, "on"), [8, 9]);
    assert_eq!(granules(&image, "off"), [0_u64; 0]);
    drop(image); // As a crash does.
    assert_eq!(granules(&disk.activated(), "on"), [8, 9]);
}

#[test]
fn a_commit_within_a_resize_does_not_take_the_tail_for_copied() {
    for early in [false, true] {
        let disk = Disk::new(MIB);
        let image = image_with(&disk, Durability::Process, &["b"]);
        if early {
            image.freeze_bitmap("b").unwrap();
        }
        image.begin_resize(MIB + GRANULE).unwrap();
        if !early {
            image.freeze_bitmap("b").unwrap();
        }
        image.commit_bitmap("b").unwrap();
        assert_eq!(dirty(&image, "b", GRANULE), [MIB]);
        let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
        data.unwrap().set_len(MIB + GRANULE).unwrap();
        drop(image); // As a crash does.
        assert_eq!(dirty(&disk.activated(), "b", GRANULE), [MIB]);
    }
}

/// A commit of which it is not known whether the disk has it: the text is written, and its sync fails.
fn ambiguous(disk: &Disk) -> (Stubborn, Image) {
    let stubborn = Stubborn::default();
    let image = stubborn.image(disk);
    image.add_bitmap("b", GRANULE, true).unwrap();
    write_granules(&image, &[1]);
    image.freeze_bitmap("b").unwrap();
    write_granules(&image, &[2]);
    stubborn.change(|moods| moods.fails_descriptor_syncs = true);
    image.commit_bitmap("b").unwrap_err();
    assert!(frozen(&image, "b"));
    write_granules(&image, &[3]);
    assert_eq!(granules(&image, "b"), [1]);
    (stubborn, image)
}

#[test]
fn a_crash_after_a_commit_that_failed_finds_it_or_not_and_every_later_write() {
    let disk = Disk::new(MIB);
    let (_, image) = ambiguous(&disk);
    drop(image); // As a crash does.
    assert_eq!(
        granules(&disk.activated(), "b"),
        [2, 3],
        "this one was there"
    );
}

#[test]
fn an_abort_takes_back_a_commit_that_failed() {
    let disk = Disk::new(MIB);
    let (stubborn, image) = ambiguous(&disk);
    image.abort_bitmap("b").unwrap_err();
    assert!(frozen(&image, "b"), "as long as it could not be taken back");
    stubborn.change(|moods| moods.fails_descriptor_syncs = false);
    image.abort_bitmap("b").unwrap();
    assert_eq!(granules(&image, "b"), [1, 2, 3]);
    drop(image); // As a crash does.
    assert_eq!(granules(&disk.activated(), "b"), [1, 2, 3]);
    assert_eq!(disk.listing(), ["x.qbm", "x.qbm.b.bitmap", "x.qbm.raw"]);
}

#[test]
fn a_commit_that_failed_is_tried_again() {
    let disk = Disk::new(MIB);
    let (stubborn, image) = ambiguous(&disk);
    stubborn.change(|moods| moods.fails_descriptor_syncs = false);
    image.commit_bitmap("b").unwrap();
    assert_eq!(granules(&image, "b"), [2, 3]);
    drop(image); // As a crash does.
    assert_eq!(granules(&disk.activated(), "b"), [2, 3]);
}

/// Threads write blocks, each block with a number that grows; a backup is made of rounds of freeze, copy, commit. After
/// each, whatever differs between disk and backup is dirty.
#[test]
fn a_backup_beside_writers_misses_nothing() {
    const BLOCK: u64 = 512;
    const BLOCKS: u64 = 4096;
    const WRITERS: u64 = 4;
    for durability in [Durability::Process, Durability::Close] {
        let disk = Disk::new(BLOCK * BLOCKS);
        let image = disk.activated_as(durability);
        image.add_bitmap("b", BLOCK, true).unwrap();
        let content: Vec<AtomicU64> = (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
        let stop = AtomicBool::new(false);
        let mut backup = vec![0; content.len()];
        let extents = |image: &Image| {
            let mut blocks = BTreeSet::new();
            let mut next = 0;
            while let Some(extent) = image.next_dirty_extent("b", next).unwrap() {
                blocks.extend(extent.offset_bytes / BLOCK..extent.end_bytes() / BLOCK);
                next = extent.end_bytes();
            }
            blocks
        };
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (image, content, stop) = (&image, &content, &stop);
                scope.spawn(move || {
                    let mut state = writer + 1;
                    while !stop.load(Ordering::Relaxed) {
                        state = state
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695);
                        let block = (state >> 33) % BLOCKS;
                        let (ticket, begun) = image.begin_write(block * BLOCK, BLOCK).unwrap();
                        assert_eq!(begun, Begun::Ready);
                        if state >> 60 == 0 {
                            std::thread::yield_now();
                        }
                        content[block as usize].fetch_add(1, Ordering::SeqCst);
                        image.end_write(ticket);
                    }
                });
            }
            for round in 0..30 {
                image.freeze_bitmap("b").unwrap();
                let frozen = extents(&image);
                let halfway = round % 3 * BLOCKS / 2;
                for block in &frozen {
                    backup[*block as usize] = content[*block as usize].load(Ordering::SeqCst);
                }
                image.checkpoint_bitmap("b", halfway * BLOCK).unwrap();
                let left: BTreeSet<_> = frozen.range(halfway.min(BLOCKS)..).copied().collect();
                assert_eq!(extents(&image), left);
                match round % 5 {
                    4 => image.abort_bitmap("b").unwrap(),
                    _ => image.commit_bitmap("b").unwrap(),
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let check = |image: &Image| {
            let dirty = extents(image);
            for (block, backup) in (0..).zip(&backup) {
                let differs = content[block as usize].load(Ordering::SeqCst) != *backup;
                assert!(!differs || dirty.contains(&block), "block {block} is lost");
            }
        };
        check(&image);
        if durability == Durability::Close {
            image.inactivate().unwrap();
        }
        drop(image); // With durability process, as a crash does.
        check(&disk.activated());
    }
}
