// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps as a whole: names, all bits at once, granularity.

mod common;

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use common::*;
use qbm::*;

const NO_IMAGE: *mut qbm_image = ptr::null_mut();

fn rename(image: *mut qbm_image, from: &CStr, to: &CStr) -> Outcome {
    // SAFETY: `image` is open or NULL; the names live.
    call(|error| unsafe { qbm_bitmap_rename(image, from.as_ptr(), to.as_ptr(), error) })
}

fn clear(image: *mut qbm_image, name: &CStr) -> Outcome {
    // SAFETY: as above.
    call(|error| unsafe { qbm_bitmap_clear(image, name.as_ptr(), error) })
}

fn merge(image: *mut qbm_image, target: &CStr, sources: &[&CStr]) -> Outcome {
    let sources: Vec<*const c_char> = sources.iter().map(|source| source.as_ptr()).collect();
    let (first, count) = (sources.as_ptr(), sources.len());
    // SAFETY: as above.
    call(|error| unsafe { qbm_bitmap_merge(image, target.as_ptr(), first, count, error) })
}

fn set_granularity(image: *mut qbm_image, name: &CStr, granularity_bytes: u64) -> Outcome {
    // SAFETY: as above.
    call(|error| unsafe {
        qbm_bitmap_set_granularity(image, name.as_ptr(), granularity_bytes, error)
    })
}

#[track_caller]
fn fails(outcome: Outcome, errno: i32, text: &str) {
    let (found, message) = outcome.expect_err("it should fail");
    assert_eq!(found, errno, "{message}");
    assert!(message.contains(text), "{message}");
}

/// A bitmap that is there, but of no use.
fn add_inconsistent(image: *mut qbm_image, name: &CStr) {
    add(image, name, GRANULARITY);
    // SAFETY: `image` is open.
    let done = call(|error| unsafe { qbm_bitmap_set_inconsistent(image, name.as_ptr(), error) });
    assert_eq!(done, Ok(0));
}

#[test]
fn a_bitmap_gets_another_name_with_its_bits() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"a", GRANULARITY);
    write(image, 0, 1);
    assert_eq!(rename(image, c"a", c"b"), Ok(0));
    assert_eq!(rename(image, c"b", c"b"), Ok(0));
    write(image, 2 * GRANULARITY, 1);
    close(image);
    let image = disk.active();
    let dirty = [(0, GRANULARITY), (2 * GRANULARITY, GRANULARITY)];
    assert_eq!(extents(image, c"b"), dirty);
    assert_eq!(info(image, c"a").unwrap_err(), libc::ENOENT);

    add(image, c"c", GRANULARITY);
    add_inconsistent(image, c"lost");
    fails(rename(image, c"a", c"d"), libc::ENOENT, "\"a\"");
    fails(rename(image, c"lost", c"d"), libc::ENOENT, "\"lost\"");
    fails(rename(image, c"b", c"c"), libc::EEXIST, "\"c\"");
    fails(rename(image, c"b", c"lost"), libc::EEXIST, "\"lost\"");
    fails(rename(image, c"b", c""), libc::EINVAL, "empty");
    fails(
        rename(image, c"b", c"\xff"),
        libc::EINVAL,
        "to is not UTF-8",
    );
    let long = CString::new("n".repeat(QBM_BITMAP_NAME_MAX as usize + 1)).unwrap();
    fails(rename(image, c"b", &long), libc::ENAMETOOLONG, "1024 bytes");
    let longest = CStr::from_bytes_with_nul(&long.as_bytes_with_nul()[1..]).unwrap();
    assert_eq!(rename(image, c"b", longest), Ok(0));
    assert_eq!(extents(image, longest), dirty);
    fails(rename(NO_IMAGE, c"b", c"d"), libc::EINVAL, "image is NULL");
    let (name, none) = (c"b".as_ptr(), ptr::null());
    // SAFETY: NULL is what the entry must bear.
    unsafe {
        fails(
            call(|e| qbm_bitmap_rename(image, none, name, e)),
            libc::EINVAL,
            "from is NULL",
        );
        fails(
            call(|e| qbm_bitmap_rename(image, name, none, e)),
            libc::EINVAL,
            "to is NULL",
        );
    }
    close(image);
}

#[test]
fn a_bitmap_is_cleared() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"b", GRANULARITY);
    add_inconsistent(image, c"lost");
    write(image, 0, SIZE);
    assert_eq!(clear(image, c"b"), Ok(0));
    assert_eq!(extents(image, c"b"), []);
    write(image, SIZE - 1, 1);
    close(image);
    let image = disk.active();
    assert_eq!(extents(image, c"b"), [(1 << 20, 512)]);
    fails(clear(image, c"a"), libc::ENOENT, "\"a\"");
    fails(clear(image, c"lost"), libc::ENOENT, "\"lost\"");
    fails(clear(NO_IMAGE, c"b"), libc::EINVAL, "image is NULL");
    // SAFETY: NULL is what the entry must bear.
    let no_name = call(|error| unsafe { qbm_bitmap_clear(image, ptr::null(), error) });
    fails(no_name, libc::EINVAL, "name is NULL");
    close(image);
}

