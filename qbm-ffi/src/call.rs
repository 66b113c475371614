// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one way into the core: no panic crosses the C ABI.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;

fn panicked() -> Failure {
    Failure::new(
        libc::EIO,
        "internal error in libqbm: the image is left in use",
    )
}

/// Runs the body of an entry that has no handle.
///
/// # Safety
/// `error` as for [`Failure::report`].
pub(crate) unsafe fn guard(
    error: *mut qbm_error,
    body: impl FnOnce() -> Result<i32, Failure>,
) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(panicked()));
    match result {
        Ok(value) => value,
        // SAFETY: promised by the caller.
        Err(failure) => unsafe { failure.report(error) },
    }
}

/// Runs the body of an entry on a handle. A panic poisons the handle: nothing more is done with it.
///
/// # Safety
/// `image` is NULL or a handle that is open; `error` as for [`Failure::report`].
pub(crate) unsafe fn with(
    image: *const qbm_image,
    error: *mut qbm_error,
    body: impl FnOnce(&qbm_image) -> Result<i32, Failure>,
) -> i32 {
    // SAFETY: promised by the caller.
    let image = unsafe { image.as_ref() };
    let run = || {
        let image = image.ok_or_else(|| Failure::new(libc::EINVAL, "image is NULL"))?;
        if image.poisoned.load(Ordering::Acquire) {
            return Err(panicked());
        }
        let result = catch_unwind(AssertUnwindSafe(|| body(image)));
        result.unwrap_or_else(|_| {
            image.poisoned.store(true, Ordering::Release);
            Err(panicked())
        })
    };
    // SAFETY: promised by the caller.
    unsafe { guard(error, run) }
}
