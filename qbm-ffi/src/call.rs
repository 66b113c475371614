// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one way into the core: no panic crosses the C ABI.

use std::any::Any;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crate::args;
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;

/// Why a handle that a panic poisoned does nothing any more.
fn poisoned() -> Failure {
    let text = "internal error in libqbm, earlier: the image is left in use";
    Failure::new(libc::EIO, text)
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = text.map_or_else(|| "no message".to_owned(), one_line);
    let text = format!("internal error in libqbm: {what}: the image is left in use");
    Failure::new(libc::EIO, text)
}

/// Assertions speak in several lines; an error is one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs `body`; a panic is told to `on_panic`, and an error.
///
/// # Safety
/// `error` as for [`Failure::report`].
unsafe fn call(
    error: *mut qbm_error,
    body: impl FnOnce() -> Result<i32, Failure>,
    on_panic: impl FnOnce(),
) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        on_panic();
        Err(panicked(&*payload))
    });
    match result {
        Ok(value) => value,
        // SAFETY: promised by the caller.
        Err(failure) => unsafe { failure.report(error) },
    }
}

/// Runs the body of an entry that has no handle.
///
/// # Safety
/// `error` as for [`Failure::report`].
pub(crate) unsafe fn guard(
    error: *mut qbm_error,
    body: impl FnOnce() -> Result<i32, Failure>,
) -> i32 {
    crate::panic_hook::silence();
    // SAFETY: promised by the caller.
    unsafe { call(error, body, || ()) }
}

/// Runs the body of an entry on a handle, in the process that opened it. A panic poisons the handle: nothing more is done
/// with it.
///
/// # Safety
/// `image` is NULL or a handle that is open; `error` as for [`Failure::report`].
pub(crate) unsafe fn with(
    image: *const qbm_image,
    error: *mut qbm_error,
    body: impl FnOnce(&qbm_image) -> Result<i32, Failure>,
) -> i32 {
    // SAFETY: promised by the caller.
    let foreign = unsafe { image.as_ref() }.and_then(|image| image.check_process().err());
    if let Some(failure) = foreign {
        // Before anything is touched: another thread may have held a lock at the fork.
        // SAFETY: promised by the caller.
        return unsafe { failure.report(error) };
    }
    // SAFETY: promised by the caller.
    unsafe { with_in_any_process(image, error, body) }
}

/// As [`with`], without looking which process this is: for what a guest's every write passes.
///
/// # Safety
/// As [`with`].
pub(crate) unsafe fn with_in_any_process(
    image: *const qbm_image,
    error: *mut qbm_error,
    body: impl FnOnce(&qbm_image) -> Result<i32, Failure>,
) -> i32 {
    // SAFETY: promised by the caller.
    let image = unsafe { image.as_ref() };
    let run = || {
        let image = image.ok_or_else(|| Failure::new(libc::EINVAL, "image is NULL"))?;
        if image.poisoned.load(Ordering::Acquire) {
            return Err(poisoned());
        }
        body(image)
    };
    let poison = || {
        if let Some(image) = image {
            image.poisoned.store(true, Ordering::Release);
        }
    };
    // SAFETY: promised by the caller.
    unsafe { call(error, run, poison) }
}

/// Runs `body` with a handle and a bitmap's name.
///
/// # Safety
/// As [`with`]; `name` is NULL or a NUL-terminated string.
pub(crate) unsafe fn named(
    image: *const qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
    body: impl FnOnce(&qbm_core::Image, &str) -> Result<i32, Failure>,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let name = unsafe { args::text(name, "name") }?;
        body(&image.image, name)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::sync::Arc;

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
            persist_bitmaps: None,
            no_lock: false,
            exclusive: false,
        };
        Image::create(&OsStorage, &path, &options).unwrap();
        let image = Image::open(Arc::new(OsStorage), &path, OpenOptions::default()).unwrap();
        let activation = Activation {
            size_bytes: 4096,
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        let image = Box::into_raw(Box::new(qbm_image::new(image)));
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
