// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle, and what can be asked of it.

use std::ffi::c_char;
use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::AtomicBool;

use qbm_core::{Durability, Image, PersistBitmaps};

use crate::args::{self, copy_path, copy_text};
use crate::call::with;
use crate::data::Data;
use crate::error::{Failure, qbm_error};
use crate::process::Origin;
use crate::structure::{self, SizeFirst};

/// What the descriptor stores, and if it stores nothing, QBM_DURABILITY_PROCESS.
pub const QBM_DURABILITY_DEFAULT: u32 = 0;
/// Bitmaps survive a clean close only.
pub const QBM_DURABILITY_CLOSE: u32 = 1;
/// Bitmaps survive the end of the process as well, however it comes.
pub const QBM_DURABILITY_PROCESS: u32 = 2;

/// What the descriptor stores, and if it stores nothing, QBM_PERSIST_BITMAPS_MARKED.
pub const QBM_PERSIST_BITMAPS_DEFAULT: u32 = 0;
/// A program that makes bitmaps in its memory, as QEMU does, stores those that it is told to store.
pub const QBM_PERSIST_BITMAPS_MARKED: u32 = 1;
/// It stores all that have a name.
pub const QBM_PERSIST_BITMAPS_ALL: u32 = 2;

/// A session that is not ours is on record: the image is open elsewhere, or its writer crashed.
pub const QBM_INFO_IN_USE: u32 = 1;
/// Activated, and not inactivated since.
pub const QBM_INFO_ACTIVE: u32 = 2;
/// Active, and writes are recorded.
pub const QBM_INFO_WRITABLE: u32 = 4;
/// image_size_bytes is valid.
pub const QBM_INFO_SIZE_KNOWN: u32 = 8;
/// Activated with QBM_ACTIVATE_DATA: qbm_pread() and its siblings work.
pub const QBM_INFO_DATA: u32 = 16;
/// Active, and the activation found the image as the clean close before had left it: with the same generation as after an
/// earlier close nobody has written to the image since that one.
pub const QBM_INFO_CONTINUED: u32 = 32;

/// An open image; opaque.
#[allow(non_camel_case_types)]
pub struct qbm_image {
    pub(crate) image: Image,
    pub(crate) data: Data,
    pub(crate) poisoned: AtomicBool,
    origin: Origin,
}

impl qbm_image {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            image,
            data: Data::default(),
            poisoned: AtomicBool::new(false),
            origin: Origin::here(),
        }
    }

    /// A forked process has a copy of the bitmaps that nothing keeps up to date, and shares files and locks with its parent.
    pub(crate) fn check_process(&self) -> Result<(), Failure> {
        if self.origin.is_here() {
            return Ok(());
        }
        let text = format!(
            "process {} cannot use the image: it was opened in another one, {}",
            std::process::id(),
            self.origin.id()
        );
        Err(Failure::new(libc::ECHILD, text))
    }
}

impl fmt::Debug for qbm_image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("qbm_image").finish_non_exhaustive()
    }
}

/// What an image is made of, and its state.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_info {
    /// sizeof(qbm_info), set by the caller.
    pub size: usize,
    /// Size of the disk: what was given while active, otherwise what was recorded last. Valid with QBM_INFO_SIZE_KNOWN.
    pub image_size_bytes: u64,
    /// QBM_INFO_*.
    pub flags: u32,
    /// QBM_DURABILITY_CLOSE or _PROCESS: in force while active, otherwise stored.
    pub durability: u32,
    /// Bitmaps, inconsistent ones included.
    pub bitmaps_count: u32,
    /// 0.
    pub reserved: u32,
    /// The data image as the descriptor names it, resolved against its directory; any bytes, as in a path.
    pub data_file: [c_char; 4096],
    /// QEMU's name of its format.
    pub data_format: [c_char; 64],
    /// QBM_DURABILITY_CLOSE or _PROCESS: what an activation has that gives none.
    pub stored_durability: u32,
    /// QBM_PERSIST_BITMAPS_MARKED or _ALL, as stored. The library only keeps it: who makes bitmaps heeds it.
    pub persist_bitmaps: u32,
    /// How many sessions that changed something have ended cleanly, as recorded.
    pub generation: u64,
}

