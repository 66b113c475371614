// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clear, merge, rename, another granularity, user data, ranges.

use super::*;

fn extents(image: &Image, name: &str) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(extent) = image.next_dirty_extent(name, next).unwrap() {
        found.push((extent.offset_bytes, extent.length_bytes));
        next = extent.end_bytes();
    }
    found
}

/// The image closed, and opened again.
fn reopened(disk: &Disk, image: Image) -> Image {
    image.inactivate().unwrap();
    drop(image);
    let image = disk.activated();
    assert!(notices(&image).is_empty());
    image
}

#[test]
fn extents_are_as_long_as_they_can_be_and_end_with_the_disk() {
    let disk = Disk::new(MIB + 512);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 100_000, 100_000);
    write(&image, MIB, 512);
    assert_eq!(extents(&image, "b"), [(65536, 196_608), (MIB, 512)]);
    let inside = image.next_dirty_extent("b", 70_000).unwrap().unwrap();
    assert_eq!((inside.offset_bytes, inside.end_bytes()), (70_000, 262_144));
    for beyond in [MIB + 512, u64::MAX] {
        assert_eq!(image.next_dirty_extent("b", beyond).unwrap(), None);
    }
    image.next_dirty_extent("c", 0).unwrap_err();
}

#[test]
fn dirty_bytes_end_with_the_disk() {
    let disk = Disk::new(MIB + 512);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    assert_eq!(image.dirty_bytes("b").unwrap(), 0);
    write(&image, 100_000, 100_000);
    assert_eq!(image.dirty_bytes("b").unwrap(), 196_608);
    write(&image, MIB, 512);
    assert_eq!(image.dirty_bytes("b").unwrap(), 196_608 + 512);
    // An announced tail is not the disk's yet.
    image.begin_resize(2 * MIB).unwrap();
    assert_eq!(image.dirty_bytes("b").unwrap(), 196_608 + 512);
    image.end_resize(2 * MIB).unwrap();
    assert_eq!(image.dirty_bytes("b").unwrap(), 196_608 + MIB);
    image.dirty_bytes("c").unwrap_err();
}

#[test]
fn clear_makes_clean_and_goes_on_recording() {
    for durability in [Durability::Close, Durability::Process] {
        let disk = Disk::new(MIB);
        let image = disk.activated_as(durability);
        image.add_bitmap("b", 65536, true).unwrap();
        write(&image, 0, MIB);
        let (ticket, _) = image.begin_write(300_000, 1).unwrap();
        image.clear_bitmap("b").unwrap();
        assert_eq!(extents(&image, "b"), [(262_144, 65536)], "in flight");
        image.end_write(ticket);
        write(&image, 0, 1);
        let image = reopened(&disk, image);
        assert_eq!(dirty(&image, "b", 65536), [0, 262_144]);
        assert_eq!(disk.listing(), ["x.qbm", "x.qbm.b.1.bitmap", "x.qbm.raw"]);
        image.clear_bitmap("b").unwrap();
        assert_eq!(disk.listing(), ["x.qbm", "x.qbm.b.bitmap", "x.qbm.raw"]);
        assert_eq!(reopened(&disk, image).dirty_count("b").unwrap(), 0);
    }
}

#[test]
fn a_disabled_bitmap_is_cleared_without_beginning_to_record() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_dirty_bitmap("b", 65536, false).unwrap();
    let (ticket, _) = image.begin_write(0, 1).unwrap();
    image.clear_bitmap("b").unwrap();
    image.end_write(ticket);
    write(&image, 0, 1);
    assert_eq!(image.dirty_count("b").unwrap(), 0);
    assert!(!image.bitmap("b").unwrap().recording);
}

