// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is dirty: counts, extents, marks.

mod common;

use std::ffi::CStr;
use std::ptr;

use common::*;
use qbm::*;

const NO_IMAGE: *mut qbm_image = ptr::null_mut();

fn count(image: *mut qbm_image, name: &CStr) -> Result<u64, i32> {
    let mut dirty = 77;
    let to = &raw mut dirty;
    // SAFETY: `image` is open or NULL; the rest lives.
    let result = call(|error| unsafe { qbm_bitmap_count(image, name.as_ptr(), to, error) });
    match result {
        Ok(value) => {
            assert_eq!(value, 0);
            Ok(dirty)
        }
        Err((errno, _)) => {
            assert_eq!(dirty, 77, "nothing is stored");
            Err(errno)
        }
    }
}

/// Where the first extent from `offset` on is; what is stored where there is none.
fn next(image: *mut qbm_image, name: &CStr, offset: u64) -> (Outcome, u64, u64) {
    let (mut start, mut bytes) = (77, 78);
    let (to_start, to_bytes) = (&raw mut start, &raw mut bytes);
    // SAFETY: `image` is open or NULL; the rest lives.
    let outcome = call(|error| unsafe {
        qbm_bitmap_next_extent(image, name.as_ptr(), offset, to_start, to_bytes, error)
    });
    (outcome, start, bytes)
}

fn mark(image: *mut qbm_image, name: &CStr, offset: u64, bytes: u64) -> Outcome {
    // SAFETY: `image` is open or NULL; the name lives.
    call(|error| unsafe { qbm_bitmap_mark_dirty(image, name.as_ptr(), offset, bytes, error) })
}

#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: Result<T, (i32, String)>, errno: i32, text: &str) {
    let (found, message) = outcome.expect_err("it should fail");
    assert_eq!(found, errno, "{message}");
    assert!(message.contains(text), "{message}");
}

#[test]
fn marks_are_counted_and_found() {
    let disk = Disk::new();
    let image = disk.active();
    let name = c"b";
    // SAFETY: `image` is open. It does not record.
    let added = call(|e| unsafe { qbm_bitmap_add(image, name.as_ptr(), GRANULARITY, 0, e) });
    assert_eq!(added, Ok(0));
    write(image, 9 * GRANULARITY, 1);
    assert_eq!(count(image, name), Ok(0));
    assert_eq!(next(image, name, 0), (Ok(0), 77, 78));

    assert_eq!(mark(image, name, GRANULARITY + 1, GRANULARITY), Ok(0));
    assert_eq!(mark(image, name, SIZE - 1, 1), Ok(0));
    assert_eq!(mark(image, name, SIZE, 0), Ok(0));
    assert_eq!(count(image, name), Ok(2 * GRANULARITY + 512));
    assert_eq!(next(image, name, 0), (Ok(1), GRANULARITY, 2 * GRANULARITY));
    let middle = 2 * GRANULARITY + 5;
    assert_eq!(next(image, name, middle), (Ok(1), middle, GRANULARITY - 5));
    assert_eq!(next(image, name, 3 * GRANULARITY), (Ok(1), 1 << 20, 512));
    assert_eq!(next(image, name, SIZE), (Ok(0), 77, 78));
    assert_eq!(next(image, name, u64::MAX), (Ok(0), 77, 78));
    let dirty = [(GRANULARITY, 2 * GRANULARITY), (1 << 20, 512)];
    assert_eq!(extents(image, name), dirty);
    close(image);

    let image = disk.read_only();
    assert_eq!(extents(image, name), dirty);
    assert_eq!(count(image, name), Ok(2 * GRANULARITY + 512));
    fails(
        mark(image, name, 0, 1),
        libc::EROFS,
        "not active for writing",
    );
    close(image);
}

#[test]
fn what_is_not_loaded_has_no_extents() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"lost", GRANULARITY);
    // SAFETY: `image` is open.
    let lost = call(|e| unsafe { qbm_bitmap_set_inconsistent(image, c"lost".as_ptr(), e) });
    assert_eq!(lost, Ok(0));
    for name in [c"a", c"lost"] {
        assert_eq!(count(image, name), Err(libc::ENOENT));
        let (outcome, start, bytes) = next(image, name, 0);
        fails(outcome, libc::ENOENT, name.to_str().unwrap());
        assert_eq!((start, bytes), (77, 78));
        fails(
            mark(image, name, 0, 1),
            libc::ENOENT,
            name.to_str().unwrap(),
        );
    }
    close(image);
    let image = open(&disk.path, 0, &mut error()).unwrap();
    assert_eq!(count(image, c"lost"), Err(libc::ENOENT), "not active");
    close(image);
}

#[test]
fn arguments_are_looked_at() {
    let disk = Disk::new();
    let image = disk.active();
    let name = c"b";
    add(image, name, GRANULARITY);
    assert_eq!(count(NO_IMAGE, name), Err(libc::EINVAL));
    fails(next(NO_IMAGE, name, 0).0, libc::EINVAL, "image is NULL");
    fails(mark(NO_IMAGE, name, 0, 1), libc::EINVAL, "image is NULL");
    fails(mark(image, name, SIZE, 1), libc::EINVAL, "beyond the disk");
    fails(
        mark(image, name, u64::MAX, 1),
        libc::EINVAL,
        "beyond the disk",
    );
    assert_eq!(count(image, name), Ok(0));

    let (mut place, none, no_name) = (0, ptr::null_mut(), ptr::null());
    let (to, name) = (&raw mut place, name.as_ptr());
    // SAFETY: NULL is what the entries must bear; the rest lives.
    unsafe {
        let outcome = call(|error| qbm_bitmap_count(image, name, none, error));
        fails(outcome, libc::EINVAL, "dirty_bytes is NULL");
        let outcome = call(|error| qbm_bitmap_count(image, no_name, to, error));
        fails(outcome, libc::EINVAL, "name is NULL");
        let outcome = call(|error| qbm_bitmap_next_extent(image, name, 0, none, to, error));
        fails(outcome, libc::EINVAL, "extent_offset is NULL");
        let outcome = call(|error| qbm_bitmap_next_extent(image, name, 0, to, none, error));
        fails(outcome, libc::EINVAL, "extent_bytes is NULL");
        let outcome = call(|error| qbm_bitmap_mark_dirty(image, no_name, 0, 1, error));
        fails(outcome, libc::EINVAL, "name is NULL");
    }
    close(image);
}
