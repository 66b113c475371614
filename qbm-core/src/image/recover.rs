// SPDX-License-Identifier: MIT OR Apache-2.0
//! What bitmaps are worth when an image is found: after a clean close, a crash, a change behind QBM's back (I2).

use crate::caps;
use crate::descriptor::{Descriptor, Durability, Seal, Session};
use crate::error::Result;
use crate::sabotage::sabotaged;
use crate::storage::Timestamp;

/// What can be seen of the data image's modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modified {
    /// A regular file that the guest sees as it is.
    At(Timestamp),
    /// Something else, or gone.
    NotAFile,
    /// It is not for us to look: another node, or a format that writes by itself.
    Unknown,
}

impl Modified {
    /// As a seal keeps it.
    pub(super) fn timestamp(self) -> Option<Timestamp> {
        match self {
            Self::At(timestamp) => Some(timestamp),
            Self::NotAFile | Self::Unknown => None,
        }
    }
}

/// The image as it is found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) size_bytes: u64,
    pub(super) modified: Modified,
    /// Of this boot.
    pub(super) boot_id: &'a str,
    /// Somebody vouches for the data image.
    pub(super) trust_data: bool,
}

/// What the descriptor and the data image say about all bitmaps together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Bitmap files fit the recorded size and hold every write.
    Trusted(Trusted),
    /// No bitmap can be trusted, for this reason.
    Inconsistent(String),
}

/// Why bitmaps are trusted, and what their files look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trusted {
    /// Size of the image that the bitmap files were made for.
    pub(super) recorded_bytes: u64,
    /// A resize to this size was under way: files may have either length.
    pub(super) resize_to_bytes: Option<u64>,
    /// The writer crashed; told to the operator. Otherwise the image was closed, and checksums hold.
    pub(super) crashed: bool,
    /// A seal says so, and nothing speaks against it.
    pub(super) is_as_sealed: bool,
    /// What would have made every bitmap inconsistent, had nobody vouched for the data image.
    pub(super) overruled: Option<String>,
}

/// Judges an image as it is found.
pub(super) fn judge(descriptor: &Descriptor, found: &Found<'_>) -> Verdict {
    if let Some(session) = &descriptor.session {
        return judge_crash(session, found);
    }
    match &descriptor.seal {
        Some(seal) => judge_seal(seal, found),
        None if descriptor.seal_is_damaged => {
            Verdict::Inconsistent("the seal of the image cannot be read".into())
        }
        // As proposed: nothing is recorded, so nothing can be held against it.
        None => Verdict::Trusted(Trusted {
            recorded_bytes: found.size_bytes,
            ..Trusted::default()
        }),
    }
}

fn judge_crash(session: &Session, found: &Found<'_>) -> Verdict {
    match session.durability {
        Durability::Close => {
            return Verdict::Inconsistent(
                "the image was not closed cleanly (durability close)".into(),
            );
        }
        // It survives its process: the page cache that took the bits must still be the same one.
        Durability::Process
            if session.boot_id != found.boot_id && !sabotaged!("stale-boot-id-ignored") =>
        {
            return Verdict::Inconsistent(
                "the image was not closed cleanly and the host has restarted since (durability process)".into(),
            );
        }
        Durability::Process => {}
    }
    let is_ours = session.resize_to_bytes == Some(found.size_bytes);
    let shrank = shrank(session.size_bytes, found.size_bytes).filter(|_| !is_ours);
    let trusted = Trusted {
        recorded_bytes: session.size_bytes,
        resize_to_bytes: session.resize_to_bytes,
        crashed: true,
        is_as_sealed: false,
        overruled: None,
    };
    unless(shrank, found, trusted)
}

fn judge_seal(seal: &Seal, found: &Found<'_>) -> Verdict {
    let complaint = shrank(seal.size_bytes, found.size_bytes)
        // Growing changes the modification time too: a file that grew is taken at its word.
        .or_else(|| changed(seal, found.modified).filter(|_| seal.size_bytes == found.size_bytes));
    let trusted = Trusted {
        recorded_bytes: seal.size_bytes,
        is_as_sealed: complaint.is_none(),
        ..Trusted::default()
    };
    unless(complaint, found, trusted)
}

/// `trusted`, unless there is a complaint about the data image that nobody overrules.
fn unless(complaint: Option<String>, found: &Found<'_>, mut trusted: Trusted) -> Verdict {
    match complaint {
        Some(reason) if !found.trust_data => Verdict::Inconsistent(reason),
        complaint => {
            trusted.overruled = complaint;
            Verdict::Trusted(trusted)
        }
    }
}

fn shrank(recorded_bytes: u64, size_bytes: u64) -> Option<String> {
    (size_bytes < recorded_bytes).then(|| {
        format!("the data image shrank from {recorded_bytes} to {size_bytes} bytes while the image was closed")
    })
}

fn changed(seal: &Seal, modified: Modified) -> Option<String> {
    let sealed = seal.modified?;
    match modified {
        Modified::At(now) if now == sealed => None,
        Modified::At(now) => Some(format!(
            "the data image was written or replaced while the image was closed (modified at {}, sealed at {})",
            seconds(now),
            seconds(sealed)
        )),
        Modified::NotAFile => Some(
            "the data image is not the file any more that it was when the image was closed".into(),
        ),
        Modified::Unknown => None,
    }
}

/// Seconds since the epoch, as `stat -c %.9Y` prints them.
fn seconds(timestamp: Timestamp) -> String {
    format!("{}.{:09}", timestamp.seconds, timestamp.nanoseconds)
}

/// Checks a bitmap file's length; `Err` is the reason that the bitmap is inconsistent.
pub(super) fn check_length(
    length_bytes: u64,
    granularity_bytes: u64,
    recorded_bytes: u64,
    resize_to_bytes: Option<u64>,
) -> std::result::Result<(), String> {
    let fits = |image_bytes: u64| -> Result<bool> {
        let bits = caps::bits_count(image_bytes, granularity_bytes)?;
        Ok(length_bytes == caps::bitmap_file_bytes(bits))
    };
    let fitting = fits(recorded_bytes).map_err(|error| error.to_string())?;
    if fitting || resize_to_bytes.is_some_and(|size| matches!(fits(size), Ok(true))) {
        return Ok(());
    }
    let expected = recorded_bytes.div_ceil(granularity_bytes).div_ceil(8);
    Err(format!(
        "the bitmap file has {length_bytes} bytes, not {expected}"
    ))
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
