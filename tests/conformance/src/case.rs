// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a fixture says. `README.md` explains each member for those who bring another implementation.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A refusal: which kind, and words that the message has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Refusal {
    /// `invalid`, `unsupported`, `too-big`, `locked`, ...
    pub kind: String,
    /// Each occurs in the message.
    pub words: Vec<String>,
}

/// A bitmap that can be used.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bitmap {
    /// Bytes of the disk that one bit covers.
    pub granularity_bytes: u64,
    /// Guest writes set bits.
    pub recording: bool,
    /// Its user data in base64; absent: it has none.
    pub user_data: Option<String>,
    /// Dirty bytes of the disk, as `[offset, length]`, maximal and in order. Not given for descriptors by themselves.
    pub dirty: Option<Vec<(u64, u64)>>,
}

/// What is found in a fixture that is accepted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Found {
    /// The data image's name, as it stands in the descriptor; absent: `disk.raw`.
    pub file: Option<String>,
    /// Its format; absent: `raw`.
    pub format: Option<String>,
    /// Every bitmap that can be used.
    pub bitmaps: BTreeMap<String, Bitmap>,
    /// In place of `bitmaps`, where there are too many to list.
    pub bitmaps_count: Option<usize>,
    /// Every inconsistent bitmap, and words of the reason that is told when it is found.
    pub inconsistent: BTreeMap<String, Vec<String>>,
    /// The durability of an opening that asks for none.
    pub durability: Option<String>,
    /// Which bitmaps are to be stored.
    pub persist_bitmaps: Option<String>,
    /// The size on record.
    pub size_bytes: Option<u64>,
    /// Words that occur in what the operator is told.
    pub notices: Vec<String>,
    /// The text is recognised by its beginning.
    pub recognised: Option<bool>,
}

/// A modification time.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Since 1970.
    pub seconds: u64,
    /// Of the second.
    pub nanoseconds: u32,
}

/// The data image that the test makes: zeros that take no space.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Data {
    /// Its name.
    pub file: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its modification time.
    pub modified: Time,
}

/// What an opening for writing and a clean close leave.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct After {
    /// Pieces of text that the descriptor has then, white space aside.
    pub has: Vec<String>,
    /// Pieces of text that it has not.
    pub lacks: Vec<String>,
    /// Names in the directory then, sorted; absent: the same as before.
    pub files: Option<Vec<String>>,
    /// Bitmap files then, in hexadecimal.
    pub bits: BTreeMap<String, String>,
}

/// A whole image: `case.json` beside its files.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Case {
    /// One sentence for the reader.
    #[serde(rename = "about")]
    pub _about: String,
    /// Absent: there is none.
    pub data: Option<Data>,
    /// Size of the disk as the opener is told, where it is not the data image's length.
    pub size_bytes: Option<u64>,
    /// The opener brings a data image of its own: nothing of it but the size can be compared.
    #[serde(default)]
    pub data_is_given: bool,
    /// The override is used.
    #[serde(default)]
    pub trust_data: bool,
    /// What is found; exactly one of the two is given.
    pub found: Option<Found>,
    /// The image is refused.
    pub refused: Option<Refusal>,
    /// What an opening for writing leaves.
    #[serde(default)]
    pub after: After,
}

/// A bitmap file by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bits {
    /// One sentence for the reader.
    #[serde(rename = "about")]
    pub _about: String,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Bytes of it that one bit covers.
    pub granularity_bytes: u64,
    /// Guest writes that lead from a file of zeros to this one, as `[offset, length]`.
    pub writes: Vec<(u64, u64)>,
    /// What the file says is dirty, as maximal extents.
    pub dirty: Vec<(u64, u64)>,
}

/// Reads JSON of type `T`.
///
/// # Errors
/// It cannot be read, or is no `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}

/// A table of expectations by file name; its licence line is left out.
///
/// # Errors
/// As [`read`].
pub fn read_table<T: DeserializeOwned>(path: &Path) -> Result<BTreeMap<String, T>> {
    let mut table: BTreeMap<String, serde_json::Value> = read(path)?;
    table.remove("SPDX-License-Identifier");
    let rows = table.into_iter().map(|(name, value)| {
        let row = serde_json::from_value(value);
        Ok((name.clone(), row.with_context(|| name)?))
    });
    rows.collect()
}
