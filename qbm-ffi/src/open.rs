// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening, activating, inactivating, closing.

use std::ffi::c_char;

use qbm_core::{Activation, Image, OpenOptions};

use crate::args;
use crate::call::{guard, with};
use crate::error::{Failure, qbm_error};
use crate::image::{durability, qbm_image};
use crate::storage::storage;
use crate::structure::{self, SizeFirst};

/// The caller holds QEMU's locks on the descriptor already; take none.
pub const QBM_OPEN_NO_LOCK: u32 = 1;
/// Others may have the image open, even for writing: nothing is changed, and with a session on record bitmaps are in use.
pub const QBM_OPEN_SHARED: u32 = 2;
/// The image will not be activated for writing; others may read it too.
pub const QBM_OPEN_READ_ONLY: u32 = 4;

/// How a descriptor is opened.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_open_args {
    /// sizeof(qbm_open_args), set by the caller.
    pub size: usize,
    /// QBM_OPEN_*.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: integers, size first.
unsafe impl SizeFirst for qbm_open_args {}

/// Opens and checks a descriptor. Neither the data image nor any bitmap file is opened. Blocks.
///
/// Without QBM_OPEN_NO_LOCK and QBM_OPEN_SHARED the locks are taken that QEMU takes, for as long as the handle is open.
/// On success *out is a handle to be given to qbm_close(); otherwise it is NULL.
/// Errors: -EINVAL (NULL, flags, reserved, or a rule of the format is broken), -ENOTSUP, -EFBIG, -EAGAIN (in use), or the
/// system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_open(
    path: *const c_char,
    args: *const qbm_open_args,
    out: *mut *mut qbm_image,
    error: *mut qbm_error,
) -> i32 {
    let body = || {
        // SAFETY: promised by the caller, for all that follow.
        let out = unsafe { args::place(out, "out") }?;
        *out = std::ptr::null_mut();
        // SAFETY: as above.
        let path = unsafe { args::path(path, "path") }?;
        // SAFETY: as above.
        let given = unsafe { structure::read(args, "args") }?;
        let known = QBM_OPEN_NO_LOCK | QBM_OPEN_SHARED | QBM_OPEN_READ_ONLY;
        args::flags(given.flags, known, "args.flags")?;
        args::reserved(given.reserved, "args.reserved")?;
        let options = OpenOptions {
            no_lock: given.flags & QBM_OPEN_NO_LOCK != 0,
            shared: given.flags & QBM_OPEN_SHARED != 0,
            read_only: given.flags & QBM_OPEN_READ_ONLY != 0,
        };
        let image = Image::open(storage(), path, options)?;
        *out = Box::into_raw(Box::new(qbm_image::new(image)));
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { guard(error, body) }
}

/// Nothing is written: no session, and what recovery finds stays in memory.
pub const QBM_ACTIVATE_READ_ONLY: u32 = 1;

/// The caller vouches for the data image: that it was written, replaced or cut while the image was closed does not make the
/// bitmaps inconsistent. It leaves a trace in the descriptor, and a notice.
pub const QBM_ACTIVATE_TRUST_DATA: u32 = 2;

/// The library opens the data image itself, a raw local file or block device, for qbm_pread() and its siblings.
/// image_size_bytes must be 0: the size is the data image's. Unless the image was opened with QBM_OPEN_NO_LOCK or
/// QBM_OPEN_SHARED, the locks are taken that QEMU takes. qbm_inactivate() makes the data image durable and closes it.
pub const QBM_ACTIVATE_DATA: u32 = 4;

/// How an image is activated.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_activate_args {
    /// sizeof(qbm_activate_args), set by the caller.
    pub size: usize,
    /// QBM_ACTIVATE_*.
    pub flags: u32,
    /// QBM_DURABILITY_*; the default is what the descriptor stores.
    pub durability: u32,
    /// The data image's size now; 0 with QBM_ACTIVATE_DATA.
    pub image_size_bytes: u64,
    /// The local file that the data image is. NULL: the one that the descriptor names. "": there is none, or it is not for
    /// the library to look at; then a change behind its back is noticed by the size only. A path is to hold until
    /// qbm_inactivate().
    pub data_file: *const c_char,
}

