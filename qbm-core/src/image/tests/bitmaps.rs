// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps across sessions.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

#[test]
fn a_bitmap_outlives_its_session() {
    for durability in [Durability::Close, Durability::Process] {
        let disk = Disk::new(10 * MIB);
        let image = disk.activated_as(durability);
        image.add_bitmap("b0", 65536, true).unwrap();
        write(&image, 65535, 2);
        write(&image, 10 * MIB - 1, 1);
        image.inactivate().unwrap();
        drop(image);
        assert!(!disk.text().contains("session"), "{}", disk.text());
        let image = disk.activated_as(durability);
        assert_eq!(dirty(&image, "b0", 65536), [0, 65536, 10 * MIB - 65536]);
        assert!(notices(&image).is_empty());
    }
}

#[test]
fn the_session_is_on_record_while_open() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    assert!(disk.text().contains("ext-hard-qbm-session"));
    let shared = OpenOptions {
        shared: true,
        ..OpenOptions::default()
    };
    let beside = Image::open(Arc::new(OsStorage), &disk.path, shared).unwrap();
    assert!(beside.info().in_use);
    image.inactivate().unwrap();
    assert!(!disk.text().contains("ext-hard-qbm-session"));
    assert!(
        image.begin_write(0, 1).is_err(),
        "not open for writing any more"
    );
}

#[test]
fn a_session_in_which_nothing_happened_leaves_the_text_as_it_was() {
    // An attempt to write that fails for other reasons must not change the image.
    let disk = Disk::new(MIB);
    let before = disk.text();
    disk.activated().inactivate().unwrap();
    assert_eq!(disk.text(), before);
    let image = disk.activated();
    write(&image, 0, 1);
    image.inactivate().unwrap();
    assert_ne!(disk.text(), before);
}

#[test]
fn a_removed_bitmap_leaves_nothing() {
    let disk = Disk::new(MIB);
    let before = disk.listing();
    let image = disk.activated();
    image.add_bitmap("b", 512, true).unwrap();
    assert_eq!(disk.listing(), ["x.qbm", "x.qbm.b.bitmap", "x.qbm.raw"]);
    image.remove_bitmap("b").unwrap();
    write(&image, 0, 512);
    assert_eq!(
        image.remove_bitmap("b").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    image.inactivate().unwrap();
    assert_eq!(disk.listing(), before);
}

#[test]
fn a_disabled_bitmap_does_not_record_and_stays_disabled() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("off", 512, false).unwrap();
    image.add_bitmap("on", 512, true).unwrap();
    write(&image, 0, 512);
    image.set_recording("off", true).unwrap();
    image.set_recording("on", false).unwrap();
    write(&image, 1024, 512);
    image.inactivate().unwrap();
    drop(image);
    let image = disk.activated();
    assert_eq!(dirty(&image, "off", 512), [1024]);
    assert_eq!(dirty(&image, "on", 512), [0]);
    let recording: Vec<_> = image.bitmaps().iter().map(|b| b.recording).collect();
    assert_eq!(recording, [true, false]);
}

#[test]
fn a_write_in_flight_is_in_a_bitmap_that_comes() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    let (ticket, _) = image.begin_write(300_000, 10).unwrap();
    image.add_bitmap("b", 65536, true).unwrap();
    assert_eq!(dirty(&image, "b", 65536), [262_144]);
    image.end_write(ticket);
}

#[test]
fn a_bitmap_that_comes_with_bits_is_dirty_until_they_are_stored() {
    // An incoming bitmap was stored empty first: a kill before its bits came left it consistent and wrong.
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_dirty_bitmap("b", 65536, true).unwrap();
    drop(image); // As a crash does.
    let image = disk.activated();
    assert_eq!(image.dirty_count("b").unwrap(), 16);
    image.store_bits("b", 0, MIB, Some(&[4, 0])).unwrap();
    assert_eq!(dirty(&image, "b", 65536), [131_072]);
}

#[test]
fn strange_names_have_plain_files() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    let long = "n".repeat(1023);
    let names = [
        "a/b",
        "../x",
        "a\"b",
        "a\nb",
        "🙂",
        "ü",
        "a_b",
        long.as_str(),
    ];
    for name in names {
        image.add_bitmap(name, 65536, true).unwrap();
    }
    assert_eq!(
        image
            .add_bitmap(&"n".repeat(1024), 65536, true)
            .unwrap_err()
            .kind(),
        ErrorKind::NameTooLong
    );
    write(&image, 0, 1);
    image.inactivate().unwrap();
    drop(image);
    let image = disk.activated();
    for name in names {
        assert_eq!(dirty(&image, name, 65536), [0], "{name}");
        image.remove_bitmap(name).unwrap();
    }
    assert_eq!(disk.listing(), ["x.qbm", "x.qbm.raw"]);
}

#[test]
fn a_thousand_bitmaps() {
    let disk = Disk::new(MIB);
    let image = disk.activated_as(Durability::Close);
    for index in 0..1024 {
        image.add_bitmap(&index.to_string(), 65536, true).unwrap();
    }
    write(&image, 0, MIB);
    image.inactivate().unwrap();
    drop(image);
    assert_eq!(disk.activated().bitmaps().len(), 1024);
}

