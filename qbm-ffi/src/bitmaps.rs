// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps: listing, adding, removing, their bits.

use std::ffi::{c_char, c_void};

use crate::args::{self, SizeFirst, copy_text};
use crate::call::with;
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;

/// Writes set bits ("auto" in qcow2's listings).
pub const QBM_BITMAP_RECORDING: u32 = 1;
/// Part of a session: open here or elsewhere, or left by a crash that nobody has recovered from.
pub const QBM_BITMAP_IN_USE: u32 = 2;
/// Usable for nothing but removal.
pub const QBM_BITMAP_INCONSISTENT: u32 = 4;
/// For qbm_bitmap_add(): begin with every bit set.
pub const QBM_BITMAP_ALL_DIRTY: u32 = 8;
/// Between qbm_bitmap_freeze() and qbm_bitmap_commit() or qbm_bitmap_abort().
pub const QBM_BITMAP_FROZEN: u32 = 16;

/// One bitmap as listings show it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_bitmap_info {
    /// sizeof(qbm_bitmap_info), set by the caller.
    pub size: usize,
    /// Bytes of the disk that one bit covers; 0 when an inconsistent bitmap's entry has no valid one.
    pub granularity_bytes: u64,
    /// QBM_BITMAP_*.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// NUL-terminated.
    pub name: [c_char; 1024],
}

// SAFETY: integers and an array of them, size first.
unsafe impl SizeFirst for qbm_bitmap_info {}

impl qbm_bitmap_info {
    fn fill(&mut self, bitmap: &qbm_core::BitmapInfo) {
        let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
        self.granularity_bytes = bitmap.granularity_bytes;
        self.flags = flag(bitmap.recording, QBM_BITMAP_RECORDING)
            | flag(bitmap.in_use, QBM_BITMAP_IN_USE)
            | flag(bitmap.inconsistent, QBM_BITMAP_INCONSISTENT)
            | flag(bitmap.frozen, QBM_BITMAP_FROZEN);
        self.reserved = 0;
        copy_text(&bitmap.name, &mut self.name);
    }
}

/// Describes bitmap number index, from 0. The name of an entry that breaks the rules is cut where it does not fit.
///
/// Errors: -ENOENT past the last one, -EINVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_get(
    image: *const qbm_image,
    index: u32,
    info: *mut qbm_bitmap_info,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let out = unsafe { args::out(info, "info") }?;
        let bitmap = image.image.bitmap_at(index as usize);
        let bitmap = bitmap
            .ok_or_else(|| Failure::new(libc::ENOENT, format!("no bitmap number {index}")))?;
        out.fill(&bitmap);
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Describes the bitmap of a name.
///
/// Errors: -ENOENT when there is none, -EINVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_find(
    image: *const qbm_image,
    name: *const c_char,
    info: *mut qbm_bitmap_info,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        // SAFETY: promised by the caller.
        let out = unsafe { args::out(info, "info") }?;
        let bitmap = image.bitmap(name);
        let bitmap = bitmap.ok_or_else(|| {
            Failure::new(
                libc::ENOENT,
                format!("no bitmap {}", qbm_core::quoted(name)),
            )
        })?;
        out.fill(&bitmap);
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Runs `body` with a handle and a bitmap's name.
///
/// # Safety
/// As the entries below.
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

/// Whether qbm_bitmap_add() would succeed, as far as names and caps go.
///
/// Errors: -EEXIST, -ENAMETOOLONG, -EINVAL (name, granularity), -EFBIG (caps), -EROFS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_can_store(
    image: *const qbm_image,
    name: *const c_char,
    granularity_bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.can_add_bitmap(name, granularity_bytes)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Adds a bitmap, empty unless flags have QBM_BITMAP_ALL_DIRTY (for one whose bits are about to be stored: a crash before
/// that must not leave it empty). When this returns it is on disk and, with QBM_BITMAP_RECORDING in flags, no later write can
/// miss it; writes in flight are included. granularity_bytes: a power of two from 512 to 2 GiB. Blocks.
///
/// Errors: as qbm_bitmap_can_store(), or the system's. Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_add(
    image: *mut qbm_image,
    name: *const c_char,
    granularity_bytes: u64,
    flags: u32,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        args::flags(flags, QBM_BITMAP_RECORDING | QBM_BITMAP_ALL_DIRTY, "flags")?;
        let recording = flags & QBM_BITMAP_RECORDING != 0;
        if flags & QBM_BITMAP_ALL_DIRTY != 0 {
            image.add_dirty_bitmap(name, granularity_bytes, recording)?;
        } else {
            image.add_bitmap(name, granularity_bytes, recording)?;
        }
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Removes a bitmap, consistent or not, and its file. Blocks.
///
/// A file outside the descriptor's directory is left; a notice says so.
/// Errors: -ENOENT, -EROFS, or the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_remove(
    image: *mut qbm_image,
    name: *const c_char,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_core::Image, name: &str| {
        image.remove_bitmap(name)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { named(image, name, error, body) }
}

/// Turns recording on or off; durable when this returns. Turned on, no later write can miss the bitmap. Blocks.
///
/// Errors: -ENOENT (also for an inconsistent bitmap), -EROFS, or the system's.
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
///
/// Errors: as qbm_bitmap_load_bits(), -EROFS, or the system's; the file then holds old bits, new bits, or a mixture.
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
/// the image's durability.
///
/// Errors: as qbm_bitmap_store_bits().
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
