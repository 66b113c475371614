// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making images.

use std::ffi::c_char;
use std::mem::offset_of;

use qbm_core::{CreateOptions, Image};

use crate::args::{self, copy_path};
use crate::call::guard;
use crate::error::{Failure, qbm_error};
use crate::image::{durability, persist_bitmaps};
use crate::storage::storage;
use crate::structure::{self, SizeFirst};

/// The caller holds QEMU's locks on the descriptor already; take none.
pub const QBM_CREATE_NO_LOCK: u32 = 1;
/// -EEXIST if there is a file at the path, whatever it is.
pub const QBM_CREATE_EXCLUSIVE: u32 = 2;
/// Make the data image and not the descriptor, though only if that could be made, or the one that is there replaced.
/// For a caller who has more to do to the data image (data_file_out tells its path), makes it durable and adopts it.
pub const QBM_CREATE_DATA_ONLY: u32 = 4;
/// data_file is no local file: it is stored and not looked at. Who opens the image has to know how to get there.
pub const QBM_CREATE_REMOTE_DATA: u32 = 8;

/// What a new image is to be.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_create_args {
    /// sizeof(qbm_create_args), set by the caller.
    pub size: usize,
    /// QBM_CREATE_*.
    pub flags: u32,
    /// QBM_DURABILITY_*; stored unless it is the default.
    pub durability: u32,
    /// Size of the disk, rounded up to 512; of an adopted image, its present size, and 0 stands for that of a raw local file.
    pub image_size_bytes: u64,
    /// An existing image to adopt, relative to the descriptor's directory; it is never opened for writing here.
    /// NULL: a sparse raw file is made beside the descriptor.
    pub data_file: *const c_char,
    /// QEMU's name of the data image's format. NULL: "raw".
    pub data_format: *const c_char,
    /// Receives the data image's path, NUL-terminated. May be NULL.
    pub data_file_out: *mut c_char,
    /// Size of data_file_out.
    pub data_file_out_size: usize,
    /// QBM_PERSIST_BITMAPS_*; stored unless it is the default.
    pub persist_bitmaps: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: integers and raw pointers, size first.
unsafe impl SizeFirst for qbm_create_args {
    const FIRST_BYTES: usize = offset_of!(qbm_create_args, persist_bitmaps);
}

/// Makes an image: the descriptor at path and, unless one is adopted, a data image beside it.
///
/// A file at path is replaced only if it is empty or a QBM descriptor; what that named is left alone: bitmaps of an image that
/// was there are lost. With QBM_CREATE_EXCLUSIVE nothing is replaced. After an error nothing new is left. Blocks.
///
/// Returns 0; 1 when the data image's derived name was taken (that file is left alone) and another was used.
/// Errors: -EEXIST (path is something else, or with QBM_CREATE_EXCLUSIVE anything), -EINVAL, -EFBIG, -EAGAIN (in use), or the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_create(
    path: *const c_char,
    args: *const qbm_create_args,
    error: *mut qbm_error,
) -> i32 {
    let body = || {
        // SAFETY: promised by the caller, for all that follow.
        let path = unsafe { args::path(path, "path") }?;
        // SAFETY: as above.
        let given = unsafe { structure::read(args, "args") }?;
        let known = QBM_CREATE_NO_LOCK
            | QBM_CREATE_EXCLUSIVE
            | QBM_CREATE_DATA_ONLY
            | QBM_CREATE_REMOTE_DATA;
        args::flags(given.flags, known, "args.flags")?;
        args::reserved(given.reserved, "args.reserved")?;
        // SAFETY: as above.
        let data_file = unsafe { args::optional_text(given.data_file, "args.data_file") }?;
        // SAFETY: as above.
        let data_format = unsafe { args::optional_text(given.data_format, "args.data_format") }?;
        let options = CreateOptions {
            size_bytes: given.image_size_bytes,
            data_file: data_file.map(str::to_owned),
            data_format: data_format.unwrap_or("raw").to_owned(),
            durability: durability(given.durability)?,
            persist_bitmaps: persist_bitmaps(given.persist_bitmaps)?,
            no_lock: given.flags & QBM_CREATE_NO_LOCK != 0,
            exclusive: given.flags & QBM_CREATE_EXCLUSIVE != 0,
        };
        let created = if given.flags & QBM_CREATE_DATA_ONLY != 0 {
            Image::create_data(&*storage(), path, &options)?
        } else if given.flags & QBM_CREATE_REMOTE_DATA != 0 {
            Image::create_over_remote(&*storage(), path, &options)?
        } else {
            Image::create(&*storage(), path, &options)?
        };
        if !given.data_file_out.is_null() && given.data_file_out_size > 0 {
            // SAFETY: the caller's buffer of that size, for this call only.
            let buffer = unsafe {
                std::slice::from_raw_parts_mut(given.data_file_out, given.data_file_out_size)
            };
            if !copy_path(&created.data_file, buffer) {
                return Err(Failure::new(
                    libc::ENAMETOOLONG,
                    "the image was made, but its data image's name does not fit data_file_out",
                ));
            }
        }
        Ok(i32::from(created.data_file_name_was_taken))
    };
    // SAFETY: promised by the caller.
    unsafe { guard(error, body) }
}