// SAFETY: integers and a pointer that may be NULL, size first.
unsafe impl SizeFirst for qbm_activate_args {}

/// Recovers, loads the bitmaps and, unless read-only, begins a session: from then on writes are recorded. Blocks.
///
/// What is wrong with a bitmap makes that bitmap inconsistent and leaves a notice; it is no error.
/// Errors: -EINVAL (active already; a size of 0, though the data image has another), -EFBIG, or the system's, such as -ENOSPC
/// or -EROFS: the session cannot be written.
/// With QBM_ACTIVATE_DATA also -ENOTSUP (the data image is not raw), -EAGAIN (it is open elsewhere), -EISDIR, -EINVAL (it
/// is neither a regular file nor a block device, or it is the descriptor or a bitmap file).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_activate(
    image: *mut qbm_image,
    args: *const qbm_activate_args,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let given = unsafe { structure::read(args, "args") }?;
        let known = QBM_ACTIVATE_READ_ONLY | QBM_ACTIVATE_TRUST_DATA | QBM_ACTIVATE_DATA;
        args::flags(given.flags, known, "args.flags")?;
        // SAFETY: promised by the caller.
        let data_path = unsafe { args::data_path(given.data_file) }?;
        let activation = Activation {
            size_bytes: given.image_size_bytes,
            read_only: given.flags & QBM_ACTIVATE_READ_ONLY != 0,
            durability: durability(given.durability)?,
            trust_data: given.flags & QBM_ACTIVATE_TRUST_DATA != 0,
            data_path,
        };
        if given.flags & QBM_ACTIVATE_DATA == 0 {
            image.image.activate(&activation)?;
            return Ok(0);
        }
        if given.image_size_bytes != 0 {
            let text = format!(
                "args.image_size_bytes is {}, 0 with QBM_ACTIVATE_DATA",
                given.image_size_bytes
            );
            return Err(Failure::new(libc::EINVAL, text));
        }
        image.data.activate(&image.image, &activation)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Writes what the bitmap files lack, makes it durable, and ends the session. No write may be in flight. Blocks.
///
/// The handle stays open and may be activated again. An image that is not active: 0. If the path of a raw data image that is
/// a regular file leads to another file by now, or to none, all bitmaps are inconsistent; that is no error, and leaves a
/// notice.
/// Errors: the system's. A bitmap that could not be stored is inconsistent then, the others are fine; if the session
/// could not be ended, the image stays in use on disk, as after a crash. A data image that the library opened could not be
/// made durable: every bitmap is inconsistent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_inactivate(image: *mut qbm_image, error: *mut qbm_error) -> i32 {
    let body = |image: &qbm_image| {
        image.data.inactivate(&image.image)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Inactivates, then frees the handle with its notices, whatever the result. NULL: does nothing and returns 0. Blocks.
///
/// Errors: as qbm_inactivate(); -EIO for a poisoned handle, whose image is left in use on disk; -ECHILD in a process that
/// did not open it: memory and descriptors are freed, and nothing changes on disk or for the process that did.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_close(image: *mut qbm_image, error: *mut qbm_error) -> i32 {
    if image.is_null() {
        return 0;
    }
    // SAFETY: promised by the caller.
    let result = unsafe { qbm_inactivate(image, error) };
    // SAFETY: made by Box::into_raw in qbm_open; the caller gives it up.
    let mut image = unsafe { Box::from_raw(image) };
    let body = || {
        if image.check_process().is_err() {
            image.image.leave_locked();
            image.data.leave_locked();
        }
        // Dropping takes no lock and writes nothing: it closes files.
        drop(image);
        Ok(result)
    };
    // SAFETY: promised by the caller.
    unsafe { guard(error, body) }
}
