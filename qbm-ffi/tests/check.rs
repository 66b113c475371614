// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checking, repairing, and what a report says.

mod common;

use std::ffi::{CStr, c_char};
use std::ptr;

use common::*;
use qbm::*;

fn args(flags: u32) -> qbm_check_args {
    qbm_check_args {
        size: size_of::<qbm_check_args>(),
        flags,
        reserved: 0,
        image_size_bytes: 0,
        data_file: ptr::null(),
    }
}

fn check_with(path: &CStr, args: &qbm_check_args) -> Result<Report, (i32, String)> {
    let mut report = ptr::dangling_mut();
    let to = &raw mut report;
    // SAFETY: all pointers are to live values.
    let outcome = call(|error| unsafe { qbm_check(path.as_ptr(), args, to, error) });
    assert_eq!(outcome.is_err(), report.is_null());
    outcome.map(|value| {
        assert_eq!(value, 0);
        Report(report)
    })
}

fn check(disk: &Disk, flags: u32) -> Report {
    check_with(&disk.path, &args(flags)).unwrap()
}

struct Report(*mut qbm_report);

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: a report that was not freed.
        unsafe { qbm_report_free(self.0) };
    }
}

fn zeroed_finding() -> qbm_finding {
    // SAFETY: plain integers.
    let mut finding = unsafe { std::mem::zeroed::<qbm_finding>() };
    finding.size = size_of::<qbm_finding>();
    finding
}

/// A finding as Rust sees it: kind, severity, flags, bitmap, file.
type Seen = (u32, u32, u32, String, String);

impl Report {
    fn finding(&self, index: u32) -> Result<qbm_finding, (i32, String)> {
        let mut finding = zeroed_finding();
        let to = &raw mut finding;
        // SAFETY: all pointers are to live values.
        call(|error| unsafe { qbm_report_get(self.0, index, to, error) })?;
        Ok(finding)
    }

    fn findings(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Ok(finding) = self.finding(u32::try_from(seen.len()).unwrap()) {
            let text = |text: &[c_char]| {
                // SAFETY: the library leaves its texts NUL-terminated.
                let text = unsafe { CStr::from_ptr(text.as_ptr()) };
                text.to_str().unwrap().to_owned()
            };
            assert!(!text(&finding.message).is_empty() && !text(&finding.message).contains('\n'));
            let (bitmap, file) = (text(&finding.bitmap), text(&finding.file));
            seen.push((finding.kind, finding.severity, finding.flags, bitmap, file));
        }
        let past = self.finding(u32::try_from(seen.len()).unwrap());
        assert_eq!(past.unwrap_err().0, libc::ENOENT);
        seen
    }

    /// Findings, leaks, corruptions, bitmaps, usable ones.
    fn summary(&self) -> [u32; 5] {
        // SAFETY: plain integers.
        let mut summary = unsafe { std::mem::zeroed::<qbm_report_summary>() };
        summary.size = size_of::<qbm_report_summary>();
        let to = &raw mut summary;
        // SAFETY: all pointers are to live values.
        let outcome = call(|error| unsafe { qbm_report_get_summary(self.0, to, error) });
        assert_eq!((outcome, summary.reserved), (Ok(0), 0));
        let qbm_report_summary {
            findings_count,
            leaks_count,
            corruptions_count,
            bitmaps_count,
            usable_count,
            ..
        } = summary;
        [
            findings_count,
            leaks_count,
            corruptions_count,
            bitmaps_count,
            usable_count,
        ]
    }
}

#[test]
fn a_disk_in_order_has_no_findings() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"b", GRANULARITY);
    close(image);
    let before = std::fs::read(disk.descriptor()).unwrap();
    for flags in [0, QBM_CHECK_SHARED, QBM_CHECK_NO_LOCK, QBM_CHECK_REPAIR] {
        let report = check(&disk, flags);
        assert_eq!(report.summary(), [0, 0, 0, 1, 1]);
        assert_eq!(report.findings(), []);
    }
    assert_eq!(std::fs::read(disk.descriptor()).unwrap(), before);
}

