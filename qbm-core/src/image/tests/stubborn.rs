// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that fails, or takes its time, at a chosen moment.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Condvar;
use std::time::Duration;

use super::*;
use crate::DataImage;
use crate::storage::{Access, FileId, LockMode, Metadata, StorageFile};

/// Long enough for anything that does not wait for somebody else.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Moods {
    /// Writes to bitmap files arrive in part, then fail.
    tears_writes: bool,
    /// Syncs of bitmap files wait until this is over.
    holds_syncs: bool,
    syncs_held: usize,
    /// A held sync lost its patience.
    gave_up: bool,
    /// Data images cannot be looked at.
    hides_data: bool,
    /// The descriptor's text arrives, then its sync fails.
    pub(super) fails_descriptor_syncs: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Stubborn(Arc<(Mutex<Moods>, Condvar)>);

#[derive(Debug)]
struct StubbornFile {
    disk: Stubborn,
    file: Box<dyn StorageFile>,
    is_bitmap: bool,
    is_descriptor: bool,
}

impl Stubborn {
    fn moods(&self) -> MutexGuard<'_, Moods> {
        self.0.0.lock().unwrap()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Moods)) {
        change(&mut self.moods());
        self.0.1.notify_all();
    }

    fn wait_while(&self, condition: impl FnMut(&mut Moods) -> bool) -> bool {
        let waited = self
            .0
            .1
            .wait_timeout_while(self.moods(), PATIENCE, condition);
        !waited.unwrap().1.timed_out()
    }

    fn wrap(&self, path: &Path, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(StubbornFile {
            disk: self.clone(),
            file,
            is_bitmap: path.extension().is_some_and(|suffix| suffix == "bitmap"),
            is_descriptor: path.extension().is_some_and(|suffix| suffix == "qbm"),
        })
    }

    pub(super) fn image(&self, disk: &Disk) -> Image {
        let storage = Arc::new(self.clone());
        let image = Image::open(storage, &disk.path, OpenOptions::default()).unwrap();
        let activation = Activation {
            size_bytes: disk.data_bytes(),
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        image
    }
}

impl Storage for Stubborn {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.wrap(path, OsStorage.open(path, access)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.wrap(path, OsStorage.create_new(path)?))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        if self.moods().hides_data && path.extension().is_some_and(|suffix| suffix == "raw") {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        OsStorage.metadata(path)
    }

    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata> {
        OsStorage.settled_metadata(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        OsStorage.list(directory)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsStorage.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        OsStorage.sync_directory(directory)
    }

    fn boot_id(&self) -> io::Result<String> {
        OsStorage.boot_id()
    }
}

impl StorageFile for StubbornFile {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        if self.is_bitmap && self.disk.moods().tears_writes {
            self.file.write_at(offset_bytes, &data[..data.len() / 2])?;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.write_at(offset_bytes, data)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_length(length_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_bitmap && self.disk.moods().holds_syncs {
            self.disk.change(|moods| moods.syncs_held += 1);
            if !self.disk.wait_while(|moods| moods.holds_syncs) {
                self.disk.change(|moods| moods.gave_up = true);
            }
        }
        if self.is_descriptor && self.disk.moods().fails_descriptor_syncs {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.sync_data()
    }

    fn next_data(&self, offset_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        self.file.next_data(offset_bytes)
    }

    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }

    fn lock(&self, mode: LockMode) -> io::Result<()> {
        self.file.lock(mode)
    }
}

#[test]
fn a_write_is_not_let_through_by_a_bit_that_a_failed_write_took_from_the_file() {
    // Storing zeros failed half-way: the file had lost the bit, memory had not, and the next write was let through.
    let disk = Disk::new(MIB);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    image.add_bitmap("b", 512, true).unwrap();
    write(&image, 0, 512);
    stubborn.change(|moods| moods.tears_writes = true);
    image.store_bits("b", 0, MIB, None).unwrap_err();
    stubborn.change(|moods| moods.tears_writes = false);
    let (ticket, begun) = image.begin_write(0, 512).unwrap();
    if begun == Begun::MustWait {
        image.wait_write().unwrap();
    }
    image.end_write(ticket);
    drop(image); // As a crash does.
    let image = disk.activated();
    assert!(inconsistent(&image, "b") || dirty(&image, "b", 512) == [0]);
}

#[test]
fn a_write_does_not_wait_for_the_sync_of_another_operation() {
    // Clearing held the lock that recording takes while it waited for the disk.
    let disk = Disk::new(MIB);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    image.add_bitmap("b", 512, true).unwrap();
    stubborn.change(|moods| moods.holds_syncs = true);
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| image.clear_bitmap("b").unwrap());
        assert!(stubborn.wait_while(|moods| moods.syncs_held == 0));
        write(&image, 4096, 512);
        stubborn.change(|moods| moods.holds_syncs = false);
        clearing.join().unwrap();
    });
    assert!(!stubborn.moods().gave_up, "the write waited for the sync");
    assert_eq!(dirty(&image, "b", 512), [4096]);
}

#[test]
fn what_a_clean_close_made_durable_is_not_synced_again() {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    image.add_bitmap("b", 512, true).unwrap();
    image.inactivate().unwrap();
    drop(image);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    stubborn.change(|moods| moods.holds_syncs = true);
    image.inactivate().unwrap();
    assert_eq!(stubborn.moods().syncs_held, 0);
}

