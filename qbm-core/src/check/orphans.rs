// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap files that no bitmap has: a crash came between making one and naming it, or between naming its successor and
//! removing it.
//!
//! What somebody else may need is no orphan: a file that no bitmap of this image could have, one that another descriptor
//! beside this one names, or one whose name another descriptor may have derived.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::caps;
use crate::descriptor::{DescriptorFile, directory, probe};
use crate::error::{Error, Result};
use crate::image::is_derived_bitmap_name;
use crate::storage::{Access, FileId, Storage};

/// How much of a file tells whether it is a descriptor.
const HEAD_BYTES: u64 = 512;

/// Files beside `descriptor` that have a name as its bitmap files get it and are none of `known`. The image has
/// `size_bytes`.
pub(crate) fn find(
    storage: &dyn Storage,
    descriptor: &Path,
    known: &HashSet<FileId>,
    size_bytes: u64,
) -> Result<Vec<PathBuf>> {
    let directory = directory(descriptor);
    let names = storage
        .list(directory)
        .map_err(|error| Error::io("cannot list directory", directory, error))?;
    let Some(own) = descriptor.file_name().and_then(OsStr::to_str) else {
        return Ok(Vec::new());
    };
    let all: HashSet<&str> = names.iter().filter_map(|name| name.to_str()).collect();
    // `x.qbm` and `x.qbm.a` both lead to `x.qbm.a.1.bitmap`.
    let is_derived_elsewhere = |name: &str| {
        let dots = name.match_indices('.').filter_map(|(at, _)| name.get(..at));
        dots.filter(|other| *other != own && all.contains(other))
            .any(|other| is_derived_bitmap_name(other, name))
    };
    let mut orphans: Vec<(PathBuf, FileId)> = all
        .iter()
        .filter(|name| is_derived_bitmap_name(own, name) && !is_derived_elsewhere(name))
        .filter_map(|name| {
            let path = directory.join(name);
            let metadata = storage.metadata(&path).ok()?;
            let is_orphan = metadata.is_regular
                && !known.contains(&metadata.id)
                && is_bitmap_length(metadata.length_bytes, size_bytes);
            is_orphan.then_some((path, metadata.id))
        })
        .collect();
    if orphans.is_empty() {
        return Ok(Vec::new());
    }
    let mut others = names.iter().filter(|name| *name != own);
    let named = others.try_fold(HashSet::new(), |mut named: HashSet<FileId>, name| {
        named.extend(files_named_by(storage, &directory.join(name))?);
        Some(named)
    });
    // A descriptor that cannot be read may name any of them.
    let Some(named) = named else {
        return Ok(Vec::new());
    };
    orphans.retain(|(_, id)| !named.contains(id));
    let mut paths: Vec<PathBuf> = orphans.into_iter().map(|(path, _)| path).collect();
    paths.sort();
    Ok(paths)
}

/// Whether a bitmap of an image of `size_bytes` can have a file of that length, at some granularity. A file that was only
/// just made is empty.
pub(crate) fn is_bitmap_length(length_bytes: u64, size_bytes: u64) -> bool {
    let shifts = caps::GRANULARITY_BYTES_MIN.ilog2()..=caps::GRANULARITY_BYTES_MAX.ilog2();
    let mut lengths = shifts.map(|shift| {
        let granularity_bytes = 1_u64.wrapping_shl(shift);
        caps::bitmap_file_bytes(size_bytes.div_ceil(granularity_bytes))
    });
    length_bytes == 0 || lengths.any(|length| length == length_bytes)
}

/// The files that another descriptor names, if that is what a file is; `None` where it may be one and cannot be read.
fn files_named_by(storage: &dyn Storage, path: &Path) -> Option<Vec<FileId>> {
    let file = match storage.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if is_no_file(&error) => return Some(Vec::new()),
        Err(_) => return None,
    };
    let length_bytes = file.length().ok()?;
    if length_bytes > caps::DESCRIPTOR_BYTES_MAX {
        return Some(Vec::new());
    }
    let mut head = vec![0; usize::try_from(length_bytes.min(HEAD_BYTES)).ok()?];
    file.read_at(0, &mut head).ok()?;
    // A descriptor may begin with other members than QBM.
    if head.trim_ascii_start().first() != Some(&b'{') {
        return Some(Vec::new());
    }
    let other = DescriptorFile::open(storage, path, Access::Read).ok()?;
    let Ok(other) = other.read(storage) else {
        return if probe(&head) { None } else { Some(Vec::new()) };
    };
    let files = other.files().into_iter().chain([other.image.file.clone()]);
    let ids = files.filter_map(|file| storage.metadata(&directory(path).join(file)).ok());
    Some(ids.map(|metadata| metadata.id).collect())
}

/// A directory, a device and the like, or gone meanwhile.
fn is_no_file(error: &io::Error) -> bool {
    let is_kind = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
    );
    is_kind || error.raw_os_error() == Some(libc::EISDIR)
}
