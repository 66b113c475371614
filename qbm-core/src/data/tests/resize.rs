// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data image grows and shrinks, and the bitmaps follow.

use super::*;

#[test]
fn it_grows_and_shrinks() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    data.resize(&image, MIB + GRANULARITY + 1).unwrap();
    assert_eq!(data.size_bytes(), MIB + GRANULARITY + 512);
    assert_eq!(disk.content().len() as u64, MIB + GRANULARITY + 1);
    assert_eq!(dirty(&image), [16, 17]);
    data.write(&image, MIB + GRANULARITY + 511, b"x").unwrap();
    data.resize(&image, MIB / 2).unwrap();
    assert_eq!((data.size_bytes(), dirty(&image)), (MIB / 2, vec![]));
    data.write(&image, MIB / 2, b"x").unwrap_err();
    data.read(MIB / 2, &mut [0]).unwrap_err();
    data.write(&image, 0, b"x").unwrap();
    data.inactivate(&image).unwrap();
    drop((image, data));
    let (image, data) = disk.begin();
    assert_eq!((data.size_bytes(), dirty(&image)), (MIB / 2, vec![0]));
    data.inactivate(&image).unwrap();
}

#[test]
fn a_cut_within_a_sector_makes_its_rest_zero_and_dirty() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    data.write(&image, 0, &[7; 1 << 20]).unwrap();
    image.clear_bitmap("b").unwrap();
    data.resize(&image, GRANULARITY).unwrap();
    assert!(dirty(&image).is_empty());
    data.resize(&image, GRANULARITY - 1).unwrap();
    assert_eq!(data.size_bytes(), GRANULARITY);
    assert_eq!(dirty(&image), [0]);
    let mut read = [9; 2];
    data.read(GRANULARITY - 2, &mut read).unwrap();
    assert_eq!(read, [7, 0]);
}

#[test]
fn a_size_that_no_disk_can_have() {
    let disk = Disk::new(MIB);
    let (image, data) = disk.begin();
    for size_bytes in [u64::MAX, 1 << 63, 1 << 62] {
        let error = data.resize(&image, size_bytes).unwrap_err();
        assert_eq!(error.errno(), libc::EFBIG, "{error}");
    }
    assert_eq!((data.size_bytes(), dirty(&image)), (MIB, vec![]));
    data.inactivate(&image).unwrap();
}
