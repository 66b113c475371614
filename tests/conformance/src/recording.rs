// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage that passes everything on and writes down the order, so that "before" can be tested.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use qbm_core::storage::{Access, FileId, LockMode, Metadata, OsStorage, Storage, StorageFile};

/// What happened, one line each: `create "NAME"`, `write "NAME" at OFFSET: BYTES bytes`, `length "NAME": BYTES`,
/// `sync "NAME"`, `sync directory`, `remove "NAME"`, `settle "NAME"`, and what the test itself [notes](Log::note).
#[derive(Debug, Clone, Default)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// A line that begins so fails instead, every time.
    failing: Arc<Mutex<Option<String>>>,
    before: Arc<Mutex<Option<Before>>>,
}

/// Something that happens once, just before a line that begins so.
struct Before(String, Box<dyn FnOnce() + Send>);

impl fmt::Debug for Before {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Log {
    /// Writes a line of the test's own.
    pub fn note(&self, line: &str) {
        self.lock().push(line.to_owned());
    }

    /// Forgets what was written.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// From now on whatever would be written down with this beginning fails with `EIO`; `None`: nothing does.
    pub fn fail(&self, beginning: Option<&str>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        *failing = beginning.map(str::to_owned);
    }

    /// Once, just before a line that begins so, `act` is done: what another thread might do then.
    pub fn before(&self, beginning: &str, act: impl FnOnce() + Send + 'static) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        *before = Some(Before(beginning.to_owned(), Box::new(act)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, line: String) -> io::Result<()> {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let due = before.take_if(|before| line.starts_with(&before.0));
        drop(before);
        if let Some(Before(_, act)) = due {
            act();
        }
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let fails = failing
            .as_ref()
            .is_some_and(|start| line.starts_with(start));
        drop(failing);
        if fails {
            self.note(&format!("failed: {line}"));
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.note(&line);
        Ok(())
    }

    /// Fails unless lines with these beginnings occur in this order, others in between allowed.
    ///
    /// # Errors
    /// Says from where on they do not.
    pub fn ensure_order(&self, beginnings: &[&str]) -> Result<()> {
        let lines = self.lines();
        let mut rest = lines.iter();
        for beginning in beginnings {
            rest.find(|line| line.starts_with(beginning))
                .with_context(|| format!("no {beginning:?} in its place:\n{}", lines.join("\n")))?;
        }
        Ok(())
    }

    /// Fails if a line begins so.
    ///
    /// # Errors
    /// There is one.
    pub fn ensure_none(&self, beginning: &str) -> Result<()> {
        let lines = self.lines();
        ensure!(
            !lines.iter().any(|line| line.starts_with(beginning)),
            "{beginning:?} occurs:\n{}",
            lines.join("\n")
        );
        Ok(())
    }
}

/// The same number on every Linux.
const EIO: i32 = 5;

/// The storage.
#[derive(Debug, Default)]
pub struct Recording {
    /// Where the lines go.
    pub log: Log,
}

#[derive(Debug)]
struct RecordedFile {
    name: String,
    file: Box<dyn StorageFile>,
    log: Log,
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

impl Recording {
    fn wrap(&self, path: &Path, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(RecordedFile {
            name: name_of(path),
            file,
            log: self.log.clone(),
        })
    }
}

impl Storage for Recording {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.wrap(path, OsStorage.open(path, access)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = OsStorage.create_new(path)?;
        self.log.tell(format!("create {:?}", name_of(path)))?;
        Ok(self.wrap(path, file))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        OsStorage.metadata(path)
    }

    fn settled_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.log.tell(format!("settle {:?}", name_of(path)))?;
        OsStorage.settled_metadata(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        OsStorage.list(directory)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.log.tell(format!("remove {:?}", name_of(path)))?;
        OsStorage.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.log.tell("sync directory".to_owned())?;
        OsStorage.sync_directory(directory)
    }

    fn boot_id(&self) -> io::Result<String> {
        OsStorage.boot_id()
    }
}

impl StorageFile for RecordedFile {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.log.tell(format!(
            "write {:?} at {offset_bytes}: {} bytes",
            self.name,
            data.len()
        ))?;
        self.file.write_at(offset_bytes, data)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.log
            .tell(format!("length {:?}: {length_bytes}", self.name))?;
        self.file.set_length(length_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.log.tell(format!("sync {:?}", self.name))?;
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
