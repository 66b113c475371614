// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental copy: what is dirty is frozen, copied, and then clean.

use std::ffi::c_char;

use crate::call::named;
use crate::error::qbm_error;
use crate::image::qbm_image;

/// Freezes what a bitmap says, to be copied: until qbm_bitmap_commit() or qbm_bitmap_abort(), what reads its bits shows it
/// as it is now, and QBM_BITMAP_FROZEN is set. Later writes are kept for afterwards; writes in flight count as later ones.
///
/// Nothing changes on disk: the bitmap there goes on recording. A crash, and a clean close, which ends the freeze as
/// qbm_bitmap_abort() does, leave one that has all of the frozen bits and all later ones, to the image's durability.
///
/// While it is frozen, -EBUSY is what qbm_bitmap_remove(), _rename(), _clear(), _set_recording(), _set_granularity(),
/// _store_bits(), and _merge() from it or to it return. What is marked or added comes as later writes do. A resize does
/// not end the freeze: what the disk gains was written later. qbm_bitmap_set_inconsistent() ends it.
/// Errors: -ENOENT when no such bitmap is loaded, -EROFS, -EBUSY when it is frozen already, -EIO when it has missed a
/// write: it is inconsistent then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_freeze(
    image: *mut qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.freeze_bitmap(name)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Says that what was frozen before offset has been copied, and is safe there. offset is rounded down to a granule; one at
/// or beyond the end of the disk stands for all of it. Those blocks leave what is frozen, and are clean but where they
/// were written since the freeze; the bitmap stays frozen. Durable when this returns. Blocks.
///
/// A copy that is interrupted after this, by whatever the image's durability survives, goes on with another
/// qbm_bitmap_freeze(): what is dirty then is what it lacks.
/// Errors: -ENOENT when no such bitmap is loaded, -EROFS, -EINVAL when it is not frozen, -EIO when it has missed a write:
/// it is inconsistent then; or the system's: nothing has changed then, but a crash may leave the blocks clean, until
/// qbm_bitmap_abort() or another change of the descriptor has returned 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_checkpoint(
    image: *mut qbm_image,
    name: *const c_char,
    offset: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.checkpoint_bitmap(name, offset)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Says that all that was frozen has been copied, and is safe there: what is dirty now was written since the freeze. The
/// bitmap is no longer frozen. Durable when this returns. Blocks.
///
/// Errors: as qbm_bitmap_checkpoint(). The bitmap is still frozen then, unless it is inconsistent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_commit(
    image: *mut qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.commit_bitmap(name)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Ends a freeze without a copy: what is still frozen and what was written since is dirty. Blocks, if a change of the
/// descriptor failed before, such as qbm_bitmap_commit(): what that may have put on disk is taken back.
///
/// Errors: -ENOENT when no such bitmap is loaded, -EROFS, -EINVAL when it is not frozen, or the system's: the bitmap is
/// still frozen then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_abort(
    image: *mut qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.abort_bitmap(name)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}
