// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both targets with a model of the bits do to an image.

use std::path::Path;
use std::sync::Arc;

use qbm_core::check::{CheckOptions, check};
use qbm_core::{Activation, Begun, Durability, Image, OpenOptions};

use crate::disk::Disk;
use crate::runs::Runs;

/// The descriptor.
pub(crate) const PATH: &str = "/d/x.qbm";
/// The data image.
pub(crate) const DATA: &str = "/d/x.qbm.raw";

/// Opened and activated.
pub(crate) fn opened(disk: &Arc<Disk>, activation: &Activation) -> qbm_core::Result<Image> {
    let options = OpenOptions {
        read_only: activation.read_only,
        ..OpenOptions::default()
    };
    let image = Image::open(disk.clone(), Path::new(PATH), options)?;
    image.activate(activation)?;
    Ok(image)
}

/// As [`opened`], with nobody to vouch for anything.
pub(crate) fn activated(
    disk: &Arc<Disk>,
    size_bytes: u64,
    read_only: bool,
    durability: Option<Durability>,
) -> qbm_core::Result<Image> {
    let activation = Activation {
        size_bytes,
        read_only,
        durability,
        ..Activation::default()
    };
    opened(disk, &activation)
}

/// A bitmap's dirty granules; `None` if it is not loaded.
pub(crate) fn dirty(image: &Image, name: &str, granularity_bytes: u64) -> Option<Runs> {
    let mut runs = Runs::default();
    let mut next = 0;
    while let Some(extent) = image.next_dirty_extent(name, next).ok()? {
        let start = extent.offset_bytes;
        assert_eq!(image.next_dirty(name, next).ok(), Some(Some(start)));
        assert!(start.is_multiple_of(granularity_bytes) && extent.length_bytes > 0);
        assert!(
            next == 0 || start > next,
            "extents are as long as they can be"
        );
        next = extent.end_bytes();
        runs.insert(start / granularity_bytes, next.div_ceil(granularity_bytes));
    }
    assert_eq!(image.dirty_count(name).ok(), Some(runs.count()));
    Some(runs)
}

/// How many bitmaps can be used, by a check.
///
/// # Panics
/// `is_clean`, and something is wrong.
pub(crate) fn checked(disk: &Arc<Disk>, size_bytes: u64, is_clean: bool) -> usize {
    let options = CheckOptions {
        size_bytes: Some(size_bytes),
        ..CheckOptions::default()
    };
    let report = check(disk.clone(), Path::new(PATH), &options).expect("the disk always opens");
    assert!(!is_clean || report.is_clean(), "{:?}", report.findings);
    report.usable_count
}

/// Whether a bitmap can be used.
pub(crate) fn is_consistent(image: &Image, name: &str) -> bool {
    let bitmap = image.bitmap(name).expect("a bitmap is never forgotten");
    !bitmap.inconsistent
}

/// A write from beginning to end.
pub(crate) fn write(image: &Image, offset_bytes: u64, length_bytes: u64) {
    let (ticket, begun) = image
        .begin_write(offset_bytes, length_bytes)
        .expect("the image is writable");
    assert_eq!(begun, Begun::Ready, "this disk never fails");
    image.end_write(ticket);
}

/// The granules that a write touches, put into `runs`.
pub(crate) fn touch(
    runs: &mut Runs,
    offset_bytes: u64,
    length_bytes: u64,
    granularity_bytes: u64,
    size_bytes: u64,
) {
    if length_bytes > 0 {
        let end = offset_bytes.saturating_add(length_bytes);
        let count = size_bytes.div_ceil(granularity_bytes);
        let granules = offset_bytes / granularity_bytes..end.div_ceil(granularity_bytes);
        runs.insert(granules.start, granules.end.min(count));
    }
}
