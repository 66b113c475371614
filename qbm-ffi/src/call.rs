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

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use qbm_core::storage::OsStorage;
    use qbm_core::{Activation, CreateOptions, Image, OpenOptions};

    use super::*;

    #[test]
    fn a_panic_poisons_the_handle_and_leaves_the_image_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let options = CreateOptions {
            size_bytes: 4096,
            data_file: None,
            data_format: "raw".into(),
            durability: None,
            no_lock: false,
        };
        Image::create(&OsStorage, &path, &options).unwrap();
        let image = Image::open(Arc::new(OsStorage), &path, OpenOptions::default()).unwrap();
        let activation = Activation {
            size_bytes: 4096,
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        let image = Box::into_raw(Box::new(qbm_image {
            image,
            data: crate::data::Data::default(),
            poisoned: AtomicBool::new(false),
        }));
        // SAFETY: `image` is a handle until it is closed; no error buffer.
        unsafe {
            let none = ptr::null_mut();
            assert_eq!(with(image, none, |_| Ok(3)), 3);
            assert_eq!(with(image, none, |_| panic!("for the test")), -libc::EIO);
            assert_eq!(with(image, none, |_| Ok(3)), -libc::EIO);
            assert_eq!(crate::qbm_inactivate(image, none), -libc::EIO);
            assert_eq!(crate::qbm_close(image, none), -libc::EIO);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("ext-hard-qbm-session"), "{text}");
    }
}
