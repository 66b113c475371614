// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data image that fails, in the hands of an engine that must not.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::*;
use crate::storage::{FileId, LockMode};

type Hook = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// Asks before it does anything that changes the data image.
struct Asking {
    file: OsDataFile,
    hook: Arc<Mutex<Hook>>,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Asking").finish_non_exhaustive()
    }
}

impl Asking {
    fn ask(&self, what: &str) -> io::Result<()> {
        (*self.hook.lock().unwrap_or_else(PoisonError::into_inner))(what)
    }
}

impl DataFile for Asking {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset_bytes, buffer)
    }
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.ask("write")?;
        self.file.write_at(offset_bytes, data)
    }
    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
    ) -> io::Result<()> {
        self.ask("zeroes")?;
        self.file
            .write_zeroes(offset_bytes, length_bytes, may_unmap)
    }
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.ask("discard")?;
        self.file.discard(offset_bytes, length_bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.ask("length")?;
        self.file.set_length(length_bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.ask("sync")?;
        self.file.sync()
    }
    fn is_regular(&self) -> bool {
        self.file.is_regular()
    }
    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }
    fn lock(&self, mode: LockMode) -> io::Result<()> {
        self.file.lock(mode)
    }
}

fn begin(disk: &Disk, hook: Hook) -> (Image, DataImage, Arc<Mutex<Hook>>) {
    let image = disk.open();
    let activation = Activation::default();
    let place = prepare(&image, &activation).unwrap();
    let hook = Arc::new(Mutex::new(hook));
    let file = Asking {
        file: OsDataFile::open(&place.path, Access::ReadWrite).unwrap(),
        hook: Arc::clone(&hook),
    };
    let data = DataImage::activate_file(&image, &activation, place, Box::new(file)).unwrap();
    (image, data, hook)
}

fn failing(what: &'static str, errno: i32) -> Hook {
    Box::new(move |asked| {
        if asked == what {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    })
}

#[test]
fn a_failed_write_is_told_and_dirty_and_the_image_closes() {
    for errno in [libc::ENOSPC, libc::EIO] {
        for what in ["write", "zeroes", "discard"] {
            let disk = Disk::new(MIB);
            let (image, data, hook) = begin(&disk, failing(what, errno));
            let error = match what {
                "write" => data.write(&image, GRANULARITY, b"x"),
                "zeroes" => data.write_zeroes(&image, GRANULARITY, 1, false),
                _ => data.discard(&image, GRANULARITY, 1),
            };
            let error = error.unwrap_err();
            assert_eq!(error.errno(), errno, "{error}");
            assert!(error.to_string().contains("x.qbm.raw"), "{error}");
            assert!(image.is_idle(), "{what}: the write has ended");
            *hook.lock().unwrap() = Box::new(|_| Ok(()));
            data.write(&image, 5 * GRANULARITY, b"x").unwrap();
            data.inactivate(&image).unwrap();
            drop((image, data));
            assert_eq!(dirty(&disk.begin().0), [1, 5], "{what}");
        }
    }
}

#[test]
fn a_write_that_panics_has_ended() {
    let disk = Disk::new(MIB);
    let (image, data, hook) = begin(&disk, Box::new(|_| panic!("for the test")));
    let write = || data.write(&image, 0, b"x");
    catch_unwind(AssertUnwindSafe(write)).unwrap_err();
    assert!(image.is_idle());
    *hook.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(|_| Ok(()));
    assert_eq!(dirty(&image), [0]);
    // What holds the gate was let go.
    data.resize(&image, 2 * MIB).unwrap();
    data.inactivate(&image).unwrap();
}

#[test]
fn bits_are_in_the_file_before_data_moves() {
    let disk = Disk::new(MIB);
    let bitmap = disk.file("x.qbm.b.bitmap");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let hook = move |what: &str| {
        let bits = fs::read(&bitmap).unwrap();
        sees.lock().unwrap().push((what.to_owned(), bits));
        Ok(())
    };
    let (image, data, _hook) = begin(&disk, Box::new(hook));
    data.write(&image, 0, b"x").unwrap();
    data.write_zeroes(&image, GRANULARITY, 1, true).unwrap();
    data.discard(&image, 9 * GRANULARITY, 1).unwrap();
    data.resize(&image, 2 * MIB).unwrap();
    let seen = seen.lock().unwrap();
    let expected = [
        ("write".to_owned(), vec![1, 0]),
        ("zeroes".to_owned(), vec![3, 0]),
        ("discard".to_owned(), vec![3, 2]),
        ("length".to_owned(), vec![3, 2, 255, 255]),
    ];
    assert_eq!(*seen, expected);
}

#[test]
fn a_failed_sync_is_final_and_costs_the_bitmaps() {
    let disk = Disk::new(MIB);
    let (image, data, hook) = begin(&disk, failing("sync", libc::ENOSPC));
    data.write(&image, 0, b"x").unwrap();
    assert_eq!(data.flush(&image).unwrap_err().errno(), libc::ENOSPC);
    assert!(is_inconsistent(&image));
    *hook.lock().unwrap() = Box::new(|_| Ok(()));
    image.remove_bitmap("b").unwrap();
    image.add_bitmap("b", GRANULARITY, true).unwrap();
    data.write(&image, 0, b"x").unwrap();
    assert_eq!(data.flush(&image).unwrap_err().errno(), libc::ENOSPC);
    let error = data.inactivate(&image).unwrap_err();
    assert_eq!(error.errno(), libc::ENOSPC, "{error}");
    assert!(!image.info().active);
    drop((image, data));
    let (image, _data) = disk.begin();
    assert!(is_inconsistent(&image));
}

#[test]
fn a_flush_beside_one_that_fails_fails_too() {
    // The system tells of a lost write once: the flush that asked second was told that all is durable.
    let disk = Disk::new(MIB);
    let (started, is_started) = std::sync::mpsc::channel();
    let mut is_first = true;
    let hook = Box::new(move |asked: &str| {
        if asked == "sync" && std::mem::take(&mut is_first) {
            started.send(()).unwrap();
            // Time for the other to begin; whether it does, either is right.
            std::thread::sleep(std::time::Duration::from_millis(50));
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    });
    let (image, data, _hook) = begin(&disk, hook);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| data.flush(&image));
        is_started.recv().unwrap();
        data.flush(&image).unwrap_err();
        first.join().unwrap().unwrap_err();
    });
}

#[test]
fn a_sync_that_fails_at_the_end_is_told() {
    let disk = Disk::new(MIB);
    let (image, data, _hook) = begin(&disk, failing("sync", libc::EIO));
    assert_eq!(data.inactivate(&image).unwrap_err().errno(), libc::EIO);
    drop((image, data));
    let (image, data) = disk.begin();
    assert!(is_inconsistent(&image));
    assert!(!image.info().in_use);
    data.inactivate(&image).unwrap();
}

#[test]
fn a_failed_resize_changes_nothing() {
    let disk = Disk::new(MIB);
    let (image, data, _hook) = begin(&disk, failing("length", libc::EFBIG));
    for size_bytes in [2 * MIB, MIB / 2] {
        let error = data.resize(&image, size_bytes).unwrap_err();
        assert_eq!(error.errno(), libc::EFBIG, "{error}");
        assert_eq!(data.size_bytes(), MIB);
        assert_eq!(image.info().size_bytes, Some(MIB));
        data.write(&image, MIB - 1, b"x").unwrap();
        data.write(&image, MIB, b"x").unwrap_err();
    }
    data.inactivate(&image).unwrap();
    drop((image, data));
    assert_eq!(dirty(&disk.begin().0), [15]);
}
