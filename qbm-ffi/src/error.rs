// SPDX-License-Identifier: MIT OR Apache-2.0
//! The caller's error buffer.

use std::ffi::c_char;

use crate::args::copy_text;
use crate::structure::{self, SizeFirst};

/// Filled when a function fails. The caller owns it and sets `size` first.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_error {
    /// sizeof(qbm_error), set by the caller.
    pub size: usize,
    /// The positive errno.
    pub errnum: i32,
    /// One line, NUL-terminated; cut if it is longer.
    pub message: [c_char; 2036],
}

// SAFETY: integers and an array of them, size first.
unsafe impl SizeFirst for qbm_error {}

/// An errno with its line.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) errnum: i32,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(errnum: i32, message: impl Into<String>) -> Self {
        Self {
            errnum,
            message: message.into(),
        }
    }

    /// Writes the failure to the caller's buffer, if there is one that is large enough; returns -errno.
    ///
    /// # Safety
    /// `error` is NULL or points to a `qbm_error` that only this call uses.
    pub(crate) unsafe fn report(&self, error: *mut qbm_error) -> i32 {
        // SAFETY: promised by the caller.
        if let Ok(mut error) = unsafe { structure::out(error, "error") } {
            error.errnum = self.errnum;
            copy_text(&self.message, &mut error.message);
        }
        -self.errnum
    }
}

impl From<qbm_core::Error> for Failure {
    fn from(error: qbm_core::Error) -> Self {
        Self::new(error.errno(), error.to_string())
    }
}
