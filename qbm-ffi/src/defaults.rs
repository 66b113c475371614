// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image says of itself where its opener says nothing, and its change.

use qbm_core::Defaults;

use crate::call::with;
use crate::error::qbm_error;
use crate::image::{durability, persist_bitmaps, qbm_image};
use crate::structure::{self, SizeFirst};

/// Stored defaults that are to change.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_defaults {
    /// sizeof(qbm_defaults), set by the caller.
    pub size: usize,
    /// QBM_DURABILITY_*: what an activation has that gives none. With _DEFAULT what is stored stays.
    pub durability: u32,
    /// QBM_PERSIST_BITMAPS_*; with _DEFAULT what is stored stays.
    pub persist_bitmaps: u32,
}

// SAFETY: integers, size first.
unsafe impl SizeFirst for qbm_defaults {}

/// Changes what the descriptor stores, all of it at once; a crash leaves the old or the new. Durable when this returns.
///
/// The image need not be active, but must not be open or active for reading only. The durability in force stays what it is
/// until the next activation. Blocks.
///
/// Errors: -EINVAL (NULL, a value), -EROFS, -EFBIG (the descriptor's cap), or the system's: what is stored is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_set_defaults(
    image: *mut qbm_image,
    defaults: *const qbm_defaults,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let given = unsafe { structure::read(defaults, "defaults") }?;
        image.image.set_defaults(&Defaults {
            durability: durability(given.durability)?,
            persist_bitmaps: persist_bitmaps(given.persist_bitmaps)?,
        })?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}
