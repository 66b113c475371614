// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bitmap's user keeps with it.

mod common;

use std::ffi::CStr;
use std::ptr;

use common::*;
use qbm::*;

const NO_IMAGE: *mut qbm_image = ptr::null_mut();

fn set(image: *mut qbm_image, name: &CStr, data: Option<&[u8]>) -> Outcome {
    let (first, size) = data.map_or((ptr::null(), 0), |data| (data.as_ptr().cast(), data.len()));
    // SAFETY: `image` is open or NULL; the rest lives.
    call(|error| unsafe { qbm_bitmap_set_user_data(image, name.as_ptr(), first, size, error) })
}

/// The outcome, the size that was stored, and a buffer of `room` bytes.
fn get(image: *mut qbm_image, name: &CStr, room: usize) -> (Outcome, usize, Vec<u8>) {
    let (mut buffer, mut size) = (vec![b'-'; room], 77);
    let (first, to_size) = (buffer.as_mut_ptr().cast(), &raw mut size);
    // SAFETY: as above.
    let outcome = call(|error| unsafe {
        qbm_bitmap_get_user_data(image, name.as_ptr(), first, room, to_size, error)
    });
    (outcome, size, buffer)
}

#[track_caller]
fn fails(outcome: Outcome, errno: i32, text: &str) {
    let (found, message) = outcome.expect_err("it should fail");
    assert_eq!(found, errno, "{message}");
    assert!(message.contains(text), "{message}");
}

#[test]
fn it_is_kept_until_it_is_removed() {
    let disk = Disk::new();
    let mut image = disk.active();
    let name = c"b";
    add(image, name, GRANULARITY);
    assert_eq!(get(image, name, 2), (Ok(0), 0, b"--".to_vec()));
    let most: Vec<u8> = (0..QBM_USER_DATA_MAX).map(|byte| byte as u8).collect();
    for data in [&most[..], b"\0\xff", b""] {
        assert_eq!(set(image, name, Some(data)), Ok(0));
        close(image);
        // It can be read before anything is activated.
        let reader = open(&disk.path, QBM_OPEN_READ_ONLY, &mut error()).unwrap();
        let expected = (Ok(1), data.len(), data.to_vec());
        assert_eq!(get(reader, name, data.len()), expected);
        close(reader);
        image = disk.active();
    }
    assert_eq!(set(image, name, None), Ok(0));
    assert_eq!(get(image, name, 2), (Ok(0), 0, b"--".to_vec()));
    close(image);
}

#[test]
fn a_buffer_that_is_too_small_is_told_the_size() {
    let disk = Disk::new();
    let image = disk.active();
    let name = c"b";
    add(image, name, GRANULARITY);
    assert_eq!(set(image, name, Some(b"four")), Ok(0));
    let (outcome, size, buffer) = get(image, name, 3);
    fails(outcome, libc::ERANGE, "4 bytes of user data, buf_size is 3");
    assert_eq!((size, &buffer[..]), (4, &b"---"[..]));
    let (mut size, no_buffer) = (77, ptr::null_mut());
    let to = &raw mut size;
    // SAFETY: NULL is what the entry must bear; the rest lives.
    let asked = call(|error| unsafe {
        qbm_bitmap_get_user_data(image, name.as_ptr(), no_buffer, 0, to, error)
    });
    fails(asked, libc::ERANGE, "buf_size is 0");
    assert_eq!(size, 4);
    assert_eq!(get(image, name, 6), (Ok(1), 4, b"four--".to_vec()));
    close(image);
}

#[test]
fn an_inconsistent_bitmap_shows_what_it_had() {
    let disk = Disk::new();
    let image = disk.active();
    let name = c"lost";
    add(image, name, GRANULARITY);
    assert_eq!(set(image, name, Some(b"x")), Ok(0));
    // SAFETY: `image` is open.
    let lost = call(|error| unsafe { qbm_bitmap_set_inconsistent(image, name.as_ptr(), error) });
    assert_eq!(lost, Ok(0));
    assert_eq!(get(image, name, 1), (Ok(1), 1, b"x".to_vec()));
    fails(set(image, name, Some(b"y")), libc::ENOENT, "lost");
    fails(set(image, c"a", None), libc::ENOENT, "\"a\"");
    fails(get(image, c"a", 1).0, libc::ENOENT, "\"a\"");
    close(image);
}

#[test]
fn arguments_and_limits() {
    let disk = Disk::new();
    let image = disk.active();
    let name = c"b";
    add(image, name, GRANULARITY);
    assert_eq!(set(image, name, Some(b"kept")), Ok(0));
    let more = vec![0; QBM_USER_DATA_MAX as usize + 1];
    fails(set(image, name, Some(&more)), libc::EFBIG, "65537 bytes");
    fails(set(NO_IMAGE, name, None), libc::EINVAL, "image is NULL");
    fails(get(NO_IMAGE, name, 1).0, libc::EINVAL, "image is NULL");
    let (mut size, none, no_name) = (77, ptr::null_mut(), ptr::null());
    let (to, name_of) = (&raw mut size, name.as_ptr());
    // SAFETY: NULL is what the entries must bear; the rest lives.
    unsafe {
        let outcome = call(|e| qbm_bitmap_set_user_data(image, name_of, ptr::null(), 4, e));
        fails(outcome, libc::EINVAL, "data is NULL");
        let outcome = call(|e| qbm_bitmap_set_user_data(image, no_name, ptr::null(), 0, e));
        fails(outcome, libc::EINVAL, "name is NULL");
        let outcome = call(|e| qbm_bitmap_get_user_data(image, no_name, none, 0, to, e));
        fails(outcome, libc::EINVAL, "name is NULL");
        let outcome = call(|e| qbm_bitmap_get_user_data(image, name_of, none, 4, to, e));
        fails(outcome, libc::EINVAL, "buf is NULL");
        let outcome =
            call(|e| qbm_bitmap_get_user_data(image, name_of, none, 0, ptr::null_mut(), e));
        fails(outcome, libc::EINVAL, "data_size is NULL");
    }
    assert_eq!(
        (size, get(image, name, 4)),
        (77, (Ok(1), 4, b"kept".to_vec()))
    );
    close(image);

    fill(&disk, 500);
    let image = disk.active();
    let some = [0; 1000];
    fails(
        set(image, name, Some(&some)),
        libc::EFBIG,
        "the descriptor would take",
    );
    close(image);
    let image = disk.read_only();
    fails(
        set(image, name, None),
        libc::EROFS,
        "not active for writing",
    );
    assert_eq!(get(image, name, 4), (Ok(1), 4, b"kept".to_vec()));
    close(image);
}
