// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is dirty: counts, extents, bits.

use std::ffi::{c_char, c_void};

use crate::args;
use crate::call::named;
use crate::error::qbm_error;
use crate::image::qbm_image;

/// Counts what is dirty: bytes in dirty granules, the last one cut at the end of the disk. Memory only.
///
/// Errors: -ENOENT when no such bitmap is loaded, -EINVAL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_count(
    image: *const qbm_image,
    name: *const c_char,
    dirty_bytes: *mut u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller.
        let out = unsafe { args::place(dirty_bytes, "dirty_bytes") }?;
        *out = image.dirty_bytes(name)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Finds the first dirty extent that ends after offset: it begins there or later, is as long as it can be, and ends with the
/// disk at the latest. Memory only.
///
/// To walk over a bitmap, begin at 0 and go on at *extent_offset + *extent_bytes; what becomes dirty behind that point
/// meanwhile is not seen.
/// Returns 1, 0 when all is clean from there on; then nothing is stored. Errors: -ENOENT when no such bitmap is loaded,
/// -EINVAL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_next_extent(
    image: *const qbm_image,
    name: *const c_char,
    offset: u64,
    extent_offset: *mut u64,
    extent_bytes: *mut u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        let offset_out = args::non_null(extent_offset, "extent_offset")?;
        let bytes_out = args::non_null(extent_bytes, "extent_bytes")?;
        Ok(match image.next_dirty_extent(name, offset)? {
            Some(extent) => {
                // SAFETY: promised by the caller, for both.
                unsafe { offset_out.write(extent.offset_bytes) };
                // SAFETY: as above.
                unsafe { bytes_out.write(extent.length_bytes) };
                1
            }
            None => 0,
        })
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Finds the first dirty granule at or after the one that holds offset.
///
/// Returns 1 and its offset in *dirty_offset, 0 when there is none. Errors: -ENOENT when no such bitmap is loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_next_dirty(
    image: *const qbm_image,
    name: *const c_char,
    offset: u64,
    dirty_offset: *mut u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller.
        let out = unsafe { args::place(dirty_offset, "dirty_offset") }?;
        Ok(match image.next_dirty(name, offset)? {
            Some(found) => {
                *out = found;
                1
            }
            None => 0,
        })
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Copies the bits of [offset, offset + bytes) into buf: bit 0 of byte 0 is the first granule, as in a bitmap file.
///
/// offset is a multiple of 64 granules; so is bytes, unless the range reaches the end of the image. buf_size is at
/// least one byte for every eight granules begun.
/// Errors: -ENOENT when no such bitmap is loaded, -EINVAL (alignment, buffer).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_load_bits(
    image: *const qbm_image,
    name: *const c_char,
    offset: u64,
    bytes: u64,
    buf: *mut c_void,
    buf_size: usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller.
        let bits = unsafe { args::bytes_mut(buf.cast(), buf_size, "buf") }?;
        image.load_bits(name, offset, bytes, bits)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Makes the bits of a range (as for qbm_bitmap_load_bits()) what bits says; NULL: zero. Only while no write is in flight.
/// Blocks, if a change of the descriptor failed before.
///
/// Errors: as qbm_bitmap_load_bits(), -EROFS, -EBUSY (frozen), or the system's; the file then holds old bits, new bits, or
/// a mixture.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_store_bits(
    image: *mut qbm_image,
    name: *const c_char,
    offset: u64,
    bytes: u64,
    bits: *const c_void,
    bits_size: usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        let given = if bits.is_null() {
            None
        } else {
            // SAFETY: promised by the caller.
            Some(unsafe { args::bytes(bits.cast(), bits_size, "bits") }?)
        };
        image.store_bits(name, offset, bytes, given)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Adds bits to a range (as for qbm_bitmap_load_bits()). Safe beside writes in flight. On return the disk holds them at
/// the image's durability. Blocks, if a change of the descriptor failed before.
///
/// Errors: as qbm_bitmap_load_bits(), -EROFS, or the system's; the file then holds old bits, new bits, or a mixture.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_merge_bits(
    image: *mut qbm_image,
    name: *const c_char,
    offset: u64,
    bytes: u64,
    bits: *const c_void,
    bits_size: usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller.
        let given = unsafe { args::bytes(bits.cast(), bits_size, "bits") }?;
        image.merge_bits(name, offset, bytes, given)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Marks [offset, offset + bytes) dirty, rounded outwards to granules, whether the bitmap records or not. As durable as a
/// guest's write is at the image's durability. Safe beside writes in flight. Blocks when it fails,
/// or if a change of the descriptor failed before.
///
/// Errors: -ENOENT when no such bitmap is loaded, -EINVAL (NULL, a range beyond the disk), -EROFS; -EIO when the range could
/// not be recorded: the bitmap is inconsistent then, on disk too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_mark_dirty(
    image: *mut qbm_image,
    name: *const c_char,
    offset: u64,
    bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.mark_dirty(name, offset, bytes)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}
