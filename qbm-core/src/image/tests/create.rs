// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making images: what appears, what is left alone.

use super::*;

#[test]
fn a_descriptor_and_a_sparse_data_image() {
    let disk = Disk::new((64 << 30) + 1);
    assert_eq!(disk.listing(), ["x.qbm", "x.qbm.raw"]);
    assert_eq!(disk.data_bytes(), (64 << 30) + 512);
    let info = disk.open().info();
    assert_eq!(info.size_bytes, Some((64 << 30) + 512));
    assert_eq!(
        (info.data_file, info.data_format),
        (disk.file("x.qbm.raw"), "raw".into())
    );
    assert!(disk.text().contains("\"version\": 1"));
}

#[test]
fn a_derived_name_that_is_taken_is_left_alone() {
    // Tests and people rename a descriptor and make a new one of the same name.
    let disk = Disk::new(MIB);
    fs::write(disk.file("x.qbm.raw"), "precious").unwrap();
    fs::rename(&disk.path, disk.file("renamed.qbm")).unwrap();
    let created = Image::create(&OsStorage, &disk.path, &options(MIB)).unwrap();
    assert_eq!(created.data_file, disk.file("x.qbm.1.raw"));
    assert!(created.data_file_name_was_taken);
    assert_eq!(fs::read(disk.file("x.qbm.raw")).unwrap(), b"precious");
}

#[test]
fn an_adopted_image_is_not_touched() {
    let disk = Disk::new(MIB);
    fs::write(disk.file("disk.raw"), "precious").unwrap();
    let before = fs::metadata(disk.file("disk.raw"))
        .unwrap()
        .modified()
        .unwrap();
    let adopt = CreateOptions {
        data_file: Some("disk.raw".into()),
        ..options(8)
    };
    Image::create(&OsStorage, &disk.file("y.qbm"), &adopt).unwrap();
    let metadata = fs::metadata(disk.file("disk.raw")).unwrap();
    assert_eq!((metadata.len(), metadata.modified().unwrap()), (8, before));
}

