// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is not opened as a data image.

use super::*;

#[test]
fn only_regular_files_and_block_devices() {
    let disk = Disk::new(MIB);
    let fifo = disk.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, errno) in [
        (fifo, libc::EINVAL),
        (disk.directory.path().to_owned(), libc::EISDIR),
        ("/dev/null".into(), libc::EINVAL),
        (disk.file("none"), libc::ENOENT),
    ] {
        let error = disk.refusal(DataPath::File(path.clone()));
        assert_eq!(error.errno(), errno, "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
    let error = disk.refusal(DataPath::Unknown);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn not_the_images_own_files() {
    let disk = Disk::new(MIB);
    let before = fs::read(disk.file("x.qbm.b.bitmap")).unwrap();
    let link = disk.file("link");
    std::os::unix::fs::symlink(disk.file("x.qbm.b.bitmap"), &link).unwrap();
    fs::hard_link(disk.file("x.qbm"), disk.file("hard")).unwrap();
    for name in ["x.qbm", "x.qbm.b.bitmap", "link", "hard"] {
        let error = disk.refusal(DataPath::File(disk.file(name)));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("it is the descriptor or one"));
    }
    assert_eq!(fs::read(disk.file("x.qbm.b.bitmap")).unwrap(), before);
}

#[test]
fn no_other_format() {
    let disk = Disk::new(MIB);
    let text = fs::read_to_string(disk.file("x.qbm")).unwrap();
    let text = text.replace("\"format\": \"raw\"", "\"format\": \"qcow2\"");
    fs::write(disk.file("x.qbm"), text).unwrap();
    let error = disk.refusal(DataPath::Stored);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("image.format: \"qcow2\""));
}

#[test]
fn an_active_image_stays_as_it_is() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    let error = DataImage::activate(&image, &Activation::default()).unwrap_err();
    assert!(error.to_string().contains("active already"), "{error}");
    data.write(&image, 0, b"x").unwrap();
    data.inactivate(&image).unwrap();
}

#[test]
fn locks_exclude_as_qemus_do() {
    let disk = Disk::new(MIB);
    let raw = disk.file("x.qbm.raw");
    let other = |mode, access| {
        let file = OsDataFile::open(&raw, access).unwrap();
        file.lock(mode).map(|()| file)
    };
    use crate::storage::LockMode::{Read, Write};
    // Somebody writes the raw file directly.
    let writer = other(Write, Access::ReadWrite).unwrap();
    let error = disk.refusal(DataPath::Stored);
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("x.qbm.raw"), "{error}");
    drop(writer);
    // Somebody reads it.
    let reader = other(Read, Access::Read).unwrap();
    assert_eq!(disk.refusal(DataPath::Stored).kind(), ErrorKind::Locked);
    let image = disk.open();
    let read_only = Activation {
        read_only: true,
        ..Activation::default()
    };
    let data = DataImage::activate(&image, &read_only).unwrap();
    drop(reader);
    assert!(other(Read, Access::Read).is_ok());
    assert!(other(Write, Access::ReadWrite).is_err());
    data.inactivate(&image).unwrap();
    drop((data, image));
    // We write.
    let (image, data) = disk.begin();
    assert!(other(Read, Access::Read).is_err());
    let shared = disk.open_as(OpenOptions {
        shared: true,
        ..OpenOptions::default()
    });
    DataImage::activate(&shared, &Activation::default()).unwrap();
    data.inactivate(&image).unwrap();
    drop(data);
    assert!(other(Write, Access::ReadWrite).is_ok());
}

#[test]
fn two_images_cannot_write_one_data_image() {
    let (one, two) = (Disk::new(MIB), Disk::new(MIB));
    let (image, data) = one.begin();
    let path = DataPath::File(one.file("x.qbm.raw"));
    assert_eq!(two.refusal(path.clone()).kind(), ErrorKind::Locked);
    // Whoever holds the locks already is believed.
    let unlocked = two.open_as(OpenOptions {
        no_lock: true,
        ..OpenOptions::default()
    });
    let activation = Activation {
        data_path: path,
        ..Activation::default()
    };
    DataImage::activate(&unlocked, &activation).unwrap();
    data.inactivate(&image).unwrap();
}

#[test]
fn a_data_image_replaced_while_it_is_opened() {
    let disk = Disk::new(MIB);
    let image = disk.open();
    let before = fs::read(disk.file("x.qbm")).unwrap();
    let activation = Activation::default();
    let place = prepare(&image, &activation).unwrap();
    let file = OsDataFile::open(&place.path, Access::ReadWrite).unwrap();
    fs::rename(disk.file("x.qbm.raw"), disk.file("old")).unwrap();
    fs::write(disk.file("x.qbm.raw"), vec![0; 1 << 20]).unwrap();
    let result = DataImage::activate_file(&image, &activation, place, Box::new(file));
    assert!(result.unwrap_err().to_string().contains("replaced"));
    assert!(!image.info().active);
    assert_eq!(fs::read(disk.file("x.qbm")).unwrap(), before);
}

#[test]
fn a_data_image_replaced_while_it_is_open_is_not_vouched_for() {
    for is_replaced in [true, false] {
        let disk = Disk::new(MIB);
        let (image, data) = disk.begin();
        fs::rename(disk.file("x.qbm.raw"), disk.file("old")).unwrap();
        if is_replaced {
            fs::write(disk.file("x.qbm.raw"), vec![0; 1 << 20]).unwrap();
        }
        data.inactivate(&image).unwrap();
        drop((image, data));
        if !is_replaced {
            fs::write(disk.file("x.qbm.raw"), vec![0; 1 << 20]).unwrap();
        }
        assert!(is_inconsistent(&disk.begin().0));
    }
}
