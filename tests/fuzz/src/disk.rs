// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files in memory, sparse, that outlive whoever has them open: what the page cache is to a process.
//!
//! The simulator's disk knows what each crash would leave, too. That costs memory, which is counted here, and time, which
//! is what a fuzzer has.

mod content;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::Content;
use qbm_core::storage::{Access, FileId, LockMode, Metadata, Storage, StorageFile, Timestamp};

#[derive(Debug)]
struct File {
    inode: u64,
    content: Mutex<Content>,
}

/// A directory tree without directories: names, made plain, to files.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    names: Mutex<BTreeMap<OsString, Arc<File>>>,
    inodes: AtomicU64,
    clock: Arc<AtomicI64>,
    boots: AtomicU64,
}

#[derive(Debug)]
struct Handle {
    file: Arc<File>,
    writable: bool,
    clock: Arc<AtomicI64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `path` without `.` and `..`: two ways to say a name lead to one file.
///
/// As text: paths compare component by component, which takes its time.
fn plain(path: &Path) -> OsString {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain.into_os_string()
}

impl Disk {
    /// A file of `length_bytes` zeros, changed last at `modified` seconds; what had the name is gone.
    pub(crate) fn put(&self, path: &str, length_bytes: u64, modified: i64) {
        let file = self.new_file();
        {
            let mut content = lock(&file.content);
            content.length_bytes = length_bytes;
            content.modified = modified;
        }
        lock(&self.names).insert(plain(Path::new(path)), file);
    }

    /// Puts bytes into a file that exists, cut at its end.
    pub(crate) fn fill(&self, path: &str, offset_bytes: u64, data: &[u8]) {
        let file = self.find(Path::new(path)).expect("the file was put there");
        let mut content = lock(&file.content);
        let room = content.length_bytes.saturating_sub(offset_bytes);
        let length = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        if length > 0 {
            content.write(offset_bytes, &data[..length]);
        }
    }

    /// A file's content; `None` if there is none, or if it is larger than any descriptor.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let file = self.find(Path::new(path)).ok()?;
        let content = lock(&file.content);
        let length = usize::try_from(content.length_bytes).ok()?;
        let mut bytes = vec![0; Some(length).filter(|length| *length <= 16 << 20)?];
        content.read(0, &mut bytes);
        Some(bytes)
    }

    /// Some of a file's content; zeros beyond its end.
    pub(crate) fn peek(&self, path: &str, offset_bytes: u64, buffer: &mut [u8]) {
        let file = self.find(Path::new(path)).expect("the file was put there");
        lock(&file.content).read(offset_bytes, buffer);
    }

    pub(crate) fn length(&self, path: &str) -> u64 {
        let file = self.find(Path::new(path)).expect("the file was put there");
        lock(&file.content).length_bytes
    }

    /// As if the data image had been resized, and thereby changed.
    pub(crate) fn resize(&self, path: &str, length_bytes: u64) {
        let file = self.find(Path::new(path)).expect("the file was put there");
        let mut content = lock(&file.content);
        content.set_length(length_bytes);
        content.modified = self.tick();
    }

    /// The host starts again. What was written is taken to be durable.
    pub(crate) fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::Relaxed);
    }

    fn tick(&self) -> i64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn new_file(&self) -> Arc<File> {
        Arc::new(File {
            inode: self.inodes.fetch_add(1, Ordering::Relaxed),
            content: Mutex::default(),
        })
    }

    fn find(&self, path: &Path) -> io::Result<Arc<File>> {
        let names = lock(&self.names);
        let file = names.get(&plain(path)).cloned();
        file.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn handle(&self, file: Arc<File>, writable: bool) -> Box<dyn StorageFile> {
        let clock = Arc::clone(&self.clock);
        Box::new(Handle {
            file,
            writable,
            clock,
        })
    }
}

impl Storage for Disk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.handle(self.find(path)?, access == Access::ReadWrite))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut names = lock(&self.names);
        let path = plain(path);
        if Path::new(&path).file_name().is_none() || names.contains_key(&path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = self.new_file();
        names.insert(path, Arc::clone(&file));
        Ok(self.handle(file, true))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let file = self.find(path)?;
        let content = lock(&file.content);
        Ok(Metadata {
            id: FileId {
                device: 1,
                inode: file.inode,
            },
            length_bytes: content.length_bytes,
            is_regular: true,
            modified: Timestamp {
                seconds: content.modified,
                nanoseconds: 0,
            },
        })
    }

    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.metadata(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let directory = PathBuf::from(plain(directory));
        let names = lock(&self.names);
        let inside = names
            .keys()
            .map(Path::new)
            .filter(|path| path.parent() == Some(&directory));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_owned()))
            .collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = lock(&self.names).remove(&plain(path));
        removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("boot-{}", self.boots.load(Ordering::Relaxed)))
    }
}

impl Handle {
    fn change(&self) -> io::Result<MutexGuard<'_, Content>> {
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let mut content = lock(&self.file.content);
        content.modified = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(content)
    }
}

impl StorageFile for Handle {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = lock(&self.file.content);
        let end = offset_bytes.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > content.length_bytes) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        content.read(offset_bytes, buffer);
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.change()?.write(offset_bytes, data);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.file.content).length_bytes)
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.change()?.set_length(length_bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset_bytes: u64) -> io::Result<Option<(u64, u64)>> {
        Ok(lock(&self.file.content).next_data(offset_bytes))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId {
            device: 1,
            inode: self.file.inode,
        })
    }

    fn lock(&self, _mode: LockMode) -> io::Result<()> {
        Ok(())
    }
}