#[test]
fn what_is_no_descriptor_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    fs::write(&path, "a guest's disk").unwrap();
    let error = Image::create(&OsStorage, &path, &options(MIB)).unwrap_err();
    assert!(
        error.to_string().contains("is not a QBM descriptor"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"a guest's disk");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn an_image_cannot_adopt_its_own_descriptor() {
    let disk = Disk::new(MIB);
    fs::hard_link(&disk.path, disk.file("link")).unwrap();
    let before = disk.text();
    for file in ["x.qbm", "./x.qbm", "link"] {
        let adopt = CreateOptions {
            data_file: Some(file.into()),
            ..options(MIB)
        };
        let error = Image::create(&OsStorage, &disk.path, &adopt).unwrap_err();
        assert!(error.to_string().contains("same file"), "{error}");
    }
    assert_eq!(disk.text(), before);
}

#[test]
fn nothing_is_left_after_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.qbm");
    for bad in [
        CreateOptions {
            data_file: Some("absent.raw".into()),
            ..options(MIB)
        },
        CreateOptions {
            data_format: "qcow2".into(),
            ..options(MIB)
        },
        CreateOptions {
            data_format: "a b".into(),
            ..options(MIB)
        },
        options(u64::MAX),
        // Beyond what any file system here holds.
        options(i64::MAX as u64 - 511),
    ] {
        Image::create(&OsStorage, &path, &bad).unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn an_image_that_is_open_is_not_replaced() {
    let disk = Disk::new(MIB);
    let _open = disk.open();
    let error = Image::create(&OsStorage, &disk.path, &options(MIB)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let second = Image::open(Arc::new(OsStorage), &disk.path, OpenOptions::default());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Locked);
}

#[test]
fn the_size_of_an_adopted_file_is_the_files() {
    // Any size was taken, and the first session found the disk cut, or grown.
    let disk = Disk::new(MIB);
    fs::write(disk.file("disk.raw"), vec![0; 1000]).unwrap();
    let create = |size_bytes: u64, format: &str| {
        let adopt = CreateOptions {
            data_file: Some("disk.raw".into()),
            data_format: format.into(),
            ..options(size_bytes)
        };
        Image::create(&OsStorage, &disk.file("y.qbm"), &adopt)
    };
    let error = create(4096, "raw").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(
        text.contains("disk.raw") && text.contains("4096") && text.contains("1024"),
        "{text}"
    );
    assert!(!disk.file("y.qbm").exists());
    create(4096, "qcow2").unwrap();
    for size_bytes in [0, 1000, 1024] {
        create(size_bytes, "raw").unwrap();
        let image = Image::open(
            Arc::new(OsStorage),
            &disk.file("y.qbm"),
            OpenOptions::default(),
        );
        assert_eq!(image.unwrap().info().size_bytes, Some(1024));
    }
}

#[test]
fn a_disk_is_told_from_a_descriptor() {
    // "at most 16777216 bytes" was all that was said of it.
    let disk = Disk::new(64 * MIB);
    let raw = disk.file("x.qbm.raw");
    let error = Image::open(Arc::new(OsStorage), &raw, OpenOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("not a QBM descriptor"),
        "{error}"
    );
}

#[test]
fn what_is_there_is_not_replaced_by_who_does_not_want_to() {
    let disk = Disk::new(MIB);
    fs::write(disk.file("empty"), "").unwrap();
    let before = disk.text();
    for name in ["x.qbm", "empty"] {
        let exclusive = CreateOptions {
            exclusive: true,
            ..options(MIB)
        };
        let error = Image::create(&OsStorage, &disk.file(name), &exclusive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
    }
    assert_eq!(disk.text(), before);
    assert_eq!(disk.listing(), ["empty", "x.qbm", "x.qbm.raw"]);
}

#[test]
fn a_data_image_alone_is_made_where_a_descriptor_could_be() {
    let disk = Disk::new(MIB);
    let text = disk.text();
    let make = |path: &Path| Image::create_data(&OsStorage, path, &options(1000));
    for (path, name) in [("x.qbm", "x.qbm.1.raw"), ("y.qbm", "y.qbm.raw")] {
        let created = make(&disk.file(path)).unwrap();
        assert_eq!(created.data_file, disk.file(name));
        assert_eq!(created.data_file_name_was_taken, path == "x.qbm");
        assert_eq!(fs::metadata(disk.file(name)).unwrap().len(), 1024);
    }

    let listing = disk.listing();
    let error = make(&disk.file("x.qbm.raw")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    make(&disk.file("x.qbm/y.qbm")).unwrap_err();
    make(disk.directory.path()).unwrap_err();
    let open = disk.open();
    assert_eq!(make(&disk.path).unwrap_err().kind(), ErrorKind::Locked);
    drop(open);
    for options in [
        CreateOptions {
            data_file: Some("x.qbm.raw".into()),
            ..options(MIB)
        },
        CreateOptions {
            data_format: "qcow2".into(),
            ..options(MIB)
        },
        options(u64::MAX),
    ] {
        Image::create_data(&OsStorage, &disk.file("z.qbm"), &options).unwrap_err();
    }
    assert_eq!((disk.listing(), disk.text()), (listing, text));
}

#[test]
fn a_data_image_elsewhere_is_stored_as_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.qbm");
    let remote = CreateOptions {
        data_file: Some("nbd://host/disk".into()),
        ..options(MIB)
    };
    Image::create(&OsStorage, &path, &remote).unwrap_err();
    Image::create_over_remote(&OsStorage, &path, &remote).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let image = Image::open(Arc::new(OsStorage), &path, OpenOptions::default()).unwrap();
    let info = image.info();
    assert_eq!(info.data_file, directory.path().join("nbd://host/disk"));
    assert_eq!(info.size_bytes, Some(MIB));
    Image::create_over_remote(&OsStorage, &path, &options(MIB)).unwrap_err();
}
