// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stored defaults and their change.

use super::*;

const BOTH: Defaults = Defaults {
    durability: Some(Durability::Close),
    persist_bitmaps: Some(PersistBitmaps::All),
};

fn stored(image: &Image) -> (Durability, PersistBitmaps) {
    let info = image.info();
    (info.stored_durability, info.persist_bitmaps)
}

#[test]
fn a_new_image_says_what_it_was_told_to_and_nothing_else() {
    let disk = Disk::new(MIB);
    assert!(!disk.text().contains("persist-bitmaps"));
    assert_eq!(
        stored(&disk.open()),
        (Durability::Process, PersistBitmaps::Marked)
    );
    let all = CreateOptions {
        persist_bitmaps: Some(PersistBitmaps::All),
        ..options(MIB)
    };
    Image::create(&OsStorage, &disk.path, &all).unwrap();
    assert!(
        disk.text()
            .contains("\"ext-soft-qbm-persist-bitmaps\": \"all\"")
    );
    assert_eq!(stored(&disk.open()).1, PersistBitmaps::All);
}

/// FORMAT: X17
#[test]
fn an_image_that_is_closed_is_changed_in_nothing_else() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 0, 1);
    image.inactivate().unwrap();
    drop(image);
    let before = disk.text();
    disk.open().set_defaults(&BOTH).unwrap();
    let image = disk.open();
    assert_eq!(stored(&image), (Durability::Close, PersistBitmaps::All));
    // One at a time leaves the other.
    let marked = Defaults {
        persist_bitmaps: Some(PersistBitmaps::Marked),
        ..Defaults::default()
    };
    image.set_defaults(&marked).unwrap();
    assert_eq!(stored(&image), (Durability::Close, PersistBitmaps::Marked));
    drop(image);
    let seal = |text: &str| {
        let text: serde_json::Value = serde_json::from_str(text).unwrap();
        [
            text["QBM"]["ext-soft-qbm-seal"].clone(),
            text["QBM"]["bitmaps"].clone(),
        ]
    };
    assert_eq!(seal(&disk.text()), seal(&before));
    let image = disk.activated();
    assert_eq!(dirty(&image, "b", 65536), [0]);
    assert!(notices(&image).is_empty());
}

/// FORMAT: X17
#[test]
fn a_session_keeps_its_durability_and_later_ones_have_the_new_one() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    image.set_defaults(&BOTH).unwrap();
    assert_eq!(image.info().durability, Durability::Process);
    assert_eq!(stored(&image), (Durability::Close, PersistBitmaps::All));
    write(&image, 70_000, 1);
    drop(image); // As a crash does: what the session promised holds.
    // A crashed session is no obstacle, and stays on record.
    let image = disk.open();
    image.set_defaults(&BOTH).unwrap();
    assert!(image.info().in_use);
    image
        .activate(&Activation {
            size_bytes: MIB,
            ..Activation::default()
        })
        .unwrap();
    assert_eq!(image.info().durability, Durability::Close);
    assert_eq!(dirty(&image, "b", 65536), [65536]);
}

#[test]
fn a_value_that_is_not_known_is_replaced_only_by_another() {
    let disk = Disk::new(MIB);
    disk.open().set_defaults(&BOTH).unwrap();
    disk.edit("\"all\"", "\"some\"");
    let durability = Defaults {
        durability: Some(Durability::Process),
        ..Defaults::default()
    };
    disk.open().set_defaults(&durability).unwrap();
    assert!(disk.text().contains("\"some\""), "{}", disk.text());
    disk.open().set_defaults(&BOTH).unwrap();
    assert!(!disk.text().contains("\"some\""), "{}", disk.text());
}

#[test]
fn nothing_is_changed_by_who_only_reads() {
    let disk = Disk::new(MIB);
    let before = disk.text();
    let shared = OpenOptions {
        shared: true,
        ..OpenOptions::default()
    };
    let read_only = OpenOptions {
        read_only: true,
        no_lock: true,
        ..OpenOptions::default()
    };
    for how in [shared, read_only] {
        let image = Image::open(Arc::new(OsStorage), &disk.path, how).unwrap();
        let error = image.set_defaults(&BOTH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
    }
    let image = disk.open();
    let activation = Activation {
        size_bytes: MIB,
        read_only: true,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    let error = image.set_defaults(&BOTH).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert_eq!(disk.text(), before);
}
