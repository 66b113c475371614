// SPDX-License-Identifier: MIT OR Apache-2.0
//! A loaded bitmap and its file, step by step.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files from outside"
)]

use std::fs;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::storage::{Access, OsStorage, Storage};

struct Bitmap {
    path: PathBuf,
    recorder: Recorder,
    _directory: tempfile::TempDir,
}

fn bitmap(bits_count: u64, durability: Durability) -> Bitmap {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let file = OsStorage.create_new(&path).unwrap();
    let granularity = Granularity::new(512).unwrap();
    let recorder = Recorder::create(&path, file, granularity, bits_count, durability).unwrap();
    Bitmap {
        path,
        recorder,
        _directory: directory,
    }
}

fn reload(bitmap: &Bitmap, bits_count: u64) -> Recorder {
    let file = OsStorage.open(&bitmap.path, Access::ReadWrite).unwrap();
    let granularity = Granularity::new(512).unwrap();
    Recorder::load(
        &bitmap.path,
        file,
        granularity,
        bits_count,
        Durability::Process,
    )
    .unwrap()
    .0
}

#[test]
fn in_process_the_file_has_the_bit_before_the_data_moves() {
    let bitmap = bitmap(20, Durability::Process);
    assert_eq!(fs::read(&bitmap.path).unwrap(), [0, 0, 0]);
    assert!(bitmap.recorder.record(512 * 8, 512 * 2));
    assert!(bitmap.recorder.record(1023, 2));
    assert_eq!(fs::read(&bitmap.path).unwrap(), [0b110, 0b11, 0]);
    assert!(bitmap.recorder.record(512 * 19, u64::MAX));
    assert_eq!(fs::read(&bitmap.path).unwrap(), [0b110, 0b11, 0b1000]);
}

#[test]
fn in_close_the_file_has_it_after_a_sync() {
    let bitmap = bitmap(20, Durability::Close);
    assert!(bitmap.recorder.record(512 * 8, 512 * 2));
    assert_eq!(fs::read(&bitmap.path).unwrap(), [0, 0, 0]);
    bitmap.recorder.sync().unwrap();
    assert_eq!(fs::read(&bitmap.path).unwrap(), [0, 0b11, 0]);
}

