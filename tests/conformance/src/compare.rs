// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an implementation found against what was expected.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use qbm_core::Error;

use crate::case::{Bitmap, Found, Refusal};
use crate::observe::{Seen, refusal};

/// Fails unless `error` is of the kind and has the words.
///
/// # Errors
/// Says what is different.
pub fn ensure_refused(expected: &Refusal, error: &Error) -> Result<()> {
    let seen = refusal(error);
    ensure!(
        seen.kind == expected.kind,
        "refused as {}, not as {}: {error}",
        seen.kind,
        expected.kind
    );
    for word in &expected.words {
        ensure!(
            error.to_string().contains(word),
            "the message lacks {word:?}: {error}"
        );
    }
    Ok(())
}

/// Fails unless what was seen is what was expected.
///
/// # Errors
/// Says what is different.
pub fn ensure_found(expected: &Found, seen: &Seen, directory: &Path) -> Result<()> {
    let file = expected.file.as_deref().unwrap_or("disk.raw");
    let data_file = directory.join(file);
    ensure!(
        seen.data_file == data_file,
        "data image is {:?}, not {data_file:?}",
        seen.data_file
    );
    let format = expected.format.as_deref().unwrap_or("raw");
    ensure!(
        seen.data_format == format,
        "format is {:?}, not {format:?}",
        seen.data_format
    );
    if let Some(persist_bitmaps) = &expected.persist_bitmaps {
        ensure!(
            seen.persist_bitmaps == *persist_bitmaps,
            "persist-bitmaps is {}, not {persist_bitmaps}",
            seen.persist_bitmaps
        );
    }
    if let Some(durability) = &expected.durability {
        ensure!(
            seen.durability == *durability,
            "durability is {}, not {durability}",
            seen.durability
        );
    }
    if expected.size_bytes.is_some() {
        ensure!(
            seen.size_bytes == expected.size_bytes,
            "size on record is {:?}, not {:?}",
            seen.size_bytes,
            expected.size_bytes
        );
    }
    ensure_bitmaps(expected, seen)?;
    ensure_inconsistent(expected, seen)?;
    for word in &expected.notices {
        ensure!(
            seen.notices.iter().any(|notice| notice.contains(word)),
            "no notice has {word:?}: {:?}",
            seen.notices
        );
    }
    Ok(())
}

fn ensure_bitmaps(expected: &Found, seen: &Seen) -> Result<()> {
    if let Some(count) = expected.bitmaps_count {
        ensure!(
            seen.bitmaps.len() == count,
            "{} bitmaps, not {count}",
            seen.bitmaps.len()
        );
        return Ok(());
    }
    let names = |found: &std::collections::BTreeMap<String, Bitmap>| {
        found.keys().cloned().collect::<BTreeSet<_>>()
    };
    ensure!(
        names(&expected.bitmaps) == names(&seen.bitmaps),
        "bitmaps are {:?}, not {:?} (notices: {:?})",
        names(&seen.bitmaps),
        names(&expected.bitmaps),
        seen.notices
    );
    for (name, wanted) in &expected.bitmaps {
        let Some(bitmap) = seen.bitmaps.get(name) else {
            bail!("no bitmap {name:?}");
        };
        ensure!(
            bitmap.granularity_bytes == wanted.granularity_bytes,
            "{name:?}: granularity is {}, not {}",
            bitmap.granularity_bytes,
            wanted.granularity_bytes
        );
        ensure!(
            bitmap.recording == wanted.recording,
            "{name:?}: recording is {}",
            bitmap.recording
        );
        ensure!(
            bitmap.user_data == wanted.user_data,
            "{name:?}: user data is {:?}, not {:?}",
            bitmap.user_data,
            wanted.user_data
        );
        if wanted.dirty.is_some() {
            ensure!(
                bitmap.dirty == wanted.dirty,
                "{name:?}: dirty is {:?}, not {:?}",
                bitmap.dirty,
                wanted.dirty
            );
        }
    }
    Ok(())
}

fn ensure_inconsistent(expected: &Found, seen: &Seen) -> Result<()> {
    let wanted: BTreeSet<_> = expected.inconsistent.keys().collect();
    let found: BTreeSet<_> = seen.inconsistent.iter().collect();
    ensure!(
        wanted == found,
        "inconsistent are {found:?}, not {wanted:?} (notices: {:?})",
        seen.notices
    );
    for (name, words) in &expected.inconsistent {
        let is_told = |notice: &String| words.iter().all(|word| notice.contains(word));
        ensure!(
            words.is_empty() || seen.notices.iter().any(is_told),
            "no notice tells with {words:?} why {name:?} is inconsistent: {:?}",
            seen.notices
        );
    }
    Ok(())
}
