// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block device as the data image, where this machine lets us make one.

use std::process::Command;

use super::*;

/// A loop device over a file; gone when dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let mut command = Command::new("losetup");
        let made = command.args(["-f", "--show"]).arg(file).output().ok()?;
        if !made.status.success() {
            return None;
        }
        let path = String::from_utf8(made.stdout).unwrap();
        Some(Self(path.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn a_block_device_is_written_like_a_file() {
    let disk = Disk::new(4 * MIB);
    let raw = disk.file("device");
    fs::write(&raw, vec![7; 4 << 20]).unwrap();
    let Some(device) = Loop::over(&raw) else {
        println!("skipped: no loop device can be made here");
        return;
    };
    let options = CreateOptions {
        size_bytes: 4 * MIB,
        data_file: Some(device.0.to_str().unwrap().to_owned()),
        data_format: "raw".into(),
        durability: None,
        persist_bitmaps: None,
        no_lock: false,
        exclusive: false,
    };
    Image::create(&OsStorage, &disk.file("y.qbm"), &options).unwrap();
    let open = || {
        let path = disk.file("y.qbm");
        let image = Image::open(Arc::new(OsStorage), &path, OpenOptions::default()).unwrap();
        let data = DataImage::activate(&image, &Activation::default()).unwrap();
        (image, data)
    };
    let (image, data) = open();
    image.add_bitmap("b", GRANULARITY, true).unwrap();
    assert_eq!(data.size_bytes(), 4 * MIB);
    data.write(&image, GRANULARITY - 1, b"ab").unwrap();
    // What sectors divide, and what they do not.
    data.write_zeroes(&image, MIB, GRANULARITY, false).unwrap();
    data.write_zeroes(&image, MIB + GRANULARITY, 1, false)
        .unwrap();
    data.write_zeroes(&image, 2 * MIB, GRANULARITY, true)
        .unwrap();
    data.write_zeroes(&image, 2 * MIB + GRANULARITY, 1, true)
        .unwrap();
    data.discard(&image, 3 * MIB, 1).unwrap();
    data.write(&image, 4 * MIB - 1, b"zz").unwrap_err();
    data.write(&image, 4 * MIB - 1, b"z").unwrap();
    data.flush(&image).unwrap();
    let error = data.resize(&image, 2 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let other = OsDataFile::open(&device.0, Access::Read).unwrap();
    other.lock(crate::storage::LockMode::Read).unwrap_err();
    data.inactivate(&image).unwrap();
    drop((image, data));
    let (image, data) = open();
    assert_eq!(dirty(&image), [0, 1, 16, 17, 32, 33, 48, 63]);
    let mut content = vec![0; 4 << 20];
    data.read(0, &mut content).unwrap();
    let mut expected = vec![7; 4 << 20];
    let (granule, mib) = (GRANULARITY as usize, 1 << 20);
    expected[granule - 1..=granule].copy_from_slice(b"ab");
    expected[mib..=mib + granule].fill(0);
    expected[2 * mib..=2 * mib + granule].fill(0);
    expected[4 * mib - 1] = b'z';
    // Advice: the byte may be there or not.
    expected[3 * mib] = content[3 * mib];
    assert!(content == expected);
    data.inactivate(&image).unwrap();
}
