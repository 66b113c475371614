// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps as a whole: whether they record, names, all bits at once.

use std::ffi::c_char;

use crate::args;
use crate::call::{named, with};
use crate::error::qbm_error;
use crate::image::qbm_image;

/// Turns recording on or off; durable when this returns. Turned on, no later write can miss the bitmap. Blocks.
///
/// Errors: -ENOENT (also for an inconsistent bitmap), -EROFS, -EBUSY (frozen), or the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_set_recording(
    image: *mut qbm_image,
    name: *const c_char,
    recording: bool,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.set_recording(name, recording)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Gives a bitmap up, durably: it can only be removed from now on. Blocks.
///
/// Errors: -ENOENT, -EROFS, or the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_set_inconsistent(
    image: *mut qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.set_inconsistent(name, "its user could not keep it up to date")?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Gives a bitmap another name, 1 to QBM_BITMAP_NAME_MAX bytes; durable when this returns. Its file keeps the name that it
/// has. The name that it has already: 0. Blocks.
///
/// Errors: -ENOENT (also for an inconsistent bitmap), -EEXIST, -ENAMETOOLONG, -EINVAL (NULL or an empty name), -EFBIG (the
/// descriptor's cap), -EROFS, -EBUSY (frozen), or the system's. The bitmap has its old name then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_rename(
    image: *mut qbm_image,
    from: *const c_char,
    to: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let from = unsafe { args::text(from, "from") }?;
        // SAFETY: as above.
        let to = unsafe { args::text(to, "to") }?;
        image.image.rename_bitmap(from, to)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Makes a bitmap clean, at once; a crash leaves all of its bits or none. Durable when this returns. Writes in flight stay
/// in it, so this is safe beside them. Blocks.
///
/// Errors: -ENOENT (also for an inconsistent bitmap), -EINVAL for NULL, -EROFS, -EBUSY (frozen), or the system's: the bitmap
/// is as it was then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_clear(
    image: *mut qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.clear_bitmap(name)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Adds to target what is dirty in any of the sources_count bitmaps that sources names, at once; a crash leaves all of it or
/// none. Granularities may differ: ranges are rounded outwards to the target's. The sources stay as they are; the target may
/// be one of them. sources may be NULL if sources_count is 0. Durable when this returns. Safe beside writes in flight. Blocks.
///
/// Errors: -ENOENT when one of the bitmaps does not exist or is inconsistent, -EINVAL for NULL, -EROFS, -EBUSY (one is
/// frozen), -EIO when one has missed a write: that one is inconsistent then. Or the system's: the target is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_merge(
    image: *mut qbm_image,
    target: *const c_char,
    sources: *const *const c_char,
    sources_count: usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller, for all that follow.
        let target = unsafe { args::text(target, "target") }?;
        // SAFETY: as above.
        let sources = unsafe { args::texts(sources, sources_count, "sources") }?;
        image.image.merge_bitmaps(target, &sources)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Gives a bitmap another granularity, a power of two from 512 to 2 GiB, at once; a crash leaves the old or the new one.
/// Dirty ranges are rounded outwards to it. Durable when this returns. Safe beside writes in flight. Blocks.
///
/// Errors: -ENOENT (also for an inconsistent bitmap), -EINVAL (NULL, granularity), -EFBIG (too small a granularity for the
/// disk), -EROFS, -EBUSY (frozen), -EIO when it has missed a write: it is inconsistent then. Or the system's: the bitmap
/// is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_set_granularity(
    image: *mut qbm_image,
    name: *const c_char,
    granularity_bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.set_granularity(name, granularity_bytes)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}
