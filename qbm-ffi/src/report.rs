// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a check found.

use std::ffi::c_char;
use std::fmt;
use std::path::Path;

use qbm_core::check::{Finding, Report, Severity};

use crate::args::{copy_path, copy_text};
use crate::call::guard;
use crate::error::{Failure, qbm_error};
use crate::finding::{kind_number, severity_number};
use crate::structure::{self, SizeFirst};

/// What qbm_check() found; opaque. It is memory that nothing changes: any thread may read it, and a forked process its copy.
#[allow(non_camel_case_types)]
pub struct qbm_report {
    report: Report,
}

impl qbm_report {
    pub(crate) fn new(report: Report) -> Self {
        Self { report }
    }
}

impl fmt::Debug for qbm_report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("qbm_report").finish_non_exhaustive()
    }
}

/// A report in numbers. leaks_count and corruptions_count are 0: nothing is wrong, or all of it was repaired.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_report_summary {
    /// sizeof(qbm_report_summary), set by the caller.
    pub size: usize,
    /// All findings, repaired ones included.
    pub findings_count: u32,
    /// Findings of QBM_SEVERITY_LEAK that are not repaired.
    pub leaks_count: u32,
    /// Findings of QBM_SEVERITY_CORRUPTION that are not repaired.
    pub corruptions_count: u32,
    /// Bitmaps, inconsistent ones included.
    pub bitmaps_count: u32,
    /// Bitmaps that can be used; when repaired, afterwards.
    pub usable_count: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: integers, size first.
unsafe impl SizeFirst for qbm_report_summary {}

/// qbm_check() with QBM_CHECK_REPAIR mends it. A bitmap that it costs is then listed as inconsistent, and stays lost.
pub const QBM_FINDING_REPAIRABLE: u32 = 1;
/// It was mended.
pub const QBM_FINDING_REPAIRED: u32 = 2;

/// One thing that was found.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_finding {
    /// sizeof(qbm_finding), set by the caller.
    pub size: usize,
    /// QBM_FINDING_OTHER, _TORN_DESCRIPTOR, ...
    pub kind: u32,
    /// QBM_SEVERITY_*.
    pub severity: u32,
    /// QBM_FINDING_REPAIRABLE, _REPAIRED.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// The bitmap concerned, or "". NUL-terminated; the name of an entry that breaks the rules is cut where it does not fit.
    pub bitmap: [c_char; 1024],
    /// The file concerned, where it is not the bitmap's or the descriptor, or "". NUL-terminated; any bytes, as in a path;
    /// cut where it does not fit.
    pub file: [c_char; 4096],
    /// One line of UTF-8 for a person, NUL-terminated; cut if it is longer. Its wording is not part of the ABI.
    pub message: [c_char; 2040],
}

// SAFETY: integers and arrays of them, size first.
unsafe impl SizeFirst for qbm_finding {}

impl qbm_finding {
    fn fill(&mut self, finding: &Finding) {
        let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
        self.kind = kind_number(finding.kind);
        self.severity = severity_number(finding.kind.severity());
        self.flags = flag(finding.repairable, QBM_FINDING_REPAIRABLE)
            | flag(finding.repaired, QBM_FINDING_REPAIRED);
        self.reserved = 0;
        copy_text(
            finding.bitmap.as_deref().unwrap_or_default(),
            &mut self.bitmap,
        );
        let file = finding.file.as_deref().unwrap_or(Path::new(""));
        copy_path(file, &mut self.file);
        copy_text(&finding.message, &mut self.message);
    }
}

/// Runs `body` with a report.
///
/// # Safety
/// `report` is NULL or a report that was not freed; `error` as for [`Failure::report`].
unsafe fn with_report(
    report: *const qbm_report,
    error: *mut qbm_error,
    body: impl FnOnce(&Report) -> Result<i32, Failure>,
) -> i32 {
    let body = || {
        // SAFETY: promised by the caller.
        let report = unsafe { report.as_ref() };
        let report = report.ok_or_else(|| Failure::new(libc::EINVAL, "report is NULL"))?;
        body(&report.report)
    };
    // SAFETY: promised by the caller.
    unsafe { guard(error, body) }
}

/// Tells a report in numbers.
///
/// Errors: -EINVAL for NULL or a wrong size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_report_get_summary(
    report: *const qbm_report,
    summary: *mut qbm_report_summary,
    error: *mut qbm_error,
) -> i32 {
    let body = |report: &Report| {
        // SAFETY: promised by the caller.
        let mut out = unsafe { structure::out(summary, "summary") }?;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        out.findings_count = number(report.findings.len());
        out.leaks_count = number(report.count(Severity::Leak));
        out.corruptions_count = number(report.count(Severity::Corruption));
        out.bitmaps_count = number(report.bitmaps_count);
        out.usable_count = number(report.usable_count);
        out.reserved = 0;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with_report(report, error, body) }
}

/// Copies finding number index, from 0, to *finding.
///
/// Errors: -ENOENT past the last one, -EINVAL for NULL or a wrong size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_report_get(
    report: *const qbm_report,
    index: u32,
    finding: *mut qbm_finding,
    error: *mut qbm_error,
) -> i32 {
    let body = |report: &Report| {
        // SAFETY: promised by the caller.
        let mut out = unsafe { structure::out(finding, "finding") }?;
        let found = report.findings.get(index as usize);
        let found = found
            .ok_or_else(|| Failure::new(libc::ENOENT, format!("no finding number {index}")))?;
        out.fill(found);
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with_report(report, error, body) }
}

/// Frees a report; nothing may use it beside or after that. NULL: does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_report_free(report: *mut qbm_report) {
    if report.is_null() {
        return;
    }
    // SAFETY: made by Box::into_raw in qbm_check; the caller gives it up.
    drop(unsafe { Box::from_raw(report) });
}