#[test]
fn what_is_marked_is_found_whichever_text_a_crash_brings_back() {
    // After a change that failed, marked and merged bits went to the one file; the other text named the other.
    type Change = fn(&Image) -> Result<()>;
    let changes: [Change; 3] = [
        |image| image.clear_bitmap("b"),
        |image| image.set_granularity("b", 32768),
        |image| image.commit_bitmap("b"),
    ];
    for recording in [true, false] {
        for (index, change) in changes.into_iter().enumerate() {
            let disk = Disk::new(MIB);
            let stubborn = Stubborn::default();
            let image = stubborn.image(&disk);
            image.add_bitmap("b", 65536, recording).unwrap();
            if index == 2 {
                image.freeze_bitmap("b").unwrap();
            }
            stubborn.change(|moods| moods.fails_descriptor_syncs = true);
            change(&image).unwrap_err();
            write(&image, 2 * 65536, 1);
            image.mark_dirty("b", 3 * 65536, 65536).unwrap();
            image.merge_bits("b", 0, MIB, &[0x10, 0x80]).unwrap();
            drop(image); // As a crash does.
            let image = disk.activated();
            let granularity_bytes = image.bitmap("b").unwrap().granularity_bytes;
            let found = dirty(&image, "b", granularity_bytes).into_iter();
            let found: std::collections::BTreeSet<u64> = found.map(|at| at / 65536).collect();
            let first = if recording { 2 } else { 3 };
            assert!(found.into_iter().eq((first..5).chain([15])), "{index}");
        }
    }
}

#[test]
fn a_write_goes_ahead_without_a_bitmap_that_cannot_record_it_or_not_at_all() {
    for can_tell in [true, false] {
        let disk = Disk::new(MIB);
        let stubborn = Stubborn::default();
        let storage = Arc::new(stubborn.clone());
        let image = Image::open(storage, &disk.path, OpenOptions::default()).unwrap();
        let data = DataImage::activate(&image, &Activation::default()).unwrap();
        image.add_bitmap("b", 512, true).unwrap();
        stubborn.change(|moods| moods.tears_writes = true);
        let place = disk.directory.path();
        let elsewhere = place.with_extension("elsewhere");
        if !can_tell {
            // No descriptor can be written.
            fs::rename(place, &elsewhere).unwrap();
        }
        let written = data.write(&image, 0, b"x");
        if !can_tell {
            fs::rename(&elsewhere, place).unwrap();
        }
        assert!(image.is_idle());
        let content = fs::read(disk.file("x.qbm.raw")).unwrap();
        assert_eq!((written.is_ok(), content[0] == b'x'), (can_tell, can_tell));
        assert_eq!(inconsistent(&image, "b"), can_tell);
    }
}

#[test]
fn a_mark_that_the_other_text_cannot_take_settles_which_text_counts() {
    let disk = Disk::new(MIB);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    image.add_bitmap("b", 65536, true).unwrap();
    image.mark_dirty("b", 2 * 65536, 1).unwrap();
    stubborn.change(|moods| moods.fails_descriptor_syncs = true);
    image.clear_bitmap("b").unwrap_err();
    stubborn.change(|moods| {
        moods.fails_descriptor_syncs = false;
        moods.tears_writes = true;
    });
    image.mark_dirty("b", 2 * 65536, 1).unwrap();
    drop(image); // As a crash does.
    let image = disk.activated();
    assert!(inconsistent(&image, "b") || dirty(&image, "b", 65536) == [2 * 65536]);
}

#[test]
fn a_write_that_the_other_text_cannot_record_settles_which_text_counts() {
    let disk = Disk::new(MIB);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 2 * 65536, 1);
    stubborn.change(|moods| moods.fails_descriptor_syncs = true);
    image.clear_bitmap("b").unwrap_err();
    stubborn.change(|moods| {
        moods.fails_descriptor_syncs = false;
        moods.tears_writes = true;
    });
    // The bitmap as it was has the granule already; the cleared one, which a crash may bring back, has not.
    let (ticket, begun) = image.begin_write(2 * 65536, 1).unwrap();
    assert_eq!(begun, Begun::MustWait);
    image.wait_write().unwrap();
    image.end_write(ticket);
    drop(image); // As a crash does.
    let image = disk.activated();
    assert!(inconsistent(&image, "b") || dirty(&image, "b", 65536) == [2 * 65536]);
}

#[test]
fn a_data_image_that_cannot_be_looked_at_costs_no_bitmap() {
    // Whoever gave rights up after opening found every bitmap inconsistent at the close.
    let disk = Disk::new(MIB);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    image.add_bitmap("b", 65536, true).unwrap();
    write(&image, 0, 1);
    stubborn.change(|moods| moods.hides_data = true);
    image.inactivate().unwrap();
    drop(image);
    assert_eq!(dirty(&disk.activated(), "b", 65536), [0]);
}

#[test]
fn a_bitmap_that_cannot_take_what_is_in_flight_does_not_come() {
    // The descriptor named it as whole, until somebody looked: a kill before that left it so. The simulator found it.
    let disk = Disk::new(MIB);
    let stubborn = Stubborn::default();
    let image = stubborn.image(&disk);
    image.add_bitmap("off", 65536, false).unwrap();
    let (ticket, _) = image.begin_write(0, 1).unwrap();
    stubborn.change(|moods| moods.tears_writes = true);
    let before = disk.listing();
    let error = image.add_bitmap("b", 65536, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("\"b\""), "{error}");
    assert!(image.bitmap("b").is_none());
    assert_eq!(disk.listing(), before);
    let error = image.set_recording("off", true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(inconsistent(&image, "off"));
    stubborn.change(|moods| moods.tears_writes = false);
    image.end_write(ticket);
    image.add_bitmap("b", 65536, true).unwrap();
    drop(image); // As a crash does.
    let image = disk.activated();
    assert!(inconsistent(&image, "off") && !inconsistent(&image, "b"));
}
