// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checking and repairing an image.

use std::ffi::c_char;

use qbm_core::check::{CheckOptions, check, repair, repair_leaks};

use crate::args;
use crate::call::guard;
use crate::error::{Failure, qbm_error};
use crate::report::qbm_report;
use crate::storage::storage;
use crate::structure::{self, SizeFirst};

/// The caller holds QEMU's locks on the descriptor already; take none.
pub const QBM_CHECK_NO_LOCK: u32 = 1;
/// Others may have the image open, even for writing; then little can be said of its bitmaps. Not with QBM_CHECK_REPAIR or
/// QBM_CHECK_REPAIR_LEAKS.
pub const QBM_CHECK_SHARED: u32 = 2;
/// Mend what can be mended.
pub const QBM_CHECK_REPAIR: u32 = 4;
/// Remove files that nobody needs, findings of QBM_SEVERITY_LEAK, and mend nothing else. Beside QBM_CHECK_REPAIR it adds nothing.
pub const QBM_CHECK_REPAIR_LEAKS: u32 = 8;

/// How an image is checked.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_check_args {
    /// sizeof(qbm_check_args), set by the caller.
    pub size: usize,
    /// QBM_CHECK_*.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// The data image's size now. 0: the file's length if it is a raw regular file, otherwise what was recorded last.
    pub image_size_bytes: u64,
    /// As in qbm_activate_args.
    pub data_file: *const c_char,
}

// SAFETY: integers and a pointer that may be NULL, size first.
unsafe impl SizeFirst for qbm_check_args {}

/// Looks for everything that is wrong with the image whose descriptor is at path. Reads every bitmap file, but not the data
/// image, which is never written either. Blocks.
///
/// Without QBM_CHECK_REPAIR and QBM_CHECK_REPAIR_LEAKS nothing is written. With the former, a crash is recovered from, what cannot be trusted is listed as
/// inconsistent, and files that nobody needs are removed; no bitmap becomes trusted that is not; durable when this returns.
/// On success, whatever was found, *out is a report to be given to qbm_report_free(); otherwise it is NULL.
/// Errors: -EINVAL (NULL, flags, reserved, or a rule of the format is broken that makes the descriptor useless; no size is
/// known), -ENOTSUP, -EFBIG, -EAGAIN (in use), -ENOENT (no descriptor; when repairing also: no data image), or the system's. What
/// was repaired until then stays so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_check(
    path: *const c_char,
    args: *const qbm_check_args,
    out: *mut *mut qbm_report,
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
        let known =
            QBM_CHECK_NO_LOCK | QBM_CHECK_SHARED | QBM_CHECK_REPAIR | QBM_CHECK_REPAIR_LEAKS;
        args::flags(given.flags, known, "args.flags")?;
        args::reserved(given.reserved, "args.reserved")?;
        let shared = given.flags & QBM_CHECK_SHARED != 0;
        let mend = given.flags & QBM_CHECK_REPAIR != 0;
        let clear_away = given.flags & QBM_CHECK_REPAIR_LEAKS != 0;
        if shared && (mend || clear_away) {
            let text = "args.flags: QBM_CHECK_SHARED does not go with a repair";
            return Err(Failure::new(libc::EINVAL, text));
        }
        let options = CheckOptions {
            size_bytes: (given.image_size_bytes != 0).then_some(given.image_size_bytes),
            // SAFETY: as above.
            data_path: unsafe { args::data_path(given.data_file) }?,
            no_lock: given.flags & QBM_CHECK_NO_LOCK != 0,
            shared,
        };
        let report = if mend {
            repair(storage(), path, &options)?
        } else if clear_away {
            repair_leaks(storage(), path, &options)?
        } else {
            check(storage(), path, &options)?
        };
        *out = Box::into_raw(Box::new(qbm_report::new(report)));
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { guard(error, body) }
}
