// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bitmap's user keeps with it.

use std::ffi::{c_char, c_void};

use crate::args;
use crate::call::named;
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;

/// Most user data of one bitmap, in bytes.
pub const QBM_USER_DATA_MAX: u32 = 65536;

const _: () = assert!(QBM_USER_DATA_MAX as usize == qbm_core::caps::USER_DATA_BYTES_MAX);

/// Copies what the bitmap's user keeps with it into buf, and its size in bytes to *data_size; no NUL is added. buf may be
/// NULL if buf_size is 0. Works without activation, and for an inconsistent bitmap as far as it can be made out. Memory only.
///
/// Returns 1; 0 when there is none, with *data_size 0. User data of no bytes is not none.
/// Errors: -ERANGE when it does not fit, with *data_size what is needed and buf untouched; -ENOENT, -EINVAL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_get_user_data(
    image: *const qbm_image,
    name: *const c_char,
    buf: *mut c_void,
    buf_size: usize,
    data_size: *mut usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller, for both.
        let size_out = unsafe { args::place(data_size, "data_size") }?;
        // SAFETY: as above.
        let buffer = unsafe { args::bytes_mut(buf.cast(), buf_size, "buf") }?;
        let Some(data) = image.user_data(name)? else {
            *size_out = 0;
            return Ok(0);
        };
        *size_out = data.len();
        let Some(target) = buffer.get_mut(..data.len()) else {
            let text = format!(
                "bitmap {}: {} bytes of user data, buf_size is {buf_size}",
                qbm_core::quoted(name),
                data.len()
            );
            return Err(Failure::new(libc::ERANGE, text));
        };
        target.copy_from_slice(&data);
        Ok(1)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Keeps up to QBM_USER_DATA_MAX bytes of any content with a bitmap; data that is NULL (data_size is 0 then) removes what
/// there is. Durable when this returns. Blocks.
///
/// Errors: -ENOENT (also for an inconsistent bitmap), -EFBIG (that limit, or the descriptor's cap), -EINVAL for NULL, -EROFS,
/// or the system's: what was kept before is kept then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_set_user_data(
    image: *mut qbm_image,
    name: *const c_char,
    data: *const c_void,
    data_size: usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller. NULL with a size is refused there.
        let bytes = unsafe { args::bytes(data.cast(), data_size, "data") }?;
        image.set_user_data(name, (!data.is_null()).then_some(bytes))?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}
