// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap files that no bitmap has: a crash came between making one and naming it, or between naming its successor and
//! removing it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::descriptor::directory;
use crate::error::{Error, Result};
use crate::image::is_derived_bitmap_name;
use crate::storage::{FileId, Storage};

/// Files beside `descriptor` that have a name as its bitmap files get it and are none of `known`.
///
/// Another descriptor may have a name from which that one follows as well (`x.qbm` and `x.qbm.a` both lead to
/// `x.qbm.a.1.bitmap`): where such a file exists, what could be its own is left out.
pub(crate) fn find(
    storage: &dyn Storage,
    descriptor: &Path,
    known: &HashSet<FileId>,
) -> Result<Vec<PathBuf>> {
    let directory = directory(descriptor);
    let names = storage
        .list(directory)
        .map_err(|error| Error::io("cannot list directory", directory, error))?;
    let Some(own) = descriptor.file_name().and_then(OsStr::to_str) else {
        return Ok(Vec::new());
    };
    let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
    let is_claimed = |name: &str| {
        let mut others = names
            .iter()
            .filter(|other| **other != own && **other != name);
        others.any(|other| other.starts_with(own) && is_derived_bitmap_name(other, name))
    };
    let mut orphans: Vec<PathBuf> = names
        .iter()
        .filter(|name| is_derived_bitmap_name(own, name) && !is_claimed(name))
        .map(|name| directory.join(name))
        .filter(|path| {
            let metadata = storage.metadata(path);
            metadata.is_ok_and(|metadata| metadata.is_regular && !known.contains(&metadata.id))
        })
        .collect();
    orphans.sort();
    Ok(orphans)
}
