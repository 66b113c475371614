// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON descriptor: what an image is made of.

mod bitmap;
mod file;
mod image_reference;
mod inconsistent;
mod layout;
mod object;
mod parse;
mod read;
mod session;
mod write;

use serde_json::value::RawValue;

pub(crate) use bitmap::{AllocationEntry, BitmapEntry};
pub(crate) use file::{DescriptorFile, Standing, directory};
pub(crate) use image_reference::{ImageReference, check_format};
pub(crate) use inconsistent::InconsistentEntry;
pub(crate) use object::Object;
pub(crate) use session::TrustedChange;
pub use session::{Durability, PersistBitmaps};
pub(crate) use session::{Seal, Session};

/// Whether `head`, the first bytes of a file (512 are enough, or all of a shorter one), begins a QBM descriptor.
///
/// A descriptor starts with `{ "QBM" :`, white space aside.
pub fn probe(head: &[u8]) -> bool {
    let mut rest = head;
    for token in [&b"{"[..], b"\"QBM\"", b":"] {
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(token) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// The members that spell the format; extension keys follow its own scheme (`ext-soft-`, `ext-hard-`).
pub(crate) mod key {
    pub(crate) const QBM: &str = "QBM";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const IMAGE: &str = "image";
    pub(crate) const BITMAPS: &str = "bitmaps";
    /// As the proposal's grammar printed it; read, never written.
    pub(crate) const BITMAPS_UPPER: &str = "BITMAPS";
    pub(crate) const FILE: &str = "file";
    pub(crate) const FORMAT: &str = "format";
    pub(crate) const GRANULARITY: &str = "granularity-bytes";
    pub(crate) const TYPE: &str = "type";
    pub(crate) const BACKING: &str = "backing";
    pub(crate) const SOFT: &str = "ext-soft-";
    pub(crate) const HARD: &str = "ext-hard-";
    /// In the QBM object: the durability that an open uses unless told otherwise.
    pub(crate) const DURABILITY: &str = "ext-soft-qbm-durability";
    /// In the QBM object: which bitmaps are stored, unless the opener says otherwise.
    pub(crate) const PERSIST_BITMAPS: &str = "ext-soft-qbm-persist-bitmaps";
    /// In the QBM object: bitmaps that must not be used.
    pub(crate) const INCONSISTENT: &str = "ext-soft-qbm-inconsistent";
    /// In the QBM object, after a clean close.
    pub(crate) const SEAL: &str = "ext-soft-qbm-seal";
    /// In the QBM object, while the image is open for writing.
    pub(crate) const SESSION: &str = "ext-hard-qbm-session";
    /// In the QBM object: changes of the data image that somebody said to trust.
    pub(crate) const TRUSTED: &str = "ext-soft-qbm-trusted";
    /// In the outermost object: CRC-32C of the text. In a BITMAP: of the bitmap file after a clean close.
    pub(crate) const CHECKSUM: &str = "ext-soft-qbm-crc32c";
    /// In a BITMAP: whether guest writes set bits.
    pub(crate) const RECORDING: &str = "ext-soft-qbm-recording";
    /// In a BITMAP: whatever its user keeps with it, in base64.
    pub(crate) const USER_DATA: &str = "ext-soft-qbm-user-data";
}

/// Longest reason that is written: there is to be room for one of every bitmap.
const REASON_CHARS_MAX: usize = 256;
/// Most elements of `ext-soft-qbm-trusted`; the oldest give way.
const TRUSTED_MAX: usize = 16;

/// A parsed descriptor. Members that it does not know are kept where they stand.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    pub(crate) image: ImageReference,
    pub(crate) bitmaps: Vec<BitmapEntry>,
    pub(crate) allocation: Option<AllocationEntry>,
    pub(crate) inconsistent: Vec<InconsistentEntry>,
    pub(crate) durability: Option<Durability>,
    pub(crate) persist_bitmaps: Option<PersistBitmaps>,
    pub(crate) session: Option<Session>,
    pub(crate) seal: Option<Seal>,
    /// There is a seal, and it cannot be read: nothing is known of how the image was closed.
    pub(crate) seal_is_damaged: bool,
    /// Elements of `ext-soft-qbm-trusted`, oldest first.
    pub(crate) trusted: Vec<Box<RawValue>>,
    /// The list of inconsistent bitmaps could not be read; it stays until there is one to list.
    list_is_unreadable: bool,
    /// Members of ours that broke a rule when the text was read and are ignored.
    pub(crate) ignored: Vec<String>,
    /// Names of bitmaps that broke a rule when the text was read; they are in `inconsistent`.
    pub(crate) invalid: Vec<String>,
    outer: Object,
    object: Object,
}

impl Descriptor {
    /// A descriptor for `file`, without bitmaps.
    pub(crate) fn new(file: String, format: String) -> Self {
        Self::over(ImageReference::new(file, format))
    }

    fn over(image: ImageReference) -> Self {
        Self {
            image,
            bitmaps: Vec::new(),
            allocation: None,
            inconsistent: Vec::new(),
            durability: None,
            persist_bitmaps: None,
            session: None,
            seal: None,
            seal_is_damaged: false,
            trusted: Vec::new(),
            list_is_unreadable: false,
            ignored: Vec::new(),
            invalid: Vec::new(),
            outer: Object::default(),
            object: Object::default(),
        }
    }

    /// The seal's count; 0 where there was none yet.
    pub(crate) fn generation(&self) -> u64 {
        match (&self.session, &self.seal) {
            (Some(session), _) => session.generation,
            (None, Some(seal)) => seal.generation,
            (None, None) => 0,
        }
    }

    /// Size of the image that is on record, in bytes.
    pub(crate) fn recorded_bytes(&self) -> Option<u64> {
        match (&self.session, &self.seal) {
            (Some(session), _) => Some(session.size_bytes),
            (None, seal) => seal.as_ref().map(|seal| seal.size_bytes),
        }
    }

    /// What broke a rule without making the descriptor useless, a line each.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.inconsistent.iter();
        let invalid = entries.filter(|entry| self.invalid.contains(&entry.name));
        let invalid = invalid.map(|entry| {
            let name = crate::quoted(&entry.name);
            format!("bitmap {name} is inconsistent: {}", entry.reason)
        });
        self.ignored.iter().cloned().chain(invalid).collect()
    }

    pub(crate) fn bitmap(&self, name: &str) -> Option<&BitmapEntry> {
        self.bitmaps.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn bitmap_mut(&mut self, name: &str) -> Option<&mut BitmapEntry> {
        self.bitmaps.iter_mut().find(|entry| entry.name == name)
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.bitmap(name).is_some()
            || self.inconsistent.iter().any(|entry| entry.name == name)
            || self
                .allocation
                .as_ref()
                .is_some_and(|entry| entry.name == name)
    }

    /// The files of all bitmaps, usable or not.
    pub(crate) fn files(&self) -> Vec<String> {
        let usable = self.bitmaps.iter().map(|entry| entry.file.clone());
        let allocation = self.allocation.iter().map(|entry| entry.file.clone());
        let inconsistent = self.inconsistent.iter().filter_map(InconsistentEntry::file);
        usable.chain(allocation).chain(inconsistent).collect()
    }

    /// Every file that is named but the data image: those of bitmaps, and the allocation bitmap's backing image.
    pub(crate) fn other_files(&self) -> Vec<String> {
        let mut files = self.files();
        files.extend(self.allocation.iter().flat_map(AllocationEntry::files));
        files
    }

    /// Every file that is named, the data image included.
    pub(crate) fn all_files(&self) -> Vec<String> {
        let mut files = self.other_files();
        files.push(self.image.file.clone());
        files
    }

    /// Whether any bitmap, usable or not, has `file` as its file.
    pub(crate) fn names_file(&self, file: &str) -> bool {
        self.files().iter().any(|other| other == file)
    }

    pub(crate) fn names_count(&self) -> usize {
        let allocation = usize::from(self.allocation.is_some());
        [self.bitmaps.len(), self.inconsistent.len(), allocation]
            .iter()
            .sum()
    }

    /// Moves a bitmap to the inconsistent ones; the first reason stays, cut where it is long.
    pub(crate) fn set_inconsistent(&mut self, name: &str, reason: &str) {
        if let Some(index) = self.bitmaps.iter().position(|entry| entry.name == name) {
            let entry = self.bitmaps.remove(index);
            self.inconsistent.push(InconsistentEntry::new(
                entry.name.clone(),
                entry.to_raw(),
                reason.chars().take(REASON_CHARS_MAX).collect(),
            ));
        }
    }

    /// Leaves a trace of a change of the data image that somebody said to trust.
    pub(crate) fn add_trusted(&mut self, change: &TrustedChange) {
        let excess = self.trusted.len().saturating_sub(TRUSTED_MAX - 1);
        self.trusted.drain(..excess);
        // Integers in an object always serialize.
        self.trusted
            .extend(serde_json::value::to_raw_value(change).ok());
    }

    /// Takes a bitmap out, usable or not. Returns the file that it named, if it named one.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Option<String>> {
        if let Some(index) = self.bitmaps.iter().position(|entry| entry.name == name) {
            return Some(Some(self.bitmaps.remove(index).file));
        }
        let index = self
            .inconsistent
            .iter()
            .position(|entry| entry.name == name)?;
        let entry = self.inconsistent.remove(index);
        Some(entry.file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_looks_at_the_first_member() {
        assert!(probe(b"{\"QBM\":{"));
        assert!(probe(b" \n{ \t\"QBM\" : 5"));
        assert!(!probe(b"{\"qbm\":{"));
        assert!(!probe(b"{ \"other\": 1, \"QBM\": 2"));
        assert!(!probe(b"QFI\xfb"));
        assert!(!probe(b"{ \"QBM\""));
        assert!(!probe(b""));
    }
}
