// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library is, and whether bytes look like an image.

use std::ffi::{c_char, c_void};

use crate::args;
use crate::call::guard;

/// Version of this header, first part; qbm_version() tells that of the library.
pub const QBM_VERSION_MAJOR: u32 = 0;
/// Version of this header, second part.
pub const QBM_VERSION_MINOR: u32 = 2;
/// Version of this header, third part.
pub const QBM_VERSION_PATCH: u32 = 0;

/// Longest bitmap name in bytes, without the NUL.
pub const QBM_BITMAP_NAME_MAX: u32 = 1023;

/// Bitmaps that an image can have, inconsistent ones included.
pub const QBM_BITMAPS_MAX: u32 = 4096;
/// Smallest granularity in bytes.
pub const QBM_GRANULARITY_MIN: u32 = 512;
/// Largest granularity in bytes.
pub const QBM_GRANULARITY_MAX: u32 = 2147483648;

const _: () = assert!(QBM_BITMAP_NAME_MAX as usize == qbm_core::caps::BITMAP_NAME_BYTES_MAX);
const _: () = assert!(QBM_BITMAPS_MAX as usize == qbm_core::caps::BITMAPS_MAX);
const _: () = assert!(QBM_GRANULARITY_MIN as u64 == qbm_core::caps::GRANULARITY_BYTES_MIN);
const _: () = assert!(QBM_GRANULARITY_MAX as u64 == qbm_core::caps::GRANULARITY_BYTES_MAX);

/// The library's version, such as "0.2.0". Static; never freed.
#[unsafe(no_mangle)]
pub extern "C" fn qbm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Whether buf, the first len bytes of a file (512, or all of a shorter one), begins a QBM descriptor: 100 or 0, as
/// QEMU's bdrv_probe scores. NULL scores 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_probe(buf: *const c_void, len: usize) -> i32 {
    let body = || {
        // SAFETY: promised by the caller.
        let head = unsafe { args::bytes(buf.cast(), len, "buf") }?;
        Ok(if qbm_core::probe(head) { 100 } else { 0 })
    };
    // SAFETY: no error buffer.
    unsafe { guard(std::ptr::null_mut(), body) }.max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_crates_version() {
        let header = format!("{QBM_VERSION_MAJOR}.{QBM_VERSION_MINOR}.{QBM_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }
}