#[test]
fn merge_takes_any_granularity_and_keeps_the_sources() {
    let disk = Disk::new(4 * MIB);
    let image = disk.activated();
    image.add_bitmap("fine", 512, true).unwrap();
    image.add_bitmap("coarse", MIB, true).unwrap();
    write(&image, 1000, 1);
    image.set_recording("fine", false).unwrap();
    image.add_bitmap("middle", 4096, true).unwrap();
    write(&image, 3 * MIB, 1);
    image.merge_bitmaps("middle", &["fine"]).unwrap();
    assert_eq!(extents(&image, "middle"), [(0, 4096), (3 * MIB, 4096)]);
    image.merge_bitmaps("middle", &["coarse", "fine"]).unwrap();
    assert_eq!(extents(&image, "middle"), [(0, MIB), (3 * MIB, MIB)]);
    image.merge_bitmaps("fine", &["fine"]).unwrap();
    let image = reopened(&disk, image);
    assert_eq!(extents(&image, "fine"), [(512, 512)]);
    assert_eq!(extents(&image, "coarse"), [(0, MIB), (3 * MIB, MIB)]);
    assert_eq!(extents(&image, "middle"), [(0, MIB), (3 * MIB, MIB)]);
    for (target, source) in [("middle", "none"), ("none", "middle")] {
        let error = image.merge_bitmaps(target, &[source]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn another_granularity_rounds_outwards() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 65536, 1);
    image.set_granularity("b", 512).unwrap();
    assert_eq!(extents(&image, "b"), [(65536, 65536)]);
    image.clear_bitmap("b").unwrap();
    write(&image, 70_000, 1);
    let image = reopened(&disk, image);
    assert_eq!(image.bitmap("b").unwrap().granularity_bytes, 512);
    assert_eq!(extents(&image, "b"), [(69_632, 512)]);
    image.set_granularity("b", 1 << 31).unwrap();
    assert_eq!(extents(&image, "b"), [(0, MIB)]);
    for (granularity_bytes, kind) in [(3000, ErrorKind::Invalid), (0, ErrorKind::Invalid)] {
        let error = image.set_granularity("b", granularity_bytes).unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn a_renamed_bitmap_is_the_same_one() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("old", 65536, true).unwrap();
    image.add_bitmap("other", 65536, true).unwrap();
    write(&image, 0, 1);
    image.rename_bitmap("old", "new/🙂").unwrap();
    write(&image, MIB - 1, 1);
    assert_eq!(extents(&image, "new/🙂").len(), 2);
    image.rename_bitmap("other", "other").unwrap();
    for (from, to, kind) in [
        ("old", "x", ErrorKind::NotFound),
        ("other", "new/🙂", ErrorKind::Exists),
        ("other", "", ErrorKind::Invalid),
        ("other", "a\0b", ErrorKind::Invalid),
    ] {
        assert_eq!(image.rename_bitmap(from, to).unwrap_err().kind(), kind);
    }
    let image = reopened(&disk, image);
    assert_eq!(extents(&image, "new/🙂").len(), 2);
    image.next_dirty_extent("old", 0).unwrap_err();
}

#[test]
fn user_data_stays_with_its_bitmap() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    assert_eq!(image.user_data("b").unwrap(), None);
    image.set_user_data("b", Some(b"id \xff\0")).unwrap();
    image.rename_bitmap("b", "c").unwrap();
    image.clear_bitmap("c").unwrap();
    let image = reopened(&disk, image);
    assert_eq!(image.user_data("c").unwrap().unwrap(), b"id \xff\0");
    let error = image.set_user_data("c", Some(&[0; 65_537])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBig);
    image.set_inconsistent("c", "a test").unwrap();
    assert_eq!(image.user_data("c").unwrap().unwrap(), b"id \xff\0");
    assert!(image.set_user_data("c", None).is_err());
    image.user_data("none").unwrap_err();
}

#[test]
fn ranges_are_marked_within_the_disk() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, false).unwrap();
    image.mark_dirty("b", 70_000, 1).unwrap();
    image.mark_dirty("b", MIB, 0).unwrap();
    for (offset, length) in [(MIB, 1), (u64::MAX, 2), (0, MIB + 1)] {
        let error = image.mark_dirty("b", offset, length).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    drop(image); // As a crash does.
    assert_eq!(extents(&disk.activated(), "b"), [(65536, 65536)]);
}

#[test]
fn nothing_of_this_is_done_to_an_image_that_is_read_only() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.inactivate().unwrap();
    drop(image);
    let image = disk.open();
    let activation = Activation {
        size_bytes: MIB,
        read_only: true,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    for result in [
        image.clear_bitmap("b"),
        image.merge_bitmaps("b", &[]),
        image.set_granularity("b", 512),
        image.rename_bitmap("b", "c"),
        image.set_user_data("b", None),
        image.mark_dirty("b", 0, 1),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
}