#[test]
fn what_is_found_is_told_and_repaired() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"good", GRANULARITY);
    add(image, c"torn", GRANULARITY);
    close(image);
    let at = |name: &str| disk.directory.path().join(name);
    std::fs::write(at("x.qbm.torn.bitmap"), "x").unwrap();
    std::fs::copy(at("x.qbm.good.bitmap"), at("x.qbm.gone.bitmap")).unwrap();
    let orphan = at("x.qbm.gone.bitmap").to_str().unwrap().to_owned();

    let torn = (QBM_FINDING_FILE_SIZE, QBM_SEVERITY_CORRUPTION, "torn", "");
    let gone = (
        QBM_FINDING_ORPHAN_FILE,
        QBM_SEVERITY_LEAK,
        "",
        orphan.as_str(),
    );
    let seen = |flags: u32| {
        [torn, gone].map(|(kind, severity, bitmap, file)| {
            (kind, severity, flags, bitmap.to_owned(), file.to_owned())
        })
    };
    let report = check(&disk, 0);
    assert_eq!(report.findings(), seen(QBM_FINDING_REPAIRABLE));
    assert_eq!(report.summary(), [2, 1, 1, 2, 1]);
    assert!(at("x.qbm.gone.bitmap").exists());

    let report = check(&disk, QBM_CHECK_REPAIR);
    let repaired = seen(QBM_FINDING_REPAIRABLE | QBM_FINDING_REPAIRED);
    assert_eq!(report.findings()[..2], repaired);
    assert_eq!(report.summary()[1..], [0, 0, 2, 1]);
    assert!(!at("x.qbm.gone.bitmap").exists());

    let report = check(&disk, 0);
    let lost = (QBM_FINDING_INCONSISTENT, QBM_SEVERITY_INFORMATION, 0);
    let lost = (lost.0, lost.1, lost.2, "torn".to_owned(), String::new());
    assert_eq!(report.findings(), [lost]);
    assert_eq!(report.summary(), [1, 0, 0, 2, 1]);
}

#[test]
fn an_image_that_is_open_is_left_alone() {
    let disk = Disk::new();
    let image = disk.active();
    for flags in [0, QBM_CHECK_REPAIR] {
        let (errno, _) = check_with(&disk.path, &args(flags)).err().unwrap();
        assert_eq!(errno, libc::EAGAIN);
    }
    let report = check(&disk, QBM_CHECK_SHARED);
    let in_use = (QBM_FINDING_IN_USE, QBM_SEVERITY_INFORMATION, 0);
    let in_use = (in_use.0, in_use.1, in_use.2, String::new(), String::new());
    assert_eq!(report.findings(), [in_use]);
    close(image);
}

#[test]
fn the_data_image_is_where_the_caller_says() {
    let disk = Disk::new();
    let moved = disk.directory.path().join("moved");
    std::fs::rename(disk.data_file(), &moved).unwrap();
    let report = check(&disk, 0);
    assert_eq!(report.findings()[0].0, QBM_FINDING_DATA_IMAGE_MISSING);
    let (errno, _) = check_with(&disk.path, &args(QBM_CHECK_REPAIR))
        .err()
        .unwrap();
    assert_eq!(errno, libc::ENOENT);
    let moved = c_path(&moved);
    for (path, size, findings) in [(moved.as_c_str(), 0, 0), (c"", 0, 0), (c"", 2 << 20, 1)] {
        let mut args = args(0);
        args.data_file = path.as_ptr();
        args.image_size_bytes = size;
        let report = check_with(&disk.path, &args).unwrap();
        assert_eq!(
            report.findings().len(),
            findings,
            "{path:?} of {size} bytes"
        );
    }
    let mut args = args(0);
    args.image_size_bytes = u64::MAX;
    let (errno, _) = check_with(&disk.path, &args).err().unwrap();
    assert_eq!(errno, libc::EFBIG);
}

