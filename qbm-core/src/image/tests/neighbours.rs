// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that are somebody else's stay as they are (I6), whatever a descriptor says.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::*;
use crate::check::{CheckOptions, repair};

/// A directory, and in it a descriptor `x.qbm` with `members` after its version.
struct Street(tempfile::TempDir);

impl Street {
    fn new(members: &str) -> Self {
        let street = Self(tempfile::tempdir().unwrap());
        street.descriptor("x.qbm", members);
        street
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn descriptor(&self, name: impl AsRef<Path>, members: &str) {
        let text = format!(r#"{{"QBM":{{"version":1,{members}}}}}"#);
        fs::write(self.path(name), text).unwrap();
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn activated(&self, size_bytes: u64, data_path: DataPath) -> Image {
        let options = OpenOptions::default();
        let image = Image::open(Arc::new(OsStorage), &self.path("x.qbm"), options).unwrap();
        let activation = Activation {
            size_bytes,
            data_path,
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        image
    }

    fn repaired(&self) {
        let options = CheckOptions::default();
        repair(Arc::new(OsStorage), &self.path("x.qbm"), &options).unwrap();
    }
}

fn image(file: &str, format: &str) -> String {
    format!(r#""image":{{"file":"{file}","format":"{format}"}}"#)
}

fn bitmap(name: &str, file: &str, granularity: u64) -> String {
    format!(r#""{name}":{{"file":"{file}","granularity-bytes":{granularity},"type":"dirty"}}"#)
}

fn with_bitmaps(file: &str, format: &str, bitmaps: &str) -> String {
    format!(r#"{},"bitmaps":{{{bitmaps}}}"#, image(file, format))
}

fn sealed(file: &str, format: &str, size_bytes: u64) -> String {
    let seal = format!(r#""ext-soft-qbm-seal":{{"generation":1,"size-bytes":{size_bytes}}}"#);
    format!("{},{seal}", image(file, format))
}

#[test]
fn a_neighbour_that_a_descriptor_names_as_its_bitmap_is_not_removed() {
    type Change = fn(&Image);
    let changes: [Change; 2] = [
        |image| image.remove_bitmap("b").unwrap(),
        |image| drop(image.clear_bitmap("b")),
    ];
    for change in changes {
        for (name, length) in [("other-vm.raw", 100_000), ("other.key", 1), ("y.bitmap", 7)] {
            let street = Street::new(&with_bitmaps("disk.raw", "raw", &bitmap("b", name, 512)));
            street.file("disk.raw", &[0; 4096]);
            street.file(name, &vec![7; length]);
            change(&street.activated(4096, DataPath::Stored));
            assert!(street.path(name).exists(), "{name}");
        }
    }
}

#[test]
fn the_data_image_in_use_is_no_bitmap_file() {
    let size_bytes = 4096 * 8 * 512;
    for format in ["raw", "qcow2"] {
        let street = Street::new(&with_bitmaps(
            "moved",
            format,
            &bitmap("b", "real.bitmap", 512),
        ));
        street.file("real.bitmap", &[0; 4096]);
        let used = DataPath::File(street.path("real.bitmap"));
        let image = street.activated(size_bytes, used);
        assert!(inconsistent(&image, "b"));
        write(&image, 0, 4096);
        image.remove_bitmap("b").unwrap();
        drop(image);
        assert_eq!(fs::read(street.path("real.bitmap")).unwrap(), [0; 4096]);
    }
}

#[test]
fn a_repair_leaves_the_allocation_bitmap_and_the_backing_image_alone() {
    let allocation = |file: &str| {
        format!(
            r#""a":{{"file":"{file}","granularity-bytes":512,"type":"allocation","backing":{{"file":"base","format":"raw"}}}}"#
        )
    };
    let size_bytes = 8192 * 8 * 512 - 7 * 512;
    let seal = format!(r#""ext-soft-qbm-seal":{{"generation":1,"size-bytes":{size_bytes}}}"#);
    for (alloc, dirty) in [
        ("disk", "own"),
        ("base", "own"),
        ("alloc", "alloc"),
        ("alloc", "base"),
    ] {
        let bitmaps = format!("{},{}", allocation(alloc), bitmap("b", dirty, 512));
        let street = Street::new(&format!(
            "{},{seal}",
            with_bitmaps("disk", "qcow2", &bitmaps)
        ));
        for name in ["disk", "base", "alloc"] {
            street.file(name, &[0xff; 8192]);
        }
        street.file("own", &[0; 8192]);
        street.repaired();
        for name in ["disk", "base", "alloc"] {
            assert_eq!(fs::read(street.path(name)).unwrap(), [0xff; 8192], "{name}");
        }
    }
}

#[test]
fn a_data_image_is_no_orphan_whatever_its_name() {
    let size_bytes = 8192 * 8 * 512;
    let name = "x.qbm.disk.bitmap";
    let street = Street::new(&sealed(name, "qcow2", size_bytes));
    street.file(name, &[1; 8192]);
    street.repaired();
    assert!(street.path(name).exists());

    let street = Street::new(&sealed("mine", "qcow2", size_bytes));
    street.file("mine", b"m");
    street.file(name, &[1; 8192]);
    street.descriptor("y.qbm", &image(name, "qcow2"));
    street.repaired();
    assert!(street.path(name).exists(), "the disk of y.qbm");
}

#[test]
fn what_any_other_descriptor_names_is_no_orphan() {
    let orphan = "x.qbm.b.bitmap";
    let others = [
        ("y.qbm".as_bytes(), r#"{"ext-soft-a":1,"QBM":"#),
        (b"\xff.qbm", r#"{"QBM":"#),
    ];
    for (other, head) in others {
        let street = Street::new(&sealed("disk", "raw", MIB));
        street.file("disk", &vec![0; 1 << 20]);
        street.file(orphan, &[1, 0]);
        let members = with_bitmaps("d", "raw", &bitmap("b", orphan, 65536));
        let text = format!(r#"{head}{{"version":1,{members}}}}}"#);
        fs::write(street.path(std::ffi::OsStr::from_bytes(other)), text).unwrap();
        street.repaired();
        assert!(street.path(orphan).exists());
    }
}

#[test]
fn an_empty_data_image_named_like_the_next_text_is_none() {
    let street = Street::new(&image("x.qbm.new", "raw"));
    street.file("x.qbm.new", b"");
    street.activated(0, DataPath::Stored).inactivate().unwrap();
    assert!(street.path("x.qbm.new").exists());
}

#[test]
fn descriptors_with_names_alike_do_not_share_their_next_texts() {
    // `x.qbm` removed the only whole text of `x.qbm.1`, or opened that disk for its own.
    let street = Street::new(&image("mine", "raw"));
    street.file("mine", &[0; 512]);
    let other = street.path("x.qbm.1");
    Image::create(&OsStorage, &other, &options(MIB)).unwrap();
    let text = fs::read_to_string(&other).unwrap();
    let next = format!("QBM: the next text of a descriptor\n{text}");
    fs::write(street.path("x.qbm.1.new"), next).unwrap();
    fs::write(&other, &text[..text.len() / 2]).unwrap();
    let image = street.activated(512, DataPath::Stored);
    assert!(image.info().data_file.ends_with("mine"));
    image.inactivate().unwrap();
    Image::open(Arc::new(OsStorage), &other, OpenOptions::default()).unwrap();
}

#[test]
fn a_descriptor_opened_by_a_link_is_repaired_under_any_name() {
    let street = Street::new(&image("mine", "raw"));
    street.file("mine", &[0; 512]);
    fs::create_dir(street.path("elsewhere")).unwrap();
    let link = street.path("elsewhere/link.qbm");
    std::os::unix::fs::symlink("../x.qbm", &link).unwrap();
    // All that belongs to a descriptor lies beside the file itself.
    let text = fs::read_to_string(street.path("x.qbm")).unwrap();
    let image = Image::open(Arc::new(OsStorage), &link, OpenOptions::default()).unwrap();
    assert!(
        image.info().data_file == fs::canonicalize(street.path("mine")).unwrap(),
        "names are relative to where it is"
    );
    drop(image);
    let blocked = street.path("x.qbm.new");
    fs::create_dir(&blocked).unwrap();
    let image = Image::open(Arc::new(OsStorage), &link, OpenOptions::default()).unwrap();
    let activation = Activation {
        size_bytes: 512,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    image.inactivate().unwrap();
    assert!(
        fs::read_dir(street.path("elsewhere")).unwrap().count() == 1,
        "no litter there"
    );
    assert_ne!(fs::read_to_string(street.path("x.qbm")).unwrap(), text);
}

#[test]
fn a_directory_is_not_adopted() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("dir")).unwrap();
    let options = CreateOptions {
        data_file: Some("dir".into()),
        ..options(4096)
    };
    let path = directory.path().join("x.qbm");
    let error = Image::create(&OsStorage, &path, &options).unwrap_err();
    assert!(error.to_string().contains("Is a directory"), "{error}");
    assert!(!path.exists());
}

#[test]
fn who_loses_a_race_for_a_new_image_removes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.qbm");
    Image::create(&OsStorage, &path, &options(MIB)).unwrap();
    let winner = Image::open(Arc::new(OsStorage), &path, OpenOptions::default()).unwrap();
    let error = Image::create(&OsStorage, &path, &options(MIB)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(path.exists());
    drop(winner);
}

#[test]
fn a_long_name_opens() {
    // Names for the next text were too long to be looked for, and the image could not even be read.
    let street = Street::new(&image("disk", "raw"));
    let long = "n".repeat(250);
    street.descriptor(&long, &image("disk", "raw"));
    let path = street.path(&long);
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    Image::open(Arc::new(OsStorage), &path, options).unwrap();
}
