// SPDX-License-Identifier: MIT OR Apache-2.0
//! A panic in the core, with its locks held, poisons the handle and nothing else. `tests/c/panic.c` has every place.

mod common;

use std::fs;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::*;
use qbm::*;

/// The hook is the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_user_data(image: *mut qbm_image) -> Outcome {
    let data = c"data".as_ptr().cast();
    // SAFETY: `image` is open; the rest lives.
    call(|error| unsafe { qbm_bitmap_set_user_data(image, c"b".as_ptr(), data, 4, error) })
}

fn files_count() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_panic_in_a_commit_poisons_the_handle_for_all_threads() {
    let _alone = alone();
    let disk = Disk::new();
    let mut in_commit = 0;
    for operation in 1.. {
        let image = disk.active();
        if info(image, c"b").is_err() {
            add(image, c"b", GRANULARITY);
        }
        write(image, 3 * GRANULARITY, 1);
        qbm_test_panic_at(operation);
        let outcome = set_user_data(image);
        if qbm_test_panic_at(0) != 0 {
            assert_eq!(outcome, Ok(0));
            close(image);
            break;
        }
        in_commit = operation;
        let text = "internal error in libqbm: storage operation panics as the test asked: \
                    the image is left in use";
        assert_eq!(outcome, Err((libc::EIO, text.to_owned())));
        let address = image as usize;
        let beside = std::thread::spawn(move || info(address as *mut qbm_image, c"b").err());
        assert_eq!(beside.join().unwrap(), Some(libc::EIO));
        let (errno, text) = set_user_data(image).unwrap_err();
        assert_eq!(
            (errno, text.contains("earlier")),
            (libc::EIO, true),
            "{text}"
        );
        // SAFETY: `image` is open, and closed once.
        let closed = call(|error| unsafe { qbm_close(image, error) });
        assert_eq!(closed.unwrap_err().0, libc::EIO);
        let text = fs::read_to_string(disk.descriptor()).unwrap();
        assert!(text.contains("ext-hard-qbm-session"), "{text}");

        let image = disk.active();
        assert_eq!(extents(image, c"b"), [(3 * GRANULARITY, GRANULARITY)]);
        close(image);
    }
    assert!(in_commit > 5, "{in_commit} storage operations in a commit");
}

#[test]
fn a_panic_without_a_handle_leaves_none() {
    let _alone = alone();
    let disk = Disk::new();
    let before = files_count();
    let open_args = qbm_open_args {
        size: size_of::<qbm_open_args>(),
        flags: 0,
        reserved: 0,
    };
    let check_args = qbm_check_args {
        size: size_of::<qbm_check_args>(),
        flags: 0,
        reserved: 0,
        image_size_bytes: 0,
        data_file: ptr::null(),
    };
    let new = c_path(&disk.directory.path().join("new.qbm"));
    let mut image = ptr::dangling_mut();
    let mut report = ptr::dangling_mut();
    let (to_image, to_report, path) = (&raw mut image, &raw mut report, disk.path.as_ptr());
    for operation in 1..=8 {
        let panics = |entry: &dyn Fn(&mut qbm_error) -> i32| {
            qbm_test_panic_at(operation);
            let (errno, text) = call(entry).unwrap_err();
            assert_eq!((errno, qbm_test_panic_at(0)), (libc::EIO, 0), "{text}");
            assert!(text.contains("as the test asked"), "{text}");
        };
        // SAFETY: all pointers are to live values.
        unsafe {
            panics(&|error| qbm_check(path, &check_args, to_report, error));
            assert!(report.is_null());
            // Opening takes fewer operations than that.
            if operation <= 4 {
                panics(&|error| qbm_open(path, &open_args, to_image, error));
                assert!(image.is_null());
            }
        }
        panics(&|error| create(&new, SIZE, error));
        assert_eq!(files_count(), before);
    }
    // Nothing that is left is in the way.
    assert!(create(&new, SIZE, &mut error()) >= 0);
    close(disk.active());
}
