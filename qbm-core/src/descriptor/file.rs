// SPDX-License-Identifier: MIT OR Apache-2.0
//! The descriptor as a file: read whole, replaced as if at once (I4).
//!
//! QEMU holds a file descriptor and locks on the inode, so a new text never arrives by rename. It is made durable in
//! `<name>.new`, then written over the old one, made durable there, and `<name>.new` removed. Each text carries its own
//! checksum: one that does not hold while `<name>.new` is whole was torn by a crash.
//!
//! `<name>.new` begins with a line that says what it is. Where somebody else's file has that name, it is left alone and
//! `<name>.new.1` and so on are used (I6). There is never more than one replacement that is whole and needed: as long as
//! one may be, nothing is written but its repair.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Descriptor, write::checksum_holds};
use crate::caps;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::sabotage::sabotaged;
use crate::storage::{Access, FileId, LockMode, Storage, StorageFile};

/// An open descriptor file.
#[derive(Debug)]
pub(crate) struct DescriptorFile {
    /// As it was opened: what names in it are relative to.
    path: PathBuf,
    /// Without symbolic links: what replacements are beside of.
    real_path: PathBuf,
    file: Box<dyn StorageFile>,
    /// A replacement may be there, and the text may be torn: to be repaired before the next change.
    unsettled: AtomicBool,
}

/// Which text of a descriptor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its own; the checksum says that it is as it was written.
    Whole,
    /// The one that was to replace it: a crash tore its own.
    Torn,
    /// Its own, without a checksum that holds: written or edited by somebody else.
    Edited,
}

/// How often a text that changes while it is read is read again.
const READS_MAX: u32 = 16;
/// First line of a replacement.
const HEADER: &[u8] = b"QBM: the next text of a descriptor\n";
/// How many bytes of a torn header tell that a replacement is ours.
const HEADER_BYTES_MIN: usize = 8;
/// How many names a replacement may have. A power cut while one is filled may leave nothing that tells whose it is.
const NAMES_COUNT: u32 = 100;

/// Names for the text that is to replace the one at `path`, the usual one first.
fn replacement_paths(path: &Path) -> impl Iterator<Item = PathBuf> {
    let path = OsString::from(path);
    (0..NAMES_COUNT).map(move |number| {
        let mut name = path.clone();
        match number {
            0 => name.push(".new"),
            // Not `.1.new`: that is what follows from the descriptor `<name>.1`.
            _ => name.push(format!(".new.{number}")),
        }
        PathBuf::from(name)
    })
}

/// What is in a replacement, without its header; `None` for a file that is not there or somebody else's.
///
/// An empty file is taken for one that a crash left before its first byte. A header that a power cut tore has zeros where
/// bytes are missing; a replacement with such a one is ours, and says nothing. A file that fails to be
/// read may be ours: that is an error.
fn read_own(storage: &dyn Storage, path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match storage.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if is_somebody_elses(&error) => return Ok(None),
        Err(error) => return Err(Error::io("cannot open", path, error)),
    };
    let content = match DescriptorFile::read_text(&*file, path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::TooBig => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(strip_header(content))
}

/// What `open` says of a name that is free, or leads to something that we never made: no regular file, or not ours to read.
fn is_somebody_elses(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    ) || matches!(
        error.raw_os_error(),
        Some(libc::EISDIR | libc::ELOOP | libc::ENOTDIR | libc::ENXIO | libc::ENAMETOOLONG)
    )
}

