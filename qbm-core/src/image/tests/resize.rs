// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk grows and shrinks, by us and behind our back.

use super::*;

fn set_data(disk: &Disk, size_bytes: u64) {
    let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
    data.unwrap().set_len(size_bytes).unwrap();
}

fn resize(disk: &Disk, image: &Image, size_bytes: u64) {
    image.begin_resize(size_bytes).unwrap();
    set_data(disk, size_bytes);
    image.end_resize(size_bytes).unwrap();
}

#[test]
fn bitmaps_follow() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("on", 65536, true).unwrap();
    image.add_bitmap("off", 65536, false).unwrap();
    resize(&disk, &image, MIB + 65536 + 512);
    assert_eq!(
        dirty(&image, "on", 65536),
        [MIB, MIB + 65536],
        "the tail is dirty"
    );
    assert_eq!(dirty(&image, "off", 65536), [0_u64; 0]);
    write(&image, MIB + 65536, 512);
    resize(&disk, &image, 100_352);
    assert_eq!(dirty(&image, "on", 65536), [0_u64; 0]);
    write(&image, 100_351, 1);
    image.inactivate().unwrap();
    drop(image);
    assert_eq!(dirty(&disk.activated(), "on", 65536), [65536]);
    assert_eq!(fs::metadata(disk.file("x.qbm.on.bitmap")).unwrap().len(), 1);
}

#[test]
fn a_resize_that_failed_leaves_the_size() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.begin_resize(2 * MIB).unwrap();
    image.end_resize(MIB).unwrap();
    assert_eq!(dirty(&image, "b", 65536), [0_u64; 0]);
    assert_eq!(image.info().size_bytes, Some(MIB));
}

#[test]
fn grown_behind_our_back_the_tail_is_dirty() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.inactivate().unwrap();
    drop(image);
    set_data(&disk, MIB + 1024);
    assert_eq!(dirty(&disk.activated(), "b", 65536), [MIB]);
}

#[test]
fn shrunk_behind_our_back_bitmaps_are_inconsistent() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.inactivate().unwrap();
    drop(image);
    set_data(&disk, 65536);
    let image = disk.activated();
    assert!(inconsistent(&image, "b"));
    assert!(notices(&image)[0].contains("shrank from 1048576 to 65536"));
}

#[test]
fn a_disk_too_large_for_a_bitmap_is_refused_before_it_grows() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 512, true).unwrap();
    let error = image.begin_resize(1 << 60).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBig);
    assert_eq!(image.info().size_bytes, Some(MIB));
}

/// Something done to an image between the two halves of a resize from 1 to 2 MiB.
fn beside_growth(change: impl FnOnce(&Image)) -> (Disk, Image) {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.add_bitmap("off", 65536, false).unwrap();
    image.begin_resize(2 * MIB).unwrap();
    change(&image);
    let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
    data.unwrap().set_len(2 * MIB).unwrap();
    image.end_resize(2 * MIB).unwrap();
    (disk, image)
}

#[test]
fn what_is_done_to_bitmaps_during_a_resize_does_not_lose_the_tail() {
    // Bitmaps were made for the old size then: the tail came out clean, and a write to it was dropped.
    let changes: [&dyn Fn(&Image); 5] = [
        &|image| image.set_granularity("b", 32768).unwrap(),
        &|image| image.merge_bitmaps("b", &["off"]).unwrap(),
        &|image| image.set_recording("off", true).unwrap(),
        &|image| image.add_bitmap("new", 65536, true).unwrap(),
        &|image| {
            image.clear_bitmap("b").unwrap();
            write(image, 1536 * 1024, 4096);
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let (disk, image) = beside_growth(change);
        let tail_is_dirty = |image: &Image| {
            for bitmap in image.bitmaps().iter().filter(|bitmap| bitmap.recording) {
                let extent = image.next_dirty_extent(&bitmap.name, MIB).unwrap().unwrap();
                let found = (extent.offset_bytes, extent.length_bytes);
                assert_eq!(found, (MIB, MIB), "change {index}: {}", bitmap.name);
            }
        };
        tail_is_dirty(&image);
        drop(image); // As a crash does.
        tail_is_dirty(&disk.activated());
    }
}

#[test]
fn a_resize_that_ends_elsewhere_than_announced_marks_all_that_the_disk_gained() {
    for announced in [2 * MIB, 512 * 1024, MIB] {
        let disk = Disk::new(MIB);
        let image = disk.activated();
        image.add_bitmap("b", 65536, true).unwrap();
        image.begin_resize(announced).unwrap();
        let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
        data.unwrap().set_len(3 * MIB).unwrap();
        image.end_resize(3 * MIB).unwrap();
        let extent = image.next_dirty_extent("b", 0).unwrap().unwrap();
        assert_eq!((extent.offset_bytes, extent.length_bytes), (MIB, 2 * MIB));
    }
}

#[test]
fn while_a_resize_is_under_way_extents_end_with_the_disk() {
    // The tail is marked before it is there: an extent came out at the end of the disk, of no bytes.
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, MIB - 65536, 65536);
    image.begin_resize(2 * MIB).unwrap();
    let extent = image.next_dirty_extent("b", 0).unwrap().unwrap();
    assert_eq!(
        (extent.offset_bytes, extent.length_bytes),
        (MIB - 65536, 65536)
    );
    assert_eq!(
        image
            .next_dirty_extent("b", MIB - 1)
            .unwrap()
            .unwrap()
            .length_bytes,
        1
    );
    assert_eq!(image.next_dirty_extent("b", MIB).unwrap(), None);
    image.clear_bitmap("b").unwrap();
    image.begin_resize(3 * MIB).unwrap();
    assert_eq!(image.next_dirty_extent("b", 0).unwrap(), None);
}
