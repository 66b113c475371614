// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mending what a check found.

use std::path::Path;
use std::sync::Arc;

use super::{CheckOptions, Finding, FindingKind, Report};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::image::{Image, OpenOptions};
use crate::storage::Storage;

/// Checks an image and mends what can be mended; the report says what was, and what is left.
///
/// A torn descriptor is put right, a crash recovered from, what cannot be trusted is listed as inconsistent, padding is
/// zeroed, files that nobody needs are removed. The data image is never written, and no bitmap becomes trusted that is
/// not. Durable when this returns.
///
/// # Errors
/// As [`check`](super::check); [`NotFound`](ErrorKind::NotFound) when the data image is missing: what its bitmaps are worth cannot be
/// told without it; whatever the system says. What was mended until then stays so.
pub fn repair(storage: Arc<dyn Storage>, path: &Path, options: &CheckOptions) -> Result<Report> {
    let image = open(storage, path, options)?;
    let before = image.examine(options)?;
    let missing = before.find(FindingKind::DataImageMissing);
    if let Some(missing) = missing {
        let text = format!(
            "descriptor {}: {}; nothing was repaired",
            quoted(path.display()),
            missing.message
        );
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    if !before.findings.iter().any(|finding| finding.repairable) {
        return Ok(before);
    }
    image.mend(options, &before)?;
    let after = image.examine(options)?;
    Ok(compare(before, after))
}

/// Checks an image and removes the files that nobody needs, leftovers of a crash; mends nothing else.
///
/// Beside a torn descriptor nothing is removed: [`repair`] puts that right first.
///
/// # Errors
/// As [`check`](super::check); whatever the system says. What was removed until then stays so.
pub fn repair_leaks(
    storage: Arc<dyn Storage>,
    path: &Path,
    options: &CheckOptions,
) -> Result<Report> {
    let image = open(storage, path, options)?;
    let before = image.examine(options)?;
    image.remove_leaks(&before)?;
    let after = image.examine(options)?;
    Ok(compare(before, after))
}

/// What is there to be mended: for writing, whatever its state.
fn open(storage: Arc<dyn Storage>, path: &Path, options: &CheckOptions) -> Result<Image> {
    let open = OpenOptions {
        no_lock: options.no_lock,
        ..OpenOptions::default()
    };
    Image::open_any(storage, path, open)
}

/// The findings of before, those that are gone as repaired; what only came to light afterwards follows.
fn compare(before: Report, after: Report) -> Report {
    let is_same = |one: &Finding, other: &Finding| {
        (one.kind, &one.bitmap, &one.file) == (other.kind, &other.bitmap, &other.file)
    };
    let mut findings = before.findings;
    for finding in &mut findings {
        finding.repaired =
            finding.repairable && !after.findings.iter().any(|other| is_same(finding, other));
    }
    let known = findings.clone();
    let come_to_light = after.findings.into_iter();
    let is_new = |finding: &Finding| !known.iter().any(|other| is_same(other, finding));
    findings.extend(come_to_light.filter(is_new));
    Report {
        findings,
        usable_count: after.usable_count,
        bitmaps_count: after.bitmaps_count,
    }
}
