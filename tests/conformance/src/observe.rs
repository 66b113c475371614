// SPDX-License-Identifier: MIT OR Apache-2.0
//! qbm-core, asked through its public interface. Another implementation needs another file like this one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use qbm_core::check::CheckOptions;
use qbm_core::storage::{OsStorage, Storage};
use qbm_core::{Activation, DataPath, Error, ErrorKind, Image, OpenOptions};

use crate::case::{Bitmap, Case, Refusal};

/// What was found in an image that opened.
#[derive(Debug, Default)]
pub struct Seen {
    /// Bitmaps that can be used; `dirty` only once activated.
    pub bitmaps: BTreeMap<String, Bitmap>,
    /// Names of the others.
    pub inconsistent: Vec<String>,
    /// What the operator is told, in order.
    pub notices: Vec<String>,
    /// The durability in force or stored.
    pub durability: String,
    /// Which bitmaps are to be stored.
    pub persist_bitmaps: String,
    /// The size known.
    pub size_bytes: Option<u64>,
    /// The data image, resolved.
    pub data_file: std::path::PathBuf,
    /// Its format.
    pub data_format: String,
}

/// The refusal that an error is; `words` holds its whole message.
#[must_use]
pub fn refusal(error: &Error) -> Refusal {
    let kind = match error.kind() {
        ErrorKind::Invalid => "invalid",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::NotFound => "not-found",
        ErrorKind::Exists => "exists",
        ErrorKind::NameTooLong => "name-too-long",
        ErrorKind::TooBig => "too-big",
        ErrorKind::ReadOnly => "read-only",
        ErrorKind::Locked => "locked",
        _ => "io",
    };
    Refusal {
        kind: kind.to_owned(),
        words: vec![error.to_string()],
    }
}

/// Opens the descriptor at `path`.
///
/// # Errors
/// The image is refused.
pub fn open(path: &Path, read_only: bool) -> qbm_core::Result<Image> {
    open_in(Arc::new(OsStorage), path, read_only)
}

/// As [`open`], in a storage.
///
/// # Errors
/// The image is refused.
pub fn open_in(storage: Arc<dyn Storage>, path: &Path, read_only: bool) -> qbm_core::Result<Image> {
    let options = OpenOptions {
        read_only,
        ..OpenOptions::default()
    };
    Image::open(storage, path, options)
}

/// How a case is activated.
#[must_use]
pub fn activation(case: &Case, read_only: bool) -> Activation {
    Activation {
        size_bytes: size_bytes(case),
        read_only,
        trust_data: case.trust_data,
        data_path: data_path(case),
        ..Activation::default()
    }
}

fn data_path(case: &Case) -> DataPath {
    if case.data_is_given {
        DataPath::Unknown
    } else {
        DataPath::Stored
    }
}

/// How a case is checked.
#[must_use]
pub fn check_options(case: &Case) -> CheckOptions {
    CheckOptions {
        size_bytes: Some(size_bytes(case)),
        data_path: data_path(case),
        ..CheckOptions::default()
    }
}

fn size_bytes(case: &Case) -> u64 {
    let length = case.data.as_ref().map_or(0, |data| data.size_bytes);
    case.size_bytes.unwrap_or(length)
}

/// Everything that the interface tells of an image.
///
/// # Errors
/// The interface does not tell what it should.
pub fn look(image: &Image) -> qbm_core::Result<Seen> {
    let info = image.info();
    let mut seen = Seen {
        notices: std::iter::from_fn(|| image.take_notice()).collect(),
        durability: info.durability.name().to_owned(),
        persist_bitmaps: info.persist_bitmaps.name().to_owned(),
        size_bytes: info.size_bytes,
        data_file: info.data_file,
        data_format: info.data_format,
        ..Seen::default()
    };
    for bitmap in image.bitmaps() {
        if bitmap.inconsistent {
            seen.inconsistent.push(bitmap.name);
            continue;
        }
        let is_loaded = info.active && !bitmap.in_use || info.writable;
        let dirty = if is_loaded {
            Some(extents(image, &bitmap.name)?)
        } else {
            None
        };
        let found = Bitmap {
            granularity_bytes: bitmap.granularity_bytes,
            recording: bitmap.recording,
            user_data: image
                .user_data(&bitmap.name)?
                .map(|data| BASE64.encode(data)),
            dirty,
        };
        seen.bitmaps.insert(bitmap.name, found);
    }
    Ok(seen)
}

/// Dirty bytes as maximal extents.
fn extents(image: &Image, name: &str) -> qbm_core::Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut offset = 0;
    while let Some(extent) = image.next_dirty_extent(name, offset)? {
        extents.push((extent.offset_bytes, extent.length_bytes));
        offset = extent.end_bytes();
    }
    Ok(extents)
}
