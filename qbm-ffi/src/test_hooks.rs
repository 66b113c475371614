// SPDX-License-Identifier: MIT OR Apache-2.0
//! Panics where a test asks for them: as a bug in the core would, in the middle of whatever it does, locks held.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use qbm_core::storage::{Access, FileId, LockMode, Metadata, OsStorage, Storage, StorageFile};

/// Storage operations until the one that panics; 0: none does.
static REMAINING: AtomicU64 = AtomicU64::new(0);

/// Makes storage operation number `operation` from now on, counted from 1, panic before it does anything; 0: none. Returns
/// how many were left of what was asked for before: 0 when that panic has come.
#[unsafe(no_mangle)]
pub extern "C" fn qbm_test_panic_at(operation: u64) -> u64 {
    REMAINING.swap(operation, Ordering::SeqCst)
}

fn step() {
    let count = |remaining: u64| remaining.checked_sub(1);
    if REMAINING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1) {
        panic!("storage operation panics\nas the test asked");
    }
}

/// The operating system's files, with a panic where one is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanickingStorage(pub(crate) OsStorage);

#[derive(Debug)]
struct PanickingFile(Box<dyn StorageFile>);

impl Storage for PanickingStorage {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        step();
        Ok(Box::new(PanickingFile(self.0.open(path, access)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        step();
        Ok(Box::new(PanickingFile(self.0.create_new(path)?)))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        step();
        self.0.metadata(path)
    }

    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata> {
        step();
        self.0.settled_metadata(path)
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        step();
        self.0.real_path(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        step();
        self.0.list(directory)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        step();
        self.0.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        step();
        self.0.sync_directory(directory)
    }

    fn boot_id(&self) -> io::Result<String> {
        step();
        self.0.boot_id()
    }
}

impl StorageFile for PanickingFile {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        step();
        self.0.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        step();
        self.0.write_at(offset_bytes, data)
    }

    fn length(&self) -> io::Result<u64> {
        step();
        self.0.length()
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        step();
        self.0.set_length(length_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        step();
        self.0.sync_data()
    }

    fn next_data(&self, offset_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        step();
        self.0.next_data(offset_bytes)
    }

    fn id(&self) -> io::Result<FileId> {
        step();
        self.0.id()
    }

    fn lock(&self, mode: LockMode) -> io::Result<()> {
        step();
        self.0.lock(mode)
    }
}
