// SPDX-License-Identifier: MIT OR Apache-2.0
//! Before and after the data image is resized.

use crate::call::with;
use crate::error::qbm_error;
use crate::image::qbm_image;

/// Announces that the data image is about to get new_size_bytes; a tail that it gains is recorded. Blocks.
///
/// Errors: -EROFS, -EFBIG (a bitmap would exceed its cap), -EINVAL (activated with QBM_ACTIVATE_DATA), or the system's: do
/// not resize the data image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_truncate_begin(
    image: *mut qbm_image,
    new_size_bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        image.data.refuse("qbm_co_truncate_begin")?;
        image.image.begin_resize(new_size_bytes)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Fits the bitmaps to actual_size_bytes, the data image's size now, whether the resize worked or not. Blocks.
///
/// Errors: the system's; what is on disk then fits both sizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_truncate_end(
    image: *mut qbm_image,
    actual_size_bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        image.data.refuse("qbm_co_truncate_end")?;
        image.image.end_resize(actual_size_bytes)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}
