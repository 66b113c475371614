// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process ends without closing. Dropping an active image does just that.

use super::*;

fn crashed(durability: Durability) -> Disk {
    let disk = Disk::new(MIB);
    let image = disk.activated_as(durability);
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 70_000, 1);
    disk
}

#[test]
fn process_survives_its_process() {
    let disk = crashed(Durability::Process);
    let image = disk.activated();
    assert_eq!(dirty(&image, "b", 65536), [65536]);
    assert!(notices(&image)[0].contains("not closed cleanly"));
    write(&image, 0, 1);
    drop(image);
    let image = disk.activated();
    assert_eq!(dirty(&image, "b", 65536), [0, 65536], "twice");
}

#[test]
fn close_does_not() {
    let disk = crashed(Durability::Close);
    let image = disk.activated();
    assert!(inconsistent(&image, "b"));
    assert!(notices(&image)[0].contains("durability close"));
    image.inactivate().unwrap();
    drop(image);
    // It stays so, and can be removed.
    let image = disk.activated();
    assert!(inconsistent(&image, "b"));
    image.remove_bitmap("b").unwrap();
    assert_eq!(disk.listing(), ["x.qbm", "x.qbm.raw"]);
}

#[test]
fn process_does_not_survive_the_host() {
    let disk = crashed(Durability::Process);
    let boot_id = OsStorage.boot_id().unwrap();
    disk.edit(&boot_id, "00000000-0000-0000-0000-000000000000");
    let image = disk.activated();
    assert!(inconsistent(&image, "b"));
    assert!(notices(&image)[0].contains("restarted"));
}

#[test]
fn a_bitmap_whose_session_is_elsewhere_is_in_use() {
    let disk = crashed(Durability::Process);
    let options = OpenOptions {
        shared: true,
        ..OpenOptions::default()
    };
    let image = Image::open(Arc::new(OsStorage), &disk.path, options).unwrap();
    let activation = Activation {
        size_bytes: MIB,
        read_only: true,
        durability: None,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    let bitmaps = image.bitmaps();
    assert!(bitmaps[0].in_use && !bitmaps[0].inconsistent);
    image.next_dirty("b", 0).unwrap_err();
}

#[test]
fn a_crash_within_a_resize_costs_nothing() {
    let grow_then_shrink = [(3 * MIB, vec![65536]), (512 * 1024, vec![65536])];
    for (target, mut expected) in grow_then_shrink {
        for moved in [false, true] {
            let disk = Disk::new(MIB);
            let image = disk.activated();
            image.add_bitmap("b", 65536, true).unwrap();
            write(&image, 70_000, 1);
            image.begin_resize(target).unwrap();
            if moved {
                let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
                data.unwrap().set_len(target).unwrap();
            }
            drop(image);
            let image = disk.activated();
            assert!(!inconsistent(&image, "b"), "to {target}, moved {moved}");
            if moved && target > MIB {
                expected.extend((MIB..target).step_by(65536));
            }
            assert_eq!(dirty(&image, "b", 65536), expected);
            image.inactivate().unwrap();
            drop(image);
            assert_eq!(dirty(&disk.activated(), "b", 65536), expected);
        }
    }
}