#[test]
fn bitmaps_are_merged() {
    let disk = Disk::new();
    let image = disk.active();
    let names = [c"target", c"fine", c"coarse"];
    for (name, granularity) in names.iter().zip([GRANULARITY, 512, 1 << 20]) {
        add(image, name, granularity);
    }
    let mark = |name: &CStr, offset| {
        // SAFETY: `image` is open.
        call(|error| unsafe { qbm_bitmap_mark_dirty(image, name.as_ptr(), offset, 1, error) })
    };
    assert_eq!(mark(c"fine", 3 * GRANULARITY + 700), Ok(0));
    assert_eq!(mark(c"coarse", 1 << 20), Ok(0));
    assert_eq!(
        merge(image, c"target", &[c"fine", c"coarse", c"target"]),
        Ok(0)
    );
    let dirty = [(3 * GRANULARITY, GRANULARITY), (1 << 20, 512)];
    assert_eq!(extents(image, c"target"), dirty);
    assert_eq!(extents(image, c"fine"), [(3 * GRANULARITY + 512, 512)]);
    assert_eq!(merge(image, c"target", &[]), Ok(0));
    close(image);
    let image = disk.active();
    assert_eq!(extents(image, c"target"), dirty);

    add_inconsistent(image, c"lost");
    fails(
        merge(image, c"target", &[c"fine", c"a"]),
        libc::ENOENT,
        "\"a\"",
    );
    fails(
        merge(image, c"target", &[c"lost"]),
        libc::ENOENT,
        "\"lost\"",
    );
    fails(merge(image, c"a", &[c"fine"]), libc::ENOENT, "\"a\"");
    fails(
        merge(NO_IMAGE, c"target", &[]),
        libc::EINVAL,
        "image is NULL",
    );
    let sources = [c"fine".as_ptr(), ptr::null()];
    let (target, first, none) = (c"target".as_ptr(), sources.as_ptr(), ptr::null_mut());
    // SAFETY: NULL is what the entry must bear; the rest lives.
    unsafe {
        let second = call(|error| qbm_bitmap_merge(image, target, first, 2, error));
        fails(second, libc::EINVAL, "sources[1] is NULL");
        let array = call(|error| qbm_bitmap_merge(image, target, ptr::null(), 1, error));
        fails(array, libc::EINVAL, "sources is NULL");
        let no_target = call(|error| qbm_bitmap_merge(image, ptr::null(), first, 1, error));
        fails(no_target, libc::EINVAL, "target is NULL");
        assert_eq!(qbm_bitmap_merge(image, target, ptr::null(), 0, none), 0);
    }
    close(image);
}

#[test]
fn a_bitmap_gets_another_granularity() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"b", 512);
    add_inconsistent(image, c"lost");
    write(image, GRANULARITY + 512, 512);
    assert_eq!(set_granularity(image, c"b", GRANULARITY), Ok(0));
    assert_eq!(extents(image, c"b"), [(GRANULARITY, GRANULARITY)]);
    assert_eq!(info(image, c"b").unwrap().granularity_bytes, GRANULARITY);
    close(image);
    let image = disk.active();
    assert_eq!(info(image, c"b").unwrap().granularity_bytes, GRANULARITY);
    fails(set_granularity(image, c"b", 3000), libc::EINVAL, "3000");
    fails(set_granularity(image, c"b", 256), libc::EINVAL, "256");
    fails(set_granularity(image, c"a", 512), libc::ENOENT, "\"a\"");
    fails(
        set_granularity(image, c"lost", 512),
        libc::ENOENT,
        "\"lost\"",
    );
    fails(
        set_granularity(NO_IMAGE, c"b", 512),
        libc::EINVAL,
        "image is NULL",
    );
    // SAFETY: NULL is what the entry must bear.
    let no_name = call(|e| unsafe { qbm_bitmap_set_granularity(image, ptr::null(), 512, e) });
    fails(no_name, libc::EINVAL, "name is NULL");
    close(image);

    // 64 TiB in granules of 512 bytes would be more than a bitmap may have.
    let image = open(&disk.path, 0, &mut error()).unwrap();
    assert_eq!(activate(image, 1 << 46, 0), 0);
    add(image, c"large", 1 << 31);
    fails(
        set_granularity(image, c"large", 512),
        libc::EFBIG,
        "larger granularity",
    );
    close(image);
}

#[test]
fn an_image_that_is_not_open_for_writing_stays_as_it_is() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"b", GRANULARITY);
    close(image);
    let before = std::fs::read(disk.descriptor()).unwrap();
    // Not active, and active for reading.
    for image in [
        open(&disk.path, QBM_OPEN_READ_ONLY, &mut error()).unwrap(),
        disk.read_only(),
    ] {
        fails(
            rename(image, c"b", c"c"),
            libc::EROFS,
            "not active for writing",
        );
        fails(clear(image, c"b"), libc::EROFS, "not active for writing");
        fails(
            merge(image, c"b", &[]),
            libc::EROFS,
            "not active for writing",
        );
        fails(
            set_granularity(image, c"b", 512),
            libc::EROFS,
            "not active for writing",
        );
        close(image);
    }
    assert_eq!(std::fs::read(disk.descriptor()).unwrap(), before);
}

#[test]
fn a_descriptor_that_is_full_takes_no_longer_name() {
    let disk = Disk::new();
    let image = disk.active();
    add(image, c"b", GRANULARITY);
    close(image);
    fill(&disk, 500);
    let image = disk.active();
    let long = CString::new("n".repeat(1023)).unwrap();
    fails(
        rename(image, c"b", &long),
        libc::EFBIG,
        "the descriptor would take",
    );
    assert_eq!(rename(image, c"b", c"c"), Ok(0));
    close(image);
}