// SAFETY: integers and arrays of them, size first.
unsafe impl SizeFirst for qbm_info {
    const FIRST_BYTES: usize = offset_of!(qbm_info, stored_durability);
}

/// A durability from C. `None`: the default.
pub(crate) fn durability(value: u32) -> Result<Option<Durability>, Failure> {
    match value {
        QBM_DURABILITY_DEFAULT => Ok(None),
        QBM_DURABILITY_CLOSE => Ok(Some(Durability::Close)),
        QBM_DURABILITY_PROCESS => Ok(Some(Durability::Process)),
        other => Err(Failure::new(
            libc::EINVAL,
            format!("durability {other} is not known"),
        )),
    }
}

fn durability_value(durability: Durability) -> u32 {
    match durability {
        Durability::Close => QBM_DURABILITY_CLOSE,
        // The enumeration may grow; each level has its number here.
        _ => QBM_DURABILITY_PROCESS,
    }
}

/// Which bitmaps are stored, from C. `None`: the default.
pub(crate) fn persist_bitmaps(value: u32) -> Result<Option<PersistBitmaps>, Failure> {
    match value {
        QBM_PERSIST_BITMAPS_DEFAULT => Ok(None),
        QBM_PERSIST_BITMAPS_MARKED => Ok(Some(PersistBitmaps::Marked)),
        QBM_PERSIST_BITMAPS_ALL => Ok(Some(PersistBitmaps::All)),
        other => Err(Failure::new(
            libc::EINVAL,
            format!("persist_bitmaps {other} is not known"),
        )),
    }
}

fn persist_bitmaps_value(persist_bitmaps: PersistBitmaps) -> u32 {
    match persist_bitmaps {
        PersistBitmaps::Marked => QBM_PERSIST_BITMAPS_MARKED,
        // The enumeration may grow; each value has its number here.
        _ => QBM_PERSIST_BITMAPS_ALL,
    }
}

/// Tells what an image is made of, and its state.
///
/// Errors: -EINVAL for NULL or a wrong size, -ENAMETOOLONG when a name does not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_get_info(
    image: *const qbm_image,
    info: *mut qbm_info,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let mut out = unsafe { structure::out(info, "info") }?;
        let info = image.image.info();
        let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
        out.image_size_bytes = info.size_bytes.unwrap_or(0);
        out.flags = flag(info.in_use, QBM_INFO_IN_USE)
            | flag(info.active, QBM_INFO_ACTIVE)
            | flag(info.writable, QBM_INFO_WRITABLE)
            | flag(image.data.is_open(), QBM_INFO_DATA)
            | flag(info.continued, QBM_INFO_CONTINUED)
            | flag(info.size_bytes.is_some(), QBM_INFO_SIZE_KNOWN);
        out.durability = durability_value(info.durability);
        out.stored_durability = durability_value(info.stored_durability);
        out.persist_bitmaps = persist_bitmaps_value(info.persist_bitmaps);
        out.generation = info.generation;
        out.bitmaps_count = u32::try_from(info.bitmaps_count).unwrap_or(u32::MAX);
        out.reserved = 0;
        let fits = copy_path(&info.data_file, &mut out.data_file)
            & copy_text(&info.data_format, &mut out.data_format);
        if !fits {
            return Err(Failure::new(
                libc::ENAMETOOLONG,
                "the data image's name does not fit",
            ));
        }
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// Takes the oldest line for the operator's log that was not taken yet: what recovery did, why a bitmap is inconsistent.
///
/// Of notices that nobody takes, the latest 256 are kept.
///
/// Returns 1 and fills buf (NUL-terminated, cut if need be); 0 when there is none; -EINVAL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_take_notice(
    image: *mut qbm_image,
    buf: *mut c_char,
    buf_size: usize,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller; a c_char is a byte.
        let buffer = unsafe { args::bytes_mut(buf.cast::<u8>(), buf_size, "buf") }?;
        if buffer.is_empty() {
            return Err(Failure::new(libc::EINVAL, "buf_size is 0"));
        }
        let Some(notice) = image.image.take_notice() else {
            return Ok(0);
        };
        // SAFETY: the same bytes, seen as C's characters.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buf, buf_size) };
        copy_text(&notice, buffer);
        Ok(1)
    };
    // SAFETY: promised by the caller; no error buffer.
    unsafe { with(image, std::ptr::null_mut(), body) }
}