#[test]
fn a_file_name_of_any_bytes_is_told_as_it_is() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join(OsStr::from_bytes(b"\xff"));
    std::fs::create_dir(&odd).unwrap();
    let path = std::ffi::CString::new(odd.join("x.qbm").as_os_str().as_bytes()).unwrap();
    assert_eq!(create(&path, SIZE, &mut error()), 0);
    let orphan = odd.join("x.qbm.gone.bitmap");
    std::fs::write(&orphan, [0; 3]).unwrap();
    let report = check_with(&path, &args(0)).unwrap();
    let finding = report.finding(0).unwrap();
    // SAFETY: NUL-terminated.
    let file = unsafe { CStr::from_ptr(finding.file.as_ptr()) };
    assert_eq!(file.to_bytes(), orphan.as_os_str().as_bytes());
}

#[test]
fn arguments_are_looked_at() {
    let disk = Disk::new();
    let fails = |path: &CStr, args: &qbm_check_args, errno: i32, text: &str| {
        let (found, message) = check_with(path, args).err().unwrap();
        assert_eq!(found, errno, "{message}");
        assert!(message.contains(text), "{message}");
    };
    let path = disk.path.as_c_str();
    fails(path, &args(16), libc::EINVAL, "unknown flags 0x10");
    for repair in [QBM_CHECK_REPAIR, QBM_CHECK_REPAIR_LEAKS] {
        let both = args(QBM_CHECK_SHARED | repair);
        fails(path, &both, libc::EINVAL, "does not go with");
    }
    let reserved = qbm_check_args {
        reserved: 1,
        ..args(0)
    };
    fails(path, &reserved, libc::EINVAL, "reserved is 1");
    let small = qbm_check_args { size: 8, ..args(0) };
    fails(path, &small, libc::EINVAL, "args.size is 8");
    fails(c"/nonexistent", &args(0), libc::ENOENT, "/nonexistent");
    let data = c_path(&disk.data_file());
    fails(&data, &args(0), libc::EINVAL, "x.qbm.raw");

    let (path, args, mut report) = (path.as_ptr(), args(0), ptr::null_mut());
    let mut finding = zeroed_finding();
    let to_finding = &raw mut finding;
    let einval = |entry: &dyn Fn(&mut qbm_error) -> i32, text: &str| {
        let (errno, message) = call(entry).unwrap_err();
        assert_eq!(
            (errno, message.contains(text)),
            (libc::EINVAL, true),
            "{message}"
        );
    };
    // SAFETY: NULL is what the entries must bear; the rest lives.
    unsafe {
        let to = &raw mut report;
        einval(&|e| qbm_check(ptr::null(), &args, to, e), "path is NULL");
        einval(&|e| qbm_check(path, ptr::null(), to, e), "args is NULL");
        einval(
            &|e| qbm_check(path, &args, ptr::null_mut(), e),
            "out is NULL",
        );
        einval(
            &|e| qbm_report_get(ptr::null(), 0, to_finding, e),
            "report is NULL",
        );
        let mut summary = std::mem::zeroed::<qbm_report_summary>();
        summary.size = 8;
        let to_summary = &raw mut summary;
        einval(
            &|e| qbm_report_get_summary(ptr::null(), to_summary, e),
            "report is NULL",
        );
        assert_eq!(qbm_check(path, &args, to, ptr::null_mut()), 0);
        einval(
            &|e| qbm_report_get_summary(report, ptr::null_mut(), e),
            "summary is NULL",
        );
        einval(
            &|e| qbm_report_get_summary(report, to_summary, e),
            "summary.size is 8",
        );
        einval(
            &|e| qbm_report_get(report, 0, ptr::null_mut(), e),
            "finding is NULL",
        );
        (*to_finding).size = 16;
        einval(
            &|e| qbm_report_get(report, 0, to_finding, e),
            "finding.size is 16",
        );
        qbm_report_free(report);
        qbm_report_free(ptr::null_mut());
    }
}
