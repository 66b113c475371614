// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of the entries share: an image in a directory of its own, and calls with an error buffer.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qbm::*;

/// 1 MiB and a sector: the last granule is cut.
pub(crate) const SIZE: u64 = (1 << 20) + 512;
pub(crate) const GRANULARITY: u64 = 65536;

/// A child has a copy of every file that any test has open, and their locks with it, until it ends or runs another
/// program: where tests make children, one test at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn error() -> qbm_error {
    qbm_error {
        size: size_of::<qbm_error>(),
        errnum: 0,
        message: [0; 2036],
    }
}

pub(crate) fn message(error: &qbm_error) -> String {
    // SAFETY: the library leaves the message NUL-terminated.
    let text = unsafe { CStr::from_ptr(error.message.as_ptr()) };
    text.to_str().unwrap().to_owned()
}

/// A call's result: what is not negative, or the error.
pub(crate) type Outcome = Result<i32, (i32, String)>;

/// Makes a call with an error buffer. What it returns and what it leaves there must agree.
pub(crate) fn call(entry: impl FnOnce(&mut qbm_error) -> i32) -> Outcome {
    let mut error = error();
    let result = entry(&mut error);
    if result >= 0 {
        assert_eq!((error.errnum, message(&error).as_str()), (0, ""));
        return Ok(result);
    }
    assert_eq!(error.errnum, -result);
    assert!(!message(&error).is_empty() && !message(&error).contains('\n'));
    Err((error.errnum, message(&error)))
}

/// A call's errno; 0 or more is none.
#[track_caller]
pub(crate) fn errno(entry: impl FnOnce(&mut qbm_error) -> i32) -> i32 {
    let (errno, _) = call(entry).expect_err("it should fail");
    errno
}

pub(crate) fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

pub(crate) fn create(path: &CStr, size_bytes: u64, error: &mut qbm_error) -> i32 {
    let args = qbm_create_args {
        size: size_of::<qbm_create_args>(),
        flags: 0,
        durability: QBM_DURABILITY_DEFAULT,
        image_size_bytes: size_bytes,
        data_file: ptr::null(),
        data_format: ptr::null(),
        data_file_out: ptr::null_mut(),
        data_file_out_size: 0,
        persist_bitmaps: QBM_PERSIST_BITMAPS_DEFAULT,
        reserved: 0,
    };
    // SAFETY: all pointers are to live values of the right type.
    unsafe { qbm_create(path.as_ptr(), &args, error) }
}

pub(crate) fn open(path: &CStr, flags: u32, error: &mut qbm_error) -> Result<*mut qbm_image, i32> {
    let args = qbm_open_args {
        size: size_of::<qbm_open_args>(),
        flags,
        reserved: 0,
    };
    let mut image = ptr::dangling_mut();
    // SAFETY: all pointers are to live values of the right type.
    let result = unsafe { qbm_open(path.as_ptr(), &args, &mut image, error) };
    assert_eq!(result < 0, image.is_null());
    if result < 0 { Err(result) } else { Ok(image) }
}

pub(crate) fn activate(image: *mut qbm_image, size_bytes: u64, flags: u32) -> i32 {
    let args = qbm_activate_args {
        size: size_of::<qbm_activate_args>(),
        flags,
        durability: QBM_DURABILITY_DEFAULT,
        image_size_bytes: size_bytes,
        data_file: ptr::null(),
    };
    // SAFETY: `image` is open; `args` lives.
    unsafe { qbm_activate(image, &args, ptr::null_mut()) }
}

/// An image of [`SIZE`] in a directory of its own.
pub(crate) struct Disk {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: CString,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = c_path(&directory.path().join("x.qbm"));
        assert_eq!(create(&path, SIZE, &mut error()), 0);
        Self { directory, path }
    }

    pub(crate) fn descriptor(&self) -> PathBuf {
        self.directory.path().join("x.qbm")
    }

    /// Open and active for writing.
    pub(crate) fn active(&self) -> *mut qbm_image {
        let image = open(&self.path, 0, &mut error()).unwrap();
        assert_eq!(activate(image, self.size_bytes(), 0), 0);
        image
    }

    /// Open and active for reading.
    pub(crate) fn read_only(&self) -> *mut qbm_image {
        let image = open(&self.path, QBM_OPEN_READ_ONLY, &mut error()).unwrap();
        assert_eq!(
            activate(image, self.size_bytes(), QBM_ACTIVATE_READ_ONLY),
            0
        );
        image
    }

    pub(crate) fn data_file(&self) -> PathBuf {
        self.directory.path().join("x.qbm.raw")
    }

    fn size_bytes(&self) -> u64 {
        std::fs::metadata(self.data_file()).unwrap().len()
    }
}

pub(crate) fn close(image: *mut qbm_image) {
    // SAFETY: `image` is open, and the caller gives it up.
    assert_eq!(call(|error| unsafe { qbm_close(image, error) }), Ok(0));
}

pub(crate) fn add(image: *mut qbm_image, name: &CStr, granularity_bytes: u64) {
    let flags = QBM_BITMAP_RECORDING;
    // SAFETY: `image` is open; the name lives.
    let added = call(|error| unsafe {
        qbm_bitmap_add(image, name.as_ptr(), granularity_bytes, flags, error)
    });
    assert_eq!(added, Ok(0));
}

pub(crate) fn write(image: *mut qbm_image, offset: u64, bytes: u64) {
    let mut ticket = qbm_ticket { opaque: [0; 4] };
    // SAFETY: `image` is open; the ticket lives.
    unsafe {
        assert_eq!(qbm_co_writev_begin(image, offset, bytes, &mut ticket), 0);
        qbm_co_writev_end(image, &ticket);
    }
}

/// The dirty extents of a bitmap, as (offset, bytes).
pub(crate) fn extents(image: *mut qbm_image, name: &CStr) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let (mut offset, mut bytes) = (0, 0);
    loop {
        let from = offset + bytes;
        let (to_offset, to_bytes) = (&raw mut offset, &raw mut bytes);
        // SAFETY: `image` is open; the rest lives.
        let result = call(|error| unsafe {
            qbm_bitmap_next_extent(image, name.as_ptr(), from, to_offset, to_bytes, error)
        });
        match result {
            Ok(1) => found.push((offset, bytes)),
            other => {
                assert_eq!(other, Ok(0));
                return found;
            }
        }
    }
}

pub(crate) fn info(image: *mut qbm_image, name: &CStr) -> Result<qbm_bitmap_info, i32> {
    // SAFETY: plain integers.
    let mut info = unsafe { std::mem::zeroed::<qbm_bitmap_info>() };
    info.size = size_of::<qbm_bitmap_info>();
    // SAFETY: `image` is open; the rest lives.
    let result = unsafe { qbm_bitmap_find(image, name.as_ptr(), &mut info, ptr::null_mut()) };
    if result < 0 { Err(-result) } else { Ok(info) }
}

/// Leaves `room_bytes` in the descriptor of what users may fill, less what a session takes.
pub(crate) fn fill(disk: &Disk, room_bytes: usize) {
    let text = std::fs::read_to_string(disk.descriptor()).unwrap();
    let limit = (16 << 20) - (2 << 20);
    let filler = "x".repeat(limit - text.len() - room_bytes);
    let filled = text.replacen(
        '{',
        &format!("{{\"ext-soft-test-filler\": \"{filler}\","),
        1,
    );
    std::fs::write(disk.descriptor(), filled).unwrap();
}
