// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON descriptor: what an image is made of.

mod file;
mod object;
mod parse;
mod session;
mod write;

use serde_json::value::RawValue;

pub(crate) use file::{DescriptorFile, directory};
pub(crate) use object::Object;
pub(crate) use parse::check_format;
pub use session::{Durability, Seal, Session};

use crate::bits::Granularity;

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
    /// In the QBM object: bitmaps that must not be used.
    pub(crate) const INCONSISTENT: &str = "ext-soft-qbm-inconsistent";
    /// In the QBM object, after a clean close.
    pub(crate) const SEAL: &str = "ext-soft-qbm-seal";
    /// In the QBM object, while the image is open for writing.
    pub(crate) const SESSION: &str = "ext-hard-qbm-session";
    /// In the outermost object: CRC-32C of the text.
    pub(crate) const CHECKSUM: &str = "ext-soft-qbm-crc32c";
    /// In a BITMAP: whether guest writes set bits.
    pub(crate) const RECORDING: &str = "ext-soft-qbm-recording";
}

/// An IMAGE: where the guest's data is.
#[derive(Debug, Clone)]
pub(crate) struct ImageReference {
    /// File name, relative to the descriptor's directory unless absolute.
    pub(crate) file: String,
    /// QEMU's name of the format.
    pub(crate) format: String,
    object: Object,
}

/// A usable entry of `bitmaps`.
#[derive(Debug, Clone)]
pub(crate) struct BitmapEntry {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) granularity: Granularity,
    pub(crate) recording: bool,
    object: Object,
}

/// A bitmap that can only be removed: the entry as it was, and why.
#[derive(Debug, Clone)]
pub(crate) struct InconsistentEntry {
    pub(crate) name: String,
    /// The BITMAP, kept to the letter even where it is not valid.
    pub(crate) bitmap: Box<RawValue>,
    pub(crate) reason: String,
}

/// A parsed descriptor. Members that it does not know are kept where they stand.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    pub(crate) image: ImageReference,
    pub(crate) bitmaps: Vec<BitmapEntry>,
    pub(crate) inconsistent: Vec<InconsistentEntry>,
    pub(crate) durability: Option<Durability>,
    pub(crate) session: Option<Session>,
    pub(crate) seal: Option<Seal>,
    /// Entries of `bitmaps` that broke a rule when the text was read; they are in `inconsistent` too.
    pub(crate) complaints: Vec<String>,
    outer: Object,
    object: Object,
}

impl Descriptor {
    /// A descriptor for `file`, without bitmaps.
    pub(crate) fn new(file: String, format: String) -> Self {
        Self {
            image: ImageReference {
                file,
                format,
                object: Object::default(),
            },
            bitmaps: Vec::new(),
            inconsistent: Vec::new(),
            durability: None,
            session: None,
            seal: None,
            complaints: Vec::new(),
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

    pub(crate) fn bitmap(&self, name: &str) -> Option<&BitmapEntry> {
        self.bitmaps.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn bitmap_mut(&mut self, name: &str) -> Option<&mut BitmapEntry> {
        self.bitmaps.iter_mut().find(|entry| entry.name == name)
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.bitmap(name).is_some() || self.inconsistent.iter().any(|entry| entry.name == name)
    }

    pub(crate) fn names_count(&self) -> usize {
        self.bitmaps.len() + self.inconsistent.len()
    }

    /// Moves a bitmap to the inconsistent ones; the first reason stays.
    pub(crate) fn set_inconsistent(&mut self, name: &str, reason: &str) {
        if let Some(index) = self.bitmaps.iter().position(|entry| entry.name == name) {
            let entry = self.bitmaps.remove(index);
            self.inconsistent.push(InconsistentEntry {
                bitmap: entry.to_raw(),
                name: entry.name,
                reason: reason.to_owned(),
            });
        }
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

impl BitmapEntry {
    pub(crate) fn new(
        name: String,
        file: String,
        granularity: Granularity,
        recording: bool,
    ) -> Self {
        Self {
            name,
            file,
            granularity,
            recording,
            object: Object::default(),
        }
    }
}

impl InconsistentEntry {
    fn member<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        let object: Object = serde_json::from_str(self.bitmap.get()).ok()?;
        serde_json::from_str(object.get(name)?.get()).ok()
    }

    /// The file that the entry names, if it can be made out.
    pub(crate) fn file(&self) -> Option<String> {
        self.member(key::FILE)
    }

    /// The granularity in bytes, if the entry has a valid one.
    pub(crate) fn granularity_bytes(&self) -> Option<u64> {
        let bytes = self.member(key::GRANULARITY)?;
        Granularity::new(bytes).ok().map(Granularity::bytes)
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