#[test]
fn read_only_changes_nothing() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 512, true).unwrap();
    write(&image, 0, 512);
    drop(image); // As a crash does.
    let before = disk.text();
    let options = OpenOptions {
        read_only: true,
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
    assert_eq!(dirty(&image, "b", 512), [0], "the recovered view");
    assert_eq!(image.dirty_count("b").unwrap(), 1);
    assert!(!image.bitmap("b").unwrap().in_use);
    assert_eq!(image.bitmap_at(0), image.bitmap("b"));
    assert_eq!((image.bitmap_at(1), image.bitmap("c")), (None, None));
    for error in [
        image.add_bitmap("c", 512, true).unwrap_err(),
        image.remove_bitmap("b").unwrap_err(),
        image.store_bits("b", 0, MIB, None).unwrap_err(),
        image.begin_write(0, 1).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
    }
    image.inactivate().unwrap();
    assert_eq!(disk.text(), before);
}

#[test]
fn a_full_descriptor_is_told_before_a_bitmap_is_added() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    let session_bytes = disk.text().len();
    image.inactivate().unwrap();
    drop(image);
    let allowed = crate::caps::DESCRIPTOR_BYTES_MAX - crate::caps::DESCRIPTOR_RESERVED_BYTES;
    let padding = "x".repeat(allowed as usize - session_bytes - 512);
    let member = format!("\"version\": 1, \"ext-soft-padding\": \"{padding}\"");
    disk.edit("\"version\": 1", &member);
    let image = disk.activated();
    let name = "n".repeat(1023);
    let told = image.can_add_bitmap(&name, 65536).unwrap_err();
    let failed = image.add_bitmap(&name, 65536, true).unwrap_err();
    assert_eq!(
        (told.kind(), failed.kind()),
        (ErrorKind::TooBig, ErrorKind::TooBig)
    );
}

fn added(name: &str, all_dirty: bool) -> BitmapChange<'_> {
    BitmapChange::Add {
        name,
        granularity_bytes: 65536,
        recording: true,
        all_dirty,
    }
}

#[test]
fn several_changes_are_one() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    for name in ["gone", "off", "on"] {
        image.add_bitmap(name, 65536, name != "on").unwrap();
    }
    image.add_bitmap("lost", 65536, true).unwrap();
    image.set_inconsistent("lost", "for the test").unwrap();
    let (ticket, _) = image.begin_write(300_000, 10).unwrap();
    let changes = [
        added("new", false),
        BitmapChange::Remove { name: "gone" },
        BitmapChange::SetRecording {
            name: "off",
            recording: false,
        },
        added("full", true),
        BitmapChange::Remove { name: "lost" },
        BitmapChange::SetRecording {
            name: "on",
            recording: true,
        },
    ];
    image.change_bitmaps(&changes).unwrap();
    image.end_write(ticket);
    write(&image, 0, 512);
    drop(image); // As a crash does.
    let image = disk.activated();
    let bitmaps = image.bitmaps();
    let listed = bitmaps.iter().map(|b| (b.name.as_str(), b.recording));
    let expected = [("off", false), ("on", true), ("new", true), ("full", true)];
    assert_eq!(listed.collect::<Vec<_>>(), expected);
    assert_eq!(dirty(&image, "off", 65536), [262_144]);
    assert_eq!(dirty(&image, "on", 65536), [0, 262_144]);
    assert_eq!(dirty(&image, "new", 65536), [0, 262_144]);
    assert_eq!(image.dirty_count("full").unwrap(), 16);
    assert!(!disk.file("x.qbm.gone.bitmap").exists());
    assert!(!disk.file("x.qbm.lost.bitmap").exists());
}

#[test]
fn of_several_changes_that_cannot_all_be_made_none_is() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.add_bitmap("frozen", 65536, true).unwrap();
    image.freeze_bitmap("frozen").unwrap();
    let (bitmaps, files) = (image.bitmaps(), disk.listing());
    let off = |name| BitmapChange::SetRecording {
        name,
        recording: false,
    };
    let coarse = BitmapChange::Add {
        name: "odd",
        granularity_bytes: 1000,
        recording: true,
        all_dirty: false,
    };
    for (last, kind) in [
        (BitmapChange::Remove { name: "absent" }, ErrorKind::NotFound),
        (BitmapChange::Remove { name: "frozen" }, ErrorKind::Busy),
        (off("absent"), ErrorKind::NotFound),
        (off("frozen"), ErrorKind::Busy),
        (off("b"), ErrorKind::Invalid),
        (added("new", true), ErrorKind::Invalid),
        (added("frozen", true), ErrorKind::Exists),
        (coarse, ErrorKind::Invalid),
    ] {
        let changes = [added("new", true), BitmapChange::Remove { name: "b" }, last];
        let error = image.change_bitmaps(&changes).unwrap_err();
        assert_eq!(error.kind(), kind, "{last:?}: {error}");
        assert_eq!(image.bitmaps(), bitmaps, "{last:?}");
        assert_eq!(disk.listing(), files, "{last:?}");
    }
    write(&image, 0, 512);
    assert_eq!(dirty(&image, "b", 65536), [0]);
    image.inactivate().unwrap();
    let changes = [BitmapChange::Remove { name: "b" }];
    let error = image.change_bitmaps(&changes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    let before = fs::metadata(&disk.path).unwrap();
    image.change_bitmaps(&[]).unwrap();
    let on = BitmapChange::SetRecording {
        name: "b",
        recording: true,
    };
    image.change_bitmaps(&[on]).unwrap();
    let after = fs::metadata(&disk.path).unwrap();
    let identity = |metadata: &fs::Metadata| (metadata.ino(), metadata.modified().unwrap());
    assert_eq!(identity(&before), identity(&after));
}