fn strip_header(content: Vec<u8>) -> Option<Vec<u8>> {
    if content.is_empty() {
        return Some(content);
    }
    if let Some(text) = content.strip_prefix(HEADER) {
        return Some(text.to_vec());
    }
    let torn = content.iter().zip(HEADER);
    let is_torn = torn
        .clone()
        .all(|(byte, whole)| byte == whole || *byte == 0);
    let left_bytes = torn.filter(|(byte, whole)| byte == whole).count();
    (is_torn && left_bytes >= HEADER_BYTES_MIN).then(Vec::new)
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
        Self::over(storage, path, file)
    }

    /// Makes a descriptor file where none is.
    pub(crate) fn create_new(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let file = storage
            .create_new(path)
            .map_err(|error| Error::io("cannot create descriptor", path, error))?;
        Self::over(storage, path, file)
    }

    fn over(storage: &dyn Storage, path: &Path, file: Box<dyn StorageFile>) -> Result<Self> {
        let real_path = storage
            .real_path(path)
            .map_err(|error| Error::io("cannot find descriptor", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            real_path,
            file,
            // Whoever had it open before may have crashed.
            unsettled: AtomicBool::new(true),
        })
    }

    pub(crate) fn leave_locked(&self) {
        self.file.leave_locked();
    }

    pub(crate) fn lock(&self, mode: LockMode) -> Result<()> {
        self.file.lock(mode).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                let text = format!(
                    "descriptor {}: the image is open already, in another process or here",
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
            let mut head = [0; 512];
            file.read_at(0, &mut head).map_err(failed)?;
            if !super::probe(&head) {
                // The disk itself, most likely.
                return Err(Self::blame(path, Error::invalid("not a QBM descriptor")));
            }
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
        let (text, standing) = self.read_whole(storage)?;
        let mut descriptor =
            Descriptor::parse(&text).map_err(|error| Self::blame(&self.path, error))?;
        if standing == Standing::Torn {
            let text = "its text was torn by a crash, or changed after one; the one that was to replace it counts";
            descriptor.ignored.push(text.into());
        }
        Ok(descriptor)
    }

    /// The text that counts, and where it stands.
    pub(crate) fn read_whole(&self, storage: &dyn Storage) -> Result<(Vec<u8>, Standing)> {
        let mut text = Self::read_text(&*self.file, &self.path)?;
        for _ in 0..READS_MAX {
            if checksum_holds(&text) {
                return Ok((text, Standing::Whole));
            }
            if let Some(whole) = self.read_replacement(storage)? {
                return Ok((whole, Standing::Torn));
            }
            // A reader that shares may have met a writer between the two; such a text does not stay.
            let again = Self::read_text(&*self.file, &self.path)?;
            if again == text {
                break;
            }
            text = again;
        }
        Ok((text, Standing::Edited))
    }

    /// The text that a crash kept from replacing this one, if there is one that is whole.
    fn read_replacement(&self, storage: &dyn Storage) -> Result<Option<Vec<u8>>> {
        for path in replacement_paths(&self.real_path) {
            let text = read_own(storage, &path)?;
            let is_whole = |text: &Vec<u8>| checksum_holds(text) && Descriptor::parse(text).is_ok();
            if let Some(text) = text.filter(is_whole) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Replaces the text. Durable when this returns; after an error the old or the new one will be read.
    pub(crate) fn write(&self, storage: &dyn Storage, descriptor: &Descriptor) -> Result<()> {
        let text = descriptor
            .to_text()
            .map_err(|error| Self::blame(&self.path, error))?;
        let text = text.as_bytes();
        // A replacement that may be the only whole text is put in place before another is begun.
        self.repair(storage)?;
        self.unsettled.store(true, Ordering::SeqCst);
        let (replacement, file) = self.create_replacement(storage)?;
        let overwritten =
            fill_replacement(storage, &replacement, &*file, text).map(|()| self.overwrite(text));
        // Half a replacement helps nobody, and a whole one is needed until the text itself is durable.
        let is_dispensable = !matches!(overwritten, Ok(Err(_)));
        if is_dispensable && storage.remove(&replacement).is_ok() {
            self.unsettled.store(false, Ordering::SeqCst);
        }
        overwritten.and_then(|result| result)
    }

    fn overwrite(&self, text: &[u8]) -> Result<()> {
        let failed = |error| Error::io("cannot write descriptor", &self.path, error);
        self.file.write_at(0, text).map_err(failed)?;
        self.file.set_length(text.len() as u64).map_err(failed)?;
        if sabotaged!("descriptor-not-synced") {
            return Ok(());
        }
        self.file.sync_data().map_err(failed)
    }

    /// An empty file under the first name that is free.
    fn create_replacement(&self, storage: &dyn Storage) -> Result<(PathBuf, Box<dyn StorageFile>)> {
        for path in replacement_paths(&self.real_path) {
            match storage.create_new(&path) {
                Ok(file) => {
                    // After a crash others may need it.
                    file.take_rights_of(&self.real_path);
                    return Ok((path, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("cannot write", &path, error)),
            }
        }
        let text = format!(
            "descriptor {}: all {NAMES_COUNT} names for its next text are taken by other files",
            quoted(self.path.display())
        );
        Err(Error::new(ErrorKind::Exists, text))
    }

    /// Puts the text of a torn descriptor in place and drops replacements left over. Does nothing where nothing can
    /// have been left.
    pub(crate) fn repair(&self, storage: &dyn Storage) -> Result<()> {
        if !self.unsettled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (text, standing) = self.read_whole(storage)?;
        let leftovers = self.leftovers(storage, &text)?;
        // A text that looks whole may be so in the page cache only: whoever left a replacement did not get to know that it
        // is durable. Only once it is, replacements may go.
        if standing == Standing::Torn
            || (!leftovers.is_empty() && !sabotaged!("repair-trusts-the-cache"))
        {
            self.overwrite(&text)?;
        }
        for path in leftovers {
            storage
                .remove(&path)
                .map_err(|error| Error::io("cannot remove", &path, error))?;
        }
        self.unsettled.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Replacements that a crash left. What `text`, the one that counts, names is none, whatever it looks like.
    pub(crate) fn leftovers(&self, storage: &dyn Storage, text: &[u8]) -> Result<Vec<PathBuf>> {
        let mut leftovers = Vec::new();
        let named = Descriptor::parse(text).map(|descriptor| descriptor.all_files());
        let named: Vec<PathBuf> = named
            .unwrap_or_default()
            .iter()
            .map(|file| directory(&self.path).join(file))
            .filter_map(|file| storage.real_path(&file).ok())
            .collect();
        for path in replacement_paths(&self.real_path) {
            if !named.contains(&path) && read_own(storage, &path)?.is_some() {
                leftovers.push(path);
            }
        }
        Ok(leftovers)
    }
}

/// Makes a replacement durable, name and content.
fn fill_replacement(
    storage: &dyn Storage,
    path: &Path,
    file: &dyn StorageFile,
    text: &[u8],
) -> Result<()> {
    let failed = |error| Error::io("cannot write", path, error);
    file.write_at(0, &[HEADER, text].concat()).map_err(failed)?;
    if !sabotaged!("replacement-not-synced") {
        file.sync_data().map_err(failed)?;
    }
    if sabotaged!("directory-not-synced") {
        return Ok(());
    }
    storage
        .sync_directory(directory(path))
        .map_err(|error| Error::io("cannot sync directory", directory(path), error))
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

    fn new_path(path: &Path) -> PathBuf {
        replacement_paths(path).next().unwrap()
    }

    fn replacement(text: &str) -> Vec<u8> {
        [HEADER, text.as_bytes()].concat()
    }

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
            fs::write(new_path(&path), replacement(&new)).unwrap();
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
        let new = replacement(&descriptor("new").to_text().unwrap());
        for cut in (0..1).chain(HEADER_BYTES_MIN..new.len()) {
            let mut torn = new[..cut].to_vec();
            fs::write(new_path(&path), &torn).unwrap();
            assert_eq!(file.read(&OsStorage).unwrap().image.file, "old");
            if cut > 0 {
                torn.resize(new.len(), 0);
            }
            fs::write(new_path(&path), &torn).unwrap();
            let file = DescriptorFile::open(&OsStorage, &path, Access::ReadWrite).unwrap();
            file.repair(&OsStorage).unwrap();
            assert_eq!(file.read(&OsStorage).unwrap().image.file, "old");
            assert!(!new_path(&path).exists(), "cut at {cut}");
        }
    }

    #[test]
    fn somebody_elses_file_of_that_name_is_left_alone() {
        // A disk that was named x.qbm.new was removed by the first change of the descriptor x.qbm.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let others = descriptor("copy").to_text().unwrap();
        let blank = "\0".repeat(4096);
        for precious in ["a guest's disk", "QBM", others.as_str(), blank.as_str()] {
            fs::write(new_path(&path), precious).unwrap();
            let _ = fs::remove_file(&path);
            let file = DescriptorFile::create_new(&OsStorage, &path).unwrap();
            file.repair(&OsStorage).unwrap();
            file.write(&OsStorage, &descriptor("old")).unwrap();
            assert_eq!(file.read(&OsStorage).unwrap().image.file, "old");
            // Recovery finds the text under the next name.
            let new = replacement(&descriptor("new").to_text().unwrap());
            let second = replacement_paths(&path).nth(1).unwrap();
            fs::write(&second, new).unwrap();
            fs::write(&path, "{ torn").unwrap();
            let file = DescriptorFile::open(&OsStorage, &path, Access::ReadWrite).unwrap();
            assert_eq!(file.read(&OsStorage).unwrap().image.file, "new");
            file.repair(&OsStorage).unwrap();
            assert!(!second.exists());
            assert_eq!(fs::read_to_string(new_path(&path)).unwrap(), precious);
        }
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
