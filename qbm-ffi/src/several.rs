// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several bitmaps added, removed, or turned on and off at once.

use std::ffi::c_char;

use qbm_core::{BitmapChange, quoted};

use crate::args;
use crate::bitmaps::{QBM_BITMAP_ALL_DIRTY, QBM_BITMAP_RECORDING};
use crate::call::with;
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;
use crate::structure::{self, SizeFirst};

/// As qbm_bitmap_add().
pub const QBM_CHANGE_ADD: u32 = 1;
/// As qbm_bitmap_remove().
pub const QBM_CHANGE_REMOVE: u32 = 2;
/// As qbm_bitmap_set_recording().
pub const QBM_CHANGE_SET_RECORDING: u32 = 3;

/// One of the changes of qbm_bitmap_change_several().
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_bitmap_change {
    /// sizeof(qbm_bitmap_change), the same in all of an array.
    pub size: usize,
    /// The bitmap's name. Only read.
    pub name: *const c_char,
    /// QBM_CHANGE_ADD: a power of two from 512 to 2 GiB. Otherwise 0.
    pub granularity_bytes: u64,
    /// QBM_CHANGE_*.
    pub action: u32,
    /// QBM_CHANGE_ADD: QBM_BITMAP_RECORDING and QBM_BITMAP_ALL_DIRTY, or 0. QBM_CHANGE_SET_RECORDING: QBM_BITMAP_RECORDING
    /// or 0. Otherwise 0.
    pub flags: u32,
}

// SAFETY: integers and a pointer, which may be NULL, size first.
unsafe impl SizeFirst for qbm_bitmap_change {}

impl qbm_bitmap_change {
    /// # Safety
    /// The name is NULL or a NUL-terminated string that lives as long as the result.
    unsafe fn to_change<'a>(self, what: &str) -> Result<BitmapChange<'a>, Failure> {
        // SAFETY: promised by the caller.
        let name = unsafe { args::text(self.name, &format!("{what}.name")) }?;
        let known = match self.action {
            QBM_CHANGE_ADD => QBM_BITMAP_RECORDING | QBM_BITMAP_ALL_DIRTY,
            QBM_CHANGE_SET_RECORDING => QBM_BITMAP_RECORDING,
            _ => 0,
        };
        args::flags(self.flags, known, &format!("{what}.flags"))?;
        if self.action != QBM_CHANGE_ADD && self.granularity_bytes != 0 {
            let text = format!(
                "{what}.granularity_bytes is {}, not 0",
                self.granularity_bytes
            );
            return Err(Failure::new(libc::EINVAL, text));
        }
        let recording = self.flags & QBM_BITMAP_RECORDING != 0;
        match self.action {
            QBM_CHANGE_ADD => Ok(BitmapChange::Add {
                name,
                granularity_bytes: self.granularity_bytes,
                recording,
                all_dirty: self.flags & QBM_BITMAP_ALL_DIRTY != 0,
            }),
            QBM_CHANGE_REMOVE => Ok(BitmapChange::Remove { name }),
            QBM_CHANGE_SET_RECORDING => Ok(BitmapChange::SetRecording { name, recording }),
            action => {
                let text = format!(
                    "{what}.action: unknown action {action} for {}",
                    quoted(name)
                );
                Err(Failure::new(libc::EINVAL, text))
            }
        }
    }
}

/// Makes changes_count changes with one replacement of the descriptor: all of them or, after an error or a crash, none. No
/// bitmap may be in two of them. Durable when this returns, in about the time of one change. changes may be NULL if
/// changes_count is 0. Blocks.
///
/// Errors: those of the single changes, -ENOENT, -EEXIST, -ENAMETOOLONG, -EINVAL (also for NULL, a bitmap that is named twice,
/// an unknown action), -EFBIG (caps), -EROFS, -EBUSY (frozen), or the system's. Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_bitmap_change_several(
    image: *mut qbm_image,
    changes: *const qbm_bitmap_change,
    changes_count: usize,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let changes = unsafe { structure::read_all(changes, changes_count, "changes") }?;
        let each = changes.iter().enumerate();
        // SAFETY: promised by the caller.
        let read =
            each.map(|(index, change)| unsafe { change.to_change(&format!("changes[{index}]")) });
        let read: Vec<_> = read.collect::<Result<_, _>>()?;
        image.image.change_bitmaps(&read)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}
