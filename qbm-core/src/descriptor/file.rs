// SPDX-License-Identifier: MIT OR Apache-2.0
//! The descriptor as a file: read whole, replaced as if at once (I4).
//!
//! QEMU holds a file descriptor and locks on the inode, so a new text never arrives by rename. It is made durable in
//! `<name>.new`, then written over the old one, made durable there, and `<name>.new` removed. Each text carries its own
//! checksum: one that does not hold while `<name>.new` is whole was torn by a crash.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Descriptor, write::checksum_holds};
use crate::caps;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::storage::{Access, FileId, LockMode, Storage, StorageFile};

/// An open descriptor file.
#[derive(Debug)]
pub(crate) struct DescriptorFile {
    path: PathBuf,
    file: Box<dyn StorageFile>,
}

fn new_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

/// The directory that names in a descriptor are relative to.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl DescriptorFile {
    /// Opens for writing if possible (and wanted), otherwise for reading.
    pub(crate) fn open(storage: &dyn Storage, path: &Path, access: Access) -> Result<Self> {
        let file = storage
            .open(path, access)
            .map_err(|error| Error::io("cannot open descriptor", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Makes a descriptor file where none is.
    pub(crate) fn create_new(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let file = storage
            .create_new(path)
            .map_err(|error| Error::io("cannot create descriptor", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    pub(crate) fn lock(&self, mode: LockMode) -> Result<()> {
        self.file.lock(mode).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                let text = format!(
                    "descriptor {}: another process has the image open",
                    quoted(self.path.display())
                );
                Error::new(ErrorKind::Locked, text)
            } else {
                Error::io("cannot lock descriptor", &self.path, error)
            }
        })
    }

    pub(crate) fn id(&self) -> Result<FileId> {
        self.file
            .id()
            .map_err(|error| Error::io("cannot examine descriptor", &self.path, error))
    }

    pub(crate) fn length_bytes(&self) -> Result<u64> {
        self.file
            .length()
            .map_err(|error| Error::io("cannot examine descriptor", &self.path, error))
    }

    /// `error` with the descriptor's name in front.
    pub(crate) fn blame(path: &Path, error: Error) -> Error {
        error.within(format_args!("descriptor {}", quoted(path.display())))
    }

    fn read_text(file: &dyn StorageFile, path: &Path) -> Result<Vec<u8>> {
        let failed = |error| Error::io("cannot read descriptor", path, error);
        let length = file.length().map_err(failed)?;
        if length > caps::DESCRIPTOR_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::TooBig,
                format!(
                    "descriptor {}: {length} bytes, at most {}",
                    quoted(path.display()),
                    caps::DESCRIPTOR_BYTES_MAX
                ),
            ));
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_at(0, &mut text).map_err(failed)?;
        Ok(text)
    }

    /// Reads the descriptor, or, where a crash tore it, the text that was to replace it.
    pub(crate) fn read(&self, storage: &dyn Storage) -> Result<Descriptor> {
        let text = Self::read_text(&*self.file, &self.path)?;
        if !checksum_holds(&text)
            && let Some(whole) = self.read_replacement(storage)
        {
            return Ok(whole);
        }
        Descriptor::parse(&text).map_err(|error| Self::blame(&self.path, error))
    }

    /// `<name>.new`, if it is there and whole.
    fn read_replacement(&self, storage: &dyn Storage) -> Option<Descriptor> {
        let path = new_path(&self.path);
        let file = storage.open(&path, Access::Read).ok()?;
        let text = Self::read_text(&*file, &path).ok()?;
        if !checksum_holds(&text) {
            return None;
        }
        Descriptor::parse(&text).ok()
    }

    /// Replaces the text. Durable when this returns; after an error the old or the new one will be read.
    pub(crate) fn write(&self, storage: &dyn Storage, descriptor: &Descriptor) -> Result<()> {
        let text = descriptor
            .to_text()
            .map_err(|error| Self::blame(&self.path, error))?;
        let text = text.as_bytes();
        let replacement = new_path(&self.path);
        let result = self.write_replacement(storage, &replacement, text);
        if result.is_err() {
            // The old text is untouched; half a replacement helps nobody.
            let _ = storage.remove(&replacement);
            return result;
        }
        let failed = |error| Error::io("cannot write descriptor", &self.path, error);
        self.file.write_at(0, text).map_err(failed)?;
        self.file.set_length(text.len() as u64).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        // Should it survive, its text is the descriptor's own.
        let _ = storage.remove(&replacement);
        Ok(())
    }

    fn write_replacement(&self, storage: &dyn Storage, path: &Path, text: &[u8]) -> Result<()> {
        let failed = |error| Error::io("cannot write", path, error);
        let file = match storage.create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left by a crash. The descriptor was read since then, so what is in here is no longer needed once
                // the text in place is whole; that was seen to when it was read for writing.
                storage.remove(path).map_err(failed)?;
                storage.create_new(path)
            }
            other => other,
        }
        .map_err(failed)?;
        file.write_at(0, text).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        storage
            .sync_directory(directory(path))
            .map_err(|error| Error::io("cannot sync directory", directory(path), error))
    }

    /// Before anything else is written: puts the text of a torn descriptor in place, drops a replacement left over.
    pub(crate) fn repair(&self, storage: &dyn Storage) -> Result<()> {
        let path = new_path(&self.path);
        if storage.metadata(&path).is_err() {
            return Ok(());
        }
        let text = Self::read_text(&*self.file, &self.path)?;
        if !checksum_holds(&text) && self.read_replacement(storage).is_some() {
            let failed = |error| Error::io("cannot repair descriptor", &self.path, error);
            let file = storage.open(&path, Access::Read).map_err(failed)?;
            let whole = Self::read_text(&*file, &path)?;
            self.file.write_at(0, &whole).map_err(failed)?;
            self.file.set_length(whole.len() as u64).map_err(failed)?;
            self.file.sync_data().map_err(failed)?;
        }
        storage
            .remove(&path)
            .map_err(|error| Error::io("cannot remove", &path, error))
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at the files from outside"
)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::OsStorage;

    fn descriptor(file: &str) -> Descriptor {
        Descriptor::new(file.into(), "raw".into())
    }

    #[test]
    fn a_torn_text_is_read_from_the_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let file = DescriptorFile::create_new(&OsStorage, &path).unwrap();
        file.write(&OsStorage, &descriptor("old")).unwrap();
        assert!(!new_path(&path).exists());

        let new = descriptor(&"new".repeat(1300)).to_text().unwrap();
        let old = fs::read(&path).unwrap();
        // The crash can come after any byte of the overwriting.
        for cut in [0, 1, 100, 4000, new.len() - 1, new.len()] {
            let mut torn = old.clone();
            torn.resize(torn.len().max(cut), 0);
            torn[..cut].copy_from_slice(&new.as_bytes()[..cut]);
            fs::write(&path, &torn).unwrap();
            fs::write(new_path(&path), &new).unwrap();
            let file = DescriptorFile::open(&OsStorage, &path, Access::ReadWrite).unwrap();
            let read = file.read(&OsStorage).unwrap().image.file;
            assert!(
                read == "old" || read == "new".repeat(1300),
                "cut at {cut}: {read}"
            );
            file.repair(&OsStorage).unwrap();
            assert_eq!(file.read(&OsStorage).unwrap().image.file, read);
            assert!(!new_path(&path).exists());
        }
    }

    #[test]
    fn a_torn_replacement_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let file = DescriptorFile::create_new(&OsStorage, &path).unwrap();
        file.write(&OsStorage, &descriptor("old")).unwrap();
        let new = descriptor("new").to_text().unwrap();
        for cut in 0..new.len() {
            fs::write(new_path(&path), &new[..cut]).unwrap();
            assert_eq!(file.read(&OsStorage).unwrap().image.file, "old");
        }
        file.repair(&OsStorage).unwrap();
        assert_eq!(file.read(&OsStorage).unwrap().image.file, "old");
    }

    #[test]
    fn a_text_edited_by_hand_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let text = descriptor("old")
            .to_text()
            .unwrap()
            .replace("old", "edited");
        fs::write(&path, text).unwrap();
        let file = DescriptorFile::open(&OsStorage, &path, Access::Read).unwrap();
        assert_eq!(file.read(&OsStorage).unwrap().image.file, "edited");
    }

    #[test]
    fn the_inode_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let file = DescriptorFile::create_new(&OsStorage, &path).unwrap();
        let id = file.id().unwrap();
        file.write(&OsStorage, &descriptor(&"long".repeat(900)))
            .unwrap();
        file.write(&OsStorage, &descriptor("short")).unwrap();
        assert_eq!(OsStorage.metadata(&path).unwrap().id, id);
        assert_eq!(file.read(&OsStorage).unwrap().image.file, "short");
    }
}
