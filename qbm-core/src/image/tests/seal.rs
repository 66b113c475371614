// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened behind QBM's back is noticed, or it is vouched for (I2).

use super::*;

/// An image with bitmap `b`, dirty at 0, closed cleanly.
fn sealed() -> Disk {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 0, 1);
    image.inactivate().unwrap();
    disk
}

fn activated(disk: &Disk, trust_data: bool, data_path: DataPath) -> Image {
    let image = disk.open();
    let activation = Activation {
        size_bytes: disk.data_bytes(),
        trust_data,
        data_path,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    image
}

fn write_data(disk: &Disk) {
    use std::os::unix::fs::FileExt;
    let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
    data.unwrap().write_all_at(b"foreign", 4096).unwrap();
}

#[test]
fn a_foreign_write_is_noticed_also_right_after_the_close() {
    for _ in 0..10 {
        let disk = sealed();
        write_data(&disk);
        let image = disk.activated();
        assert!(inconsistent(&image, "b"));
        let notices = notices(&image);
        assert!(notices[0].contains("written or replaced"), "{notices:?}");
        image.inactivate().unwrap();
        drop(image);
        // It stays so, whoever vouches for the data afterwards.
        let image = activated(&disk, true, DataPath::Stored);
        assert!(inconsistent(&image, "b"));
    }
}

#[test]
fn after_a_crash_a_foreign_write_cannot_be_told_from_ours() {
    let disk = Disk::new(MIB);
    disk.edit(
        "\"bitmaps\": {}",
        r#""bitmaps": {"b": {"file": "b", "granularity-bytes": 65536, "type": "dirty"}}"#,
    );
    fs::write(disk.file("b"), [0, 0]).unwrap();
    assert!(!inconsistent(&disk.activated(), "b"));
    write_data(&disk);
    // A session has no modification time: until the crash it was the writer who changed it.
    assert!(!inconsistent(&disk.activated(), "b"));
}

#[test]
fn a_swap_and_a_rollback_are_noticed() {
    let disk = sealed();
    let data = disk.file("x.qbm.raw");
    let backup = disk.file("backup");
    fs::copy(&data, &backup).unwrap(); // Gets a time of its own.
    fs::rename(&backup, &data).unwrap();
    assert!(inconsistent(&disk.activated(), "b"));

    let disk = sealed();
    let data = fs::File::options()
        .write(true)
        .open(disk.file("x.qbm.raw"))
        .unwrap();
    data.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(inconsistent(&disk.activated(), "b"));
}

#[test]
fn a_bitmap_file_rolled_back_is_noticed() {
    let disk = sealed();
    let before = fs::read(disk.file("x.qbm.b.bitmap")).unwrap();
    let image = disk.activated();
    write(&image, MIB - 1, 1);
    image.inactivate().unwrap();
    drop(image);
    fs::write(disk.file("x.qbm.b.bitmap"), before).unwrap();
    let image = disk.activated();
    assert!(inconsistent(&image, "b"));
    let notices = notices(&image);
    assert!(notices[0].contains("its CRC-32C is"), "{notices:?}");
}

#[test]
fn padding_counts_where_there_is_a_checksum() {
    let set_padding = |disk: &Disk| fs::write(disk.file("x.qbm.b.bitmap"), [1, 128]).unwrap();
    let new = || {
        let disk = Disk::new(9 * 65536);
        let image = disk.activated();
        image.add_bitmap("b", 65536, true).unwrap();
        write(&image, 0, 1);
        image.inactivate().unwrap();
        disk
    };
    let disk = new();
    set_padding(&disk);
    assert!(inconsistent(&disk.activated(), "b"));

    let disk = new();
    set_padding(&disk);
    let text = disk.text();
    let at = text.find("ext-soft-qbm-crc32c").unwrap();
    fs::write(
        &disk.path,
        text.replacen("ext-soft-qbm-crc32c", "ext-soft-other", 1),
    )
    .unwrap();
    assert!(
        at < text.find("ext-soft-qbm-seal").unwrap(),
        "the bitmap's, not the descriptor's"
    );
    let image = disk.activated();
    assert_eq!(dirty(&image, "b", 65536), [0]);
    image.inactivate().unwrap();
    assert_eq!(fs::read(disk.file("x.qbm.b.bitmap")).unwrap(), [1, 0]);
}

#[test]
fn vouching_leaves_a_trace() {
    let disk = sealed();
    write_data(&disk);
    let image = activated(&disk, true, DataPath::Stored);
    assert_eq!(dirty(&image, "b", 65536), [0]);
    assert!(notices(&image)[0].contains("trusted all the same"));
    image.inactivate().unwrap();
    let text = disk.text();
    assert!(text.contains("ext-soft-qbm-trusted"), "{text}");
    drop(image);
    // Where there is nothing to vouch for there is nothing to trace.
    let image = activated(&disk, true, DataPath::Stored);
    assert!(notices(&image).is_empty());
    image.inactivate().unwrap();
    assert_eq!(disk.text().matches("sealed").count(), 1);
    // The oldest give way.
    drop(image);
    for _ in 0..20 {
        write_data(&disk);
        let image = activated(&disk, true, DataPath::Stored);
        image.inactivate().unwrap();
    }
    assert_eq!(disk.text().matches("sealed").count(), 16);
}

#[test]
fn a_shrunk_image_can_be_vouched_for() {
    let disk = sealed();
    let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
    data.unwrap().set_len(512 * 1024).unwrap();
    let image = activated(&disk, true, DataPath::Stored);
    assert_eq!(dirty(&image, "b", 65536), [0]);
    image.inactivate().unwrap();
    drop(image);
    assert_eq!(dirty(&disk.activated(), "b", 65536), [0]);
}

#[test]
fn where_the_data_image_is_can_be_told() {
    let disk = sealed();
    write_data(&disk);
    assert!(!inconsistent(
        &activated(&disk, false, DataPath::Unknown),
        "b"
    ));

    let disk = sealed();
    let elsewhere = disk.file("elsewhere");
    fs::rename(disk.file("x.qbm.raw"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, disk.file("x.qbm.raw")).unwrap();
    let path = DataPath::File(elsewhere.clone());
    assert!(
        !inconsistent(&activated(&disk, false, path), "b"),
        "moved, not changed"
    );

    let disk = sealed();
    let other = disk.file("other");
    fs::write(&other, "").unwrap();
    assert!(inconsistent(
        &activated(&disk, false, DataPath::File(other)),
        "b"
    ));
    let disk = sealed();
    let missing = DataPath::File(disk.file("missing"));
    assert!(inconsistent(&activated(&disk, false, missing), "b"));
}

#[test]
fn other_formats_and_images_without_a_sealed_time_go_by_size() {
    let disk = sealed();
    disk.edit("\"format\": \"raw\"", "\"format\": \"qcow2\"");
    write_data(&disk);
    assert!(!inconsistent(&disk.activated(), "b"));
}

#[test]
fn a_read_only_open_sees_the_same_and_writes_nothing() {
    let disk = sealed();
    write_data(&disk);
    let before = disk.text();
    let image = disk.open();
    let activation = Activation {
        size_bytes: MIB,
        read_only: true,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    assert!(inconsistent(&image, "b"));
    image.inactivate().unwrap();
    assert_eq!(disk.text(), before);
}

#[test]
fn growth_that_no_bitmap_could_hold_costs_the_bitmap_not_the_memory() {
    // A few bytes of descriptor made an open allocate and write gigabytes.
    let disk = sealed();
    let image = disk.open();
    let activation = Activation {
        size_bytes: 65536 << 34,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    assert!(inconsistent(&image, "b"));
    assert!(notices(&image)[0].contains("grew by"));
    assert_eq!(fs::metadata(disk.file("x.qbm.b.bitmap")).unwrap().len(), 2);
}

#[test]
fn the_generation_stops_at_its_maximum() {
    let disk = sealed();
    let generation = regex_free_generation(&disk.text());
    disk.edit(
        &format!("\"generation\": {generation}"),
        &format!("\"generation\": {}", u64::MAX),
    );
    let image = disk.activated();
    write(&image, 0, 1);
    image.inactivate().unwrap();
    assert!(
        disk.text()
            .contains(&format!("\"generation\": {}", u64::MAX))
    );
}

/// The number after the first `"generation": `.
fn regex_free_generation(text: &str) -> String {
    let (_, rest) = text.split_once("\"generation\": ").unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_data_image_replaced_while_it_is_open_is_not_vouched_for() {
    // The seal took the time of whatever file was found at the close, and the next open found all as it was sealed.
    for present in [true, false] {
        let disk = sealed();
        let image = disk.activated();
        write(&image, 2 * 65536, 1);
        let raw = disk.file("x.qbm.raw");
        let content = fs::read(&raw).unwrap();
        fs::rename(&raw, disk.file("elsewhere")).unwrap();
        if present {
            fs::write(&raw, &content).unwrap();
        }
        image.inactivate().unwrap();
        let notices = notices(&image);
        assert!(notices[0].contains("moved or replaced"), "{notices:?}");
        drop(image);
        fs::write(&raw, content).unwrap();
        assert!(inconsistent(&disk.activated(), "b"));
    }
}

#[test]
fn a_path_is_kept_from_the_root_on() {
    let here = std::env::current_dir().unwrap();
    let path = DataPath::File("disk.raw".into()).absolute().unwrap();
    assert_eq!(path, DataPath::File(here.join("disk.raw")));
}

#[test]
fn a_size_that_was_forgotten_costs_nothing() {
    // It was taken for a disk that had been cut to nothing: every bitmap became inconsistent.
    let disk = sealed();
    let image = disk.open();
    let error = image.activate(&Activation::default()).unwrap_err();
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    drop(image);
    assert!(!inconsistent(&disk.activated(), "b"));
}
