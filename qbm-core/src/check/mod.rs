// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checking an image, and repairing what can be repaired.
//!
//! [`check()`] writes nothing. [`repair_leaks()`] removes files that nobody needs. [`repair()`] never writes to a data
//! image and never makes a bitmap trusted that is not: what cannot be shown to hold every write becomes inconsistent, as
//! it would at the next open for writing.

mod finding;
mod orphans;
mod repair;

use std::path::Path;
use std::sync::Arc;

pub use finding::{Finding, FindingKind, Report, Severity};
pub(crate) use orphans::{find as find_orphans, is_bitmap_length};
pub use repair::{repair, repair_leaks};

use crate::error::Result;
use crate::image::{DataPath, Image, OpenOptions};
use crate::storage::Storage;

/// How an image is checked.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// The data image's size in bytes; `None`: that of the file, if the image is a raw one, otherwise what was recorded.
    pub size_bytes: Option<u64>,
    /// Where the data image is.
    pub data_path: DataPath,
    /// The caller holds QEMU's locks on the descriptor already.
    pub no_lock: bool,
    /// Others may have the image open, even for writing; then little can be said of its bitmaps. Not for [`repair()`].
    pub shared: bool,
}

/// Looks for everything that is wrong with an image. Writes nothing.
///
/// Reads every bitmap file, but not the data image.
///
/// # Errors
/// The descriptor cannot be read or breaks a rule that makes it useless; [`Locked`](crate::ErrorKind::Locked) when
/// another process has the image open for writing.
pub fn check(storage: Arc<dyn Storage>, path: &Path, options: &CheckOptions) -> Result<Report> {
    let open = OpenOptions {
        no_lock: options.no_lock,
        shared: options.shared,
        read_only: true,
    };
    let image = Image::open_any(storage, path, open)?;
    image.examine(options)
}
