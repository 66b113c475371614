// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps: listing, adding, removing.

use std::ffi::c_char;

use crate::args::{self, copy_text};
use crate::call::{named, with};
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;
use crate::structure::{self, SizeFirst};

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
        let mut out = unsafe { structure::out(info, "info") }?;
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
        let mut out = unsafe { structure::out(info, "info") }?;
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
/// Errors: -ENOENT, -EROFS, -EBUSY (frozen), or the system's.
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
