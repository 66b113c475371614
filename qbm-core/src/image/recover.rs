// SPDX-License-Identifier: MIT OR Apache-2.0
//! What bitmaps are worth when an image is found: after a clean close, a crash, a foreign resize (I2).

use crate::caps;
use crate::descriptor::{Descriptor, Durability, Session};
use crate::error::Result;

/// What the descriptor and the data image's size say about all bitmaps together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Bitmap files fit `recorded_bytes` and hold every write.
    Trusted {
        /// Size of the image that the bitmap files were made for.
        recorded_bytes: u64,
        /// A resize to this size was under way: files may have either length.
        resize_to_bytes: Option<u64>,
        /// The writer crashed; told to the operator.
        crashed: bool,
    },
    /// No bitmap can be trusted, for this reason.
    Inconsistent(String),
}

/// Judges an image whose data image has `size_bytes` now. `boot_id`: of this boot.
pub(super) fn judge(descriptor: &Descriptor, size_bytes: u64, boot_id: &str) -> Verdict {
    let Some(session) = &descriptor.session else {
        let recorded_bytes = descriptor
            .seal
            .as_ref()
            .map_or(size_bytes, |seal| seal.size_bytes);
        return by_size(recorded_bytes, None, size_bytes, false);
    };
    match session.durability {
        Durability::Close => {
            Verdict::Inconsistent("the image was not closed cleanly (durability close)".into())
        }
        Durability::Process => judge_crash(session, size_bytes, boot_id),
    }
}

/// `process` survives its process: the page cache that took the bits must still be the same one.
fn judge_crash(session: &Session, size_bytes: u64, boot_id: &str) -> Verdict {
    if session.boot_id != boot_id {
        return Verdict::Inconsistent(
            "the image was not closed cleanly and the host has restarted since (durability process)".into(),
        );
    }
    by_size(
        session.size_bytes,
        session.resize_to_bytes,
        size_bytes,
        true,
    )
}

fn by_size(recorded: u64, resize_to: Option<u64>, size_bytes: u64, crashed: bool) -> Verdict {
    // Smaller than recorded is fine only if it was us who shrank it.
    if size_bytes < recorded && resize_to != Some(size_bytes) {
        return Verdict::Inconsistent(format!(
            "the data image shrank from {recorded} to {size_bytes} bytes while the image was closed"
        ));
    }
    Verdict::Trusted {
        recorded_bytes: recorded,
        resize_to_bytes: resize_to,
        crashed,
    }
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
mod tests {
    use super::*;
    use crate::descriptor::Seal;

    fn judged(
        session: Option<(Durability, u64, Option<u64>)>,
        seal: Option<u64>,
        size_bytes: u64,
        boot_id: &str,
    ) -> bool {
        let mut descriptor = Descriptor::new("d".into(), "raw".into());
        descriptor.session = session.map(|(durability, size_bytes, resize_to_bytes)| Session {
            generation: 0,
            durability,
            boot_id: "this".into(),
            size_bytes,
            resize_to_bytes,
        });
        descriptor.seal = seal.map(|size_bytes| Seal {
            generation: 1,
            size_bytes,
        });
        matches!(
            judge(&descriptor, size_bytes, boot_id),
            Verdict::Trusted { .. }
        )
    }

    #[test]
    fn who_is_trusted() {
        use Durability::{Close, Process};
        assert!(
            judged(None, None, 5120, "any"),
            "as proposed: nothing recorded"
        );
        assert!(judged(None, Some(5120), 5120, "any"));
        assert!(judged(None, Some(5120), 9999, "any"), "grown");
        assert!(!judged(None, Some(5120), 512, "any"), "shrunk");
        assert!(!judged(Some((Close, 5120, None)), None, 5120, "this"));
        assert!(judged(Some((Process, 5120, None)), None, 5120, "this"));
        assert!(!judged(Some((Process, 5120, None)), None, 5120, "other"));
        assert!(!judged(Some((Process, 5120, None)), None, 512, "this"));
        assert!(judged(Some((Process, 5120, Some(512))), None, 512, "this"));
        assert!(!judged(
            Some((Process, 5120, Some(1024))),
            None,
            512,
            "this"
        ));
    }

    #[test]
    fn lengths() {
        check_length(2, 512, 512 * 9, None).unwrap();
        check_length(1, 512, 512 * 9, None).unwrap_err();
        check_length(3, 512, 512 * 9, None).unwrap_err();
        check_length(1, 512, 512 * 9, Some(512)).unwrap();
        check_length(0, 512, u64::MAX / 4, None).unwrap_err();
    }
}