#[test]
fn bits_come_and_go_in_ranges() {
    let bits_count = 100_000;
    for durability in [Durability::Close, Durability::Process] {
        let bitmap = bitmap(bits_count, durability);
        let whole = bits_count * 512;
        let mut given = vec![0; 12_500];
        given[4095] = 0x80;
        given[4096] = 0x01;
        given[12_499] = 0xff;
        bitmap.recorder.store_bits(0, whole, Some(&given)).unwrap();
        assert_eq!(bitmap.recorder.count(), 10);
        bitmap.recorder.merge_bits(0, 64 * 512, &[1; 8]).unwrap();
        assert_eq!(bitmap.recorder.count(), 18);
        assert_eq!(bitmap.recorder.next_dirty(57 * 512), Some(32767 * 512));
        let mut out = vec![0xaa; 12_500];
        bitmap.recorder.load_bits(0, whole, &mut out).unwrap();
        assert_eq!(&out[..9], &[1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(&out[4095..4097], &[0x80, 0x01]);
        bitmap.recorder.sync().unwrap();
        assert_eq!(fs::read(&bitmap.path).unwrap(), out);
        assert_eq!(reload(&bitmap, bits_count).count(), 18);

        bitmap.recorder.store_bits(0, whole, None).unwrap();
        bitmap.recorder.sync().unwrap();
        assert!(
            fs::read(&bitmap.path)
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

#[test]
fn a_range_must_be_whole_words_and_the_buffer_large_enough() {
    let bitmap = bitmap(100, Durability::Process);
    let mut buffer = [0; 13];
    bitmap
        .recorder
        .load_bits(0, 100 * 512, &mut buffer)
        .unwrap();
    bitmap
        .recorder
        .load_bits(64 * 512, 36 * 512, &mut buffer)
        .unwrap();
    bitmap
        .recorder
        .load_bits(512, 64 * 512, &mut buffer)
        .unwrap_err();
    bitmap
        .recorder
        .load_bits(0, 65 * 512, &mut buffer)
        .unwrap_err();
    bitmap
        .recorder
        .load_bits(0, 100 * 512, &mut buffer[..12])
        .unwrap_err();
    bitmap
        .recorder
        .store_bits(0, 100 * 512, Some(&[0; 12]))
        .unwrap_err();
}

// FORMAT: B4
#[test]
fn padding_of_the_last_byte_stays_zero() {
    let bitmap = bitmap(100, Durability::Process);
    bitmap
        .recorder
        .store_bits(0, 100 * 512, Some(&[0xff; 13]))
        .unwrap();
    assert_eq!(fs::read(&bitmap.path).unwrap()[12], 0x0f);
    fs::write(&bitmap.path, [0xff; 13]).unwrap();
    let damaged = reload(&bitmap, 100);
    assert_eq!(damaged.count(), 100);
    damaged.sync().unwrap();
    assert_eq!(fs::read(&bitmap.path).unwrap()[12], 0x0f);
}

#[test]
fn resizing_cuts_and_grows_file_and_memory_alike() {
    let bitmap = bitmap(70_000, Durability::Process);
    assert!(bitmap.recorder.record(0, u64::MAX));
    for bits_count in [33_001, 90_000, 3, 0, 9] {
        bitmap.recorder.resize(bits_count).unwrap();
        let length = fs::metadata(&bitmap.path).unwrap().len();
        assert_eq!(length, bits_count.div_ceil(8));
        assert_eq!(reload(&bitmap, bits_count).count(), bitmap.recorder.count());
    }
    assert_eq!(bitmap.recorder.count(), 0);
}

// FORMAT: O8
#[test]
fn writers_of_neighbouring_bits_do_not_lose_each_other() {
    // The later of two file writes must not carry an older copy of the byte.
    let bitmap = bitmap(8192, Durability::Process);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let bit = next.fetch_add(1, Ordering::Relaxed);
                    if bit >= 8192 {
                        break;
                    }
                    assert!(bitmap.recorder.record(bit * 512, 512));
                    // What a crash now would leave:
                    let byte = fs::read(&bitmap.path).unwrap()[bit as usize / 8];
                    assert!(byte & 1 << (bit % 8) != 0);
                }
            });
        }
    });
    assert_eq!(fs::read(&bitmap.path).unwrap(), [0xff; 1024]);
}

#[derive(Debug)]
struct FullDisk(Box<dyn StorageFile>);

impl StorageFile for FullDisk {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset_bytes, buffer)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Err(std::io::Error::from_raw_os_error(libc::ENOSPC))
    }
    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }
    fn set_length(&self, length_bytes: u64) -> std::io::Result<()> {
        self.0.set_length(length_bytes)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }
    fn next_data(&self, offset_bytes: u64) -> std::io::Result<Option<(u64, u64)>> {
        self.0.next_data(offset_bytes)
    }
    fn id(&self) -> std::io::Result<crate::storage::FileId> {
        self.0.id()
    }
    fn lock(&self, mode: crate::storage::LockMode) -> std::io::Result<()> {
        self.0.lock(mode)
    }
}

#[test]
fn a_write_that_cannot_be_recorded_is_never_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let file = Box::new(FullDisk(OsStorage.create_new(&path).unwrap()));
    let granularity = Granularity::new(512).unwrap();
    let recorder = Recorder::create(&path, file, granularity, 64, Durability::Process).unwrap();
    assert!(!recorder.record(0, 512));
    assert!(!recorder.record(0, 512), "the bit must not look recorded");
    assert_eq!(recorder.count(), 0);
    recorder.sync().unwrap_err();
}
