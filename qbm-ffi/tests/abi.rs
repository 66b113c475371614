// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries as C calls them.

mod common;

use std::ffi::{CStr, c_char};
use std::ptr;

use common::*;
use qbm::*;

#[test]
fn a_session_from_create_to_close() {
    let directory = tempfile::tempdir().unwrap();
    let path = c_path(&directory.path().join("x.qbm"));
    let name = c"b0";
    let mut error = error();
    assert_eq!(create(&path, 1 << 20, &mut error), 0);
    let image = open(&path, 0, &mut error).unwrap();
    assert_eq!(activate(image, 1 << 20, 0), 0);
    // SAFETY: `image` is open until qbm_close; every pointer is to a live value.
    unsafe {
        let no_error = ptr::null_mut();
        let name = name.as_ptr();
        assert_eq!(
            qbm_bitmap_add(image, name, 65536, QBM_BITMAP_RECORDING, no_error),
            0
        );
        let mut ticket = qbm_ticket { opaque: [0; 4] };
        assert_eq!(qbm_co_writev_begin(image, 70_000, 1, &mut ticket), 0);
        qbm_co_writev_end(image, &ticket);
        let mut found = 0;
        assert_eq!(
            qbm_bitmap_next_dirty(image, name, 0, &mut found, no_error),
            1
        );
        assert_eq!(found, 65536);
        let mut bits = [0_u8; 2];
        let result = qbm_bitmap_load_bits(
            image,
            name,
            0,
            1 << 20,
            bits.as_mut_ptr().cast(),
            2,
            no_error,
        );
        assert_eq!((result, bits), (0, [2, 0]));

        let mut info = std::mem::zeroed::<qbm_bitmap_info>();
        info.size = size_of::<qbm_bitmap_info>();
        assert_eq!(qbm_bitmap_get(image, 0, &mut info, no_error), 0);
        assert_eq!(info.flags, QBM_BITMAP_RECORDING | QBM_BITMAP_IN_USE);
        assert_eq!(CStr::from_ptr(info.name.as_ptr()), c"b0");
        assert_eq!(qbm_bitmap_get(image, 1, &mut info, no_error), -libc::ENOENT);
        assert_eq!(qbm_close(image, no_error), 0);
    }
}

#[test]
fn null_is_an_error_and_closing_null_is_not() {
    let mut error = error();
    let path = c"/nonexistent/x.qbm";
    // SAFETY: NULL is what the entries must bear; the rest lives.
    unsafe {
        assert_eq!(qbm_close(ptr::null_mut(), &mut error), 0);
        assert_eq!(
            qbm_create(path.as_ptr(), ptr::null(), &mut error),
            -libc::EINVAL
        );
        assert_eq!(message(&error), "args is NULL");
        assert_eq!(
            qbm_get_info(ptr::null(), ptr::null_mut(), &mut error),
            -libc::EINVAL
        );
        assert_eq!(qbm_probe(ptr::null(), 512), 0);
        assert_eq!(
            qbm_take_notice(ptr::null_mut(), ptr::null_mut(), 0),
            -libc::EINVAL
        );
        let mut ticket = qbm_ticket { opaque: [0; 4] };
        assert_eq!(
            qbm_co_writev_begin(ptr::null_mut(), 0, 1, &mut ticket),
            -libc::EINVAL
        );
        qbm_co_writev_end(ptr::null_mut(), &ticket);
    }
    assert_eq!(open(path, 0, &mut error).unwrap_err(), -libc::ENOENT);
    assert_eq!(error.errnum, libc::ENOENT);
    assert!(message(&error).contains("/nonexistent/x.qbm"));
    assert_eq!(open(path, 1 << 9, &mut error).unwrap_err(), -libc::EINVAL);
}

#[test]
fn an_error_buffer_that_is_too_small_is_left_alone() {
    let mut error = error();
    error.size = 8;
    error.errnum = 77;
    open(c"/nonexistent", 0, &mut error).unwrap_err();
    assert_eq!((error.errnum, error.message[0]), (77, 0 as c_char));
}

#[test]
fn two_handles_exclude_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = c_path(&directory.path().join("x.qbm"));
    let mut error = error();
    assert_eq!(create(&path, 4096, &mut error), 0);
    let image = open(&path, 0, &mut error).unwrap();
    assert_eq!(open(&path, 0, &mut error).unwrap_err(), -libc::EAGAIN);
    assert_eq!(
        open(&path, QBM_OPEN_READ_ONLY, &mut error).unwrap_err(),
        -libc::EAGAIN
    );
    let shared = open(&path, QBM_OPEN_SHARED, &mut error).unwrap();
    // SAFETY: both are open, and closed once.
    unsafe {
        assert_eq!(qbm_close(shared, ptr::null_mut()), 0);
        assert_eq!(qbm_close(image, ptr::null_mut()), 0);
    }
}

#[test]
fn a_path_may_be_any_bytes() {
    // What was told of the data image had to be UTF-8: the image worked, and could not be described.
    use std::ffi::{CString, OsStr};
    use std::os::unix::ffi::OsStrExt;

    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(OsStr::from_bytes(b"\xff\xfe"));
    std::fs::create_dir(&place).unwrap();
    let path = CString::new(place.join("x.qbm").as_os_str().as_bytes()).unwrap();
    let mut data_file = [0 as c_char; 4096];
    let args = qbm_create_args {
        size: size_of::<qbm_create_args>(),
        flags: 0,
        durability: QBM_DURABILITY_DEFAULT,
        image_size_bytes: 1 << 20,
        data_file: ptr::null(),
        data_format: ptr::null(),
        data_file_out: data_file.as_mut_ptr(),
        data_file_out_size: data_file.len(),
        persist_bitmaps: QBM_PERSIST_BITMAPS_DEFAULT,
        reserved: 0,
    };
    // SAFETY: every pointer is to a live value; all zeros is a structure.
    unsafe {
        assert_eq!(qbm_create(path.as_ptr(), &args, ptr::null_mut()), 0);
        let image = open(&path, 0, &mut error()).unwrap();
        let mut info: qbm_info = std::mem::zeroed();
        info.size = size_of::<qbm_info>();
        assert_eq!(qbm_get_info(image, &mut info, ptr::null_mut()), 0);
        let told = CStr::from_ptr(info.data_file.as_ptr());
        let expected = place.join("x.qbm.raw");
        assert_eq!(told.to_bytes(), expected.as_os_str().as_bytes());
        assert_eq!(CStr::from_ptr(data_file.as_ptr()), told);
        assert_eq!(qbm_close(image, ptr::null_mut()), 0);
    }
}