#[test]
fn bitmaps_are_the_same_ones_by_a_link() {
    // The descriptor was found through a link, its bitmap files were looked for beside the link: all were lost.
    let disk = Disk::new(MIB);
    fs::create_dir(disk.file("links")).unwrap();
    let link = disk.file("links/y.qbm");
    std::os::unix::fs::symlink("../x.qbm", &link).unwrap();
    let by_link = || {
        let image = Image::open(Arc::new(OsStorage), &link, OpenOptions::default()).unwrap();
        let activation = Activation {
            size_bytes: MIB,
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        image
    };
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.inactivate().unwrap();
    drop(image);
    let image = by_link();
    write(&image, 65536, 1);
    image.add_bitmap("c", 65536, true).unwrap();
    image.inactivate().unwrap();
    drop(image);
    let image = disk.activated();
    assert_eq!(dirty(&image, "b", 65536), [65536]);
    assert!(dirty(&image, "c", 65536).is_empty());
    assert_eq!(fs::read_dir(disk.file("links")).unwrap().count(), 1);
    image.inactivate().unwrap();
    drop(image);
    // What is made by the link is made where it leads to.
    fs::write(&disk.path, "").unwrap();
    let created = Image::create(&OsStorage, &link, &options(MIB)).unwrap();
    let directory = fs::canonicalize(disk.directory.path()).unwrap();
    assert_eq!(created.data_file.parent(), Some(directory.as_path()));
    let adopting = CreateOptions {
        data_file: Some("x.qbm.raw".into()),
        ..options(MIB)
    };
    let created = Image::create(&OsStorage, &link, &adopting).unwrap();
    assert_eq!(created.data_file, directory.join("x.qbm.raw"));
}

#[test]
fn a_bitmap_file_is_for_those_who_may_use_its_descriptor() {
    // A bitmap that root had added could not be opened by the user whose image it was, which cost it.
    let disk = Disk::new(MIB);
    let image = disk.activated();
    for mode in [0o600, 0o664] {
        fs::set_permissions(&disk.path, fs::Permissions::from_mode(mode)).unwrap();
        image.add_bitmap("b", 65536, true).unwrap();
        let made = fs::metadata(disk.file("x.qbm.b.bitmap")).unwrap();
        assert_eq!(made.mode() & 0o777, mode);
        image.remove_bitmap("b").unwrap();
    }
}

#[test]
fn who_finds_the_image_as_it_was_left_is_told() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    assert!(image.info().continued, "as it was created");
    image.add_bitmap("b", 65536, true).unwrap();
    image.inactivate().unwrap();
    let left = image.info().generation;
    let other = || {
        drop(disk.open());
        let other = disk.activated();
        write(&other, 0, 1);
        other
    };
    drop(image);
    let image = disk.activated();
    assert!(image.info().continued);
    assert_eq!(image.info().generation, left);
    image.inactivate().unwrap();
    drop(image);
    let another = other();
    another.inactivate().unwrap();
    drop(another);
    let image = disk.activated();
    assert!(image.info().continued);
    assert_ne!(image.info().generation, left);
    image.inactivate().unwrap();
    drop(image);
    drop(other()); // As a crash does.
    let image = disk.activated();
    assert!(!image.info().continued);
    image.inactivate().unwrap();
    drop(image);
    fs::write(disk.file("x.qbm.raw"), vec![1; MIB as usize]).unwrap();
    assert!(!disk.activated().info().continued);
}

#[test]
fn who_left_an_image_learns_of_a_change_that_another_found() {
    // Without a bitmap that it cost, a broken seal was replaced by one of the same generation.
    for crashed in [false, true] {
        let disk = Disk::new(MIB);
        let image = disk.activated();
        image.inactivate().unwrap();
        let left = image.info().generation;
        drop(image);
        if crashed {
            drop(disk.activated_as(Durability::Close));
        } else {
            fs::write(disk.file("x.qbm.raw"), vec![1; MIB as usize]).unwrap();
        }
        disk.activated().inactivate().unwrap();
        let image = disk.activated();
        assert!(image.info().continued);
        assert_ne!(image.info().generation, left, "crashed: {crashed}");
    }
}
