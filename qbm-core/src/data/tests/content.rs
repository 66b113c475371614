// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is read, written and dirty.

use super::*;

#[test]
fn what_is_written_is_read_and_dirty() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    data.write(&image, 3 * GRANULARITY - 1, b"ab").unwrap();
    let mut read = [9; 4];
    data.read(3 * GRANULARITY - 2, &mut read).unwrap();
    assert_eq!(&read, b"\0ab\0");
    data.flush(&image).unwrap();
    data.inactivate(&image).unwrap();
    drop((image, data));
    let (image, data) = disk.begin();
    assert_eq!(dirty(&image), [2, 3]);
    data.read(3 * GRANULARITY, &mut read).unwrap();
    assert_eq!(&read, b"b\0\0\0");
    data.inactivate(&image).unwrap();
    drop((image, data));
    // The seal is of after the last write: nothing was changed behind our back.
    let (image, _data) = disk.begin();
    assert!(!is_inconsistent(&image));
}

#[test]
fn zeroes_and_discards_are_dirty() {
    for place in [std::env::temp_dir(), "/dev/shm".into()] {
        if !place.is_dir() {
            println!("skipped: there is no {}", place.display());
            continue;
        }
        let disk = Disk::new_in(&place, 4 * MIB);
        let (image, data) = disk.begin();
        data.write(&image, 0, &vec![7; 4 << 20]).unwrap();
        image.clear_bitmap("b").unwrap();
        data.write_zeroes(&image, 0, 2 * MIB + 1, false).unwrap();
        assert_eq!(dirty(&image).len(), 33);
        data.write_zeroes(&image, 2 * MIB + GRANULARITY, 1, true)
            .unwrap();
        data.discard(&image, 3 * MIB, MIB).unwrap();
        assert_eq!(dirty(&image).len(), 33 + 1 + 16);
        let content = disk.content();
        let (zeroed, rest) = content.split_at((2 << 20) + 1);
        assert_eq!(content.len(), 4 << 20);
        assert!(zeroed.iter().all(|byte| *byte == 0), "{}", place.display());
        let sevens = rest.iter().filter(|byte| **byte == 7).count() as u64;
        let expected = MIB - 2;
        assert!(sevens == expected || sevens == expected + MIB, "{sevens}");
        data.inactivate(&image).unwrap();
    }
}

#[test]
fn more_than_4_gib_at_once() {
    let disk = Disk::new(6 << 30);
    let (image, data) = disk.begin();
    let last = (6 << 30) - 5;
    data.write(&image, last, b"12345").unwrap();
    data.discard(&image, 1, (6 << 30) - 2).unwrap();
    data.write_zeroes(&image, 1, (6 << 30) - 2, true).unwrap();
    assert_eq!(image.dirty_count("b").unwrap(), (6 << 30) / GRANULARITY);
    let mut read = [9; 5];
    data.read(last, &mut read).unwrap();
    assert_eq!(&read, b"\0\0\0\x005");
}

#[test]
fn the_last_sector_goes_on_behind_the_end_of_the_file() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    data.resize(&image, MIB - 500).unwrap();
    assert_eq!(data.size_bytes(), MIB);
    let mut read = [9; 600];
    data.read(MIB - 600, &mut read).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    data.read(MIB - 1, &mut read[..1]).unwrap();
    for may_unmap in [false, true] {
        data.write_zeroes(&image, MIB - 512, 512, may_unmap)
            .unwrap();
        data.write_zeroes(&image, MIB - 10, 10, may_unmap).unwrap();
    }
    data.discard(&image, MIB - 512, 512).unwrap();
    assert_eq!(disk.content().len() as u64, MIB - 500);
    data.write(&image, MIB - 10, b"x").unwrap();
    assert_eq!(disk.content().len() as u64, MIB - 9);
    data.read(MIB - 11, &mut read[..11]).unwrap();
    assert_eq!(&read[..11], b"\0x\0\0\0\0\0\0\0\0\0");
    data.inactivate(&image).unwrap();
    drop((image, data));
    let (image, _data) = disk.begin();
    assert!(!is_inconsistent(&image));
}

#[test]
fn nothing_moves_beyond_the_disk() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    for (offset, length) in [(MIB, 1), (MIB - 1, 2), (u64::MAX, 2), (MIB + 1, 0)] {
        let mut buffer = vec![1; length as usize];
        let errors = [
            data.read(offset, &mut buffer).unwrap_err(),
            data.write(&image, offset, &buffer).unwrap_err(),
            data.write_zeroes(&image, offset, length, true).unwrap_err(),
            data.discard(&image, offset, length).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
    data.write(&image, MIB, b"").unwrap();
    data.read(MIB, &mut []).unwrap();
    assert!(dirty(&image).is_empty());
    assert_eq!(disk.content().len() as u64, MIB);
}

#[test]
fn a_file_cut_behind_our_back_does_not_read_as_zeros() {
    let disk = Disk::new(MIB);
    let (_image, data) = disk.begin();
    let file = fs::File::options()
        .write(true)
        .open(disk.file("x.qbm.raw"))
        .unwrap();
    file.set_len(MIB / 2).unwrap();
    let error = data.read(MIB - 512, &mut [0; 512]).unwrap_err();
    assert_eq!(error.errno(), libc::EIO, "{error}");
    data.read(0, &mut [0; 512]).unwrap();
}

#[test]
fn a_reader_reads_and_writes_nothing() {
    let disk = Disk::new(MIB);
    let before = fs::read(disk.file("x.qbm")).unwrap();
    let shared = OpenOptions {
        shared: true,
        ..OpenOptions::default()
    };
    for (options, read_only) in [(OpenOptions::default(), true), (shared, false)] {
        let image = disk.open_as(options);
        let activation = Activation {
            read_only,
            ..Activation::default()
        };
        let data = DataImage::activate(&image, &activation).unwrap();
        data.read(0, &mut [0; 512]).unwrap();
        let errors = [
            data.write(&image, 0, b"x").unwrap_err(),
            data.write_zeroes(&image, 0, 1, false).unwrap_err(),
            data.discard(&image, 0, 1).unwrap_err(),
            data.resize(&image, 2 * MIB).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        }
        data.flush(&image).unwrap();
        data.inactivate(&image).unwrap();
        assert_eq!(fs::read(disk.file("x.qbm")).unwrap(), before);
    }
    assert_eq!(disk.content().len() as u64, MIB);
}

#[test]
fn after_the_end_nothing_moves() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    data.inactivate(&image).unwrap();
    let errors = [
        data.read(0, &mut [0]).unwrap_err(),
        data.write(&image, 0, b"x").unwrap_err(),
        data.flush(&image).unwrap_err(),
        data.resize(&image, 0).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.errno(), libc::EBADF, "{error}");
    }
    data.inactivate(&image).unwrap();
    let (other, _) = Disk::new(MIB).begin();
    let error = data.inactivate(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
