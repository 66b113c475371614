// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the system refuses is told with its errno, and the bitmap is as it was. One test: the limit is the process's.

mod common;

use std::ptr;

use common::*;
use qbm::*;

/// Files of this process get no longer than this from now on; `u64::MAX`: as long as they like.
fn limit_files(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a signal that is ignored makes the write fail instead.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

#[test]
fn a_file_that_cannot_be_written() {
    const DISK_BYTES: u64 = 64 << 30;
    let disk = Disk::new();
    let image = open(&disk.path, 0, &mut error()).unwrap();
    assert_eq!(activate(image, DISK_BYTES, 0), 0);
    add(image, c"b", 512);
    add(image, c"lost", 512);
    write(image, 0, 1);
    let name = c"b".as_ptr();
    let is_as_it_was = || {
        assert_eq!(extents(image, c"b"), [(0, 512)]);
        assert_eq!(info(image, c"b").unwrap().granularity_bytes, 512);
    };

    // A bitmap's file has 16 MiB.
    limit_files(1 << 20);
    // SAFETY: `image` is open until it is closed; the names live.
    unsafe {
        let cleared = errno(|error| qbm_bitmap_clear(image, name, error));
        assert_eq!(cleared, libc::EFBIG);
        is_as_it_was();
        let merged = errno(|error| qbm_bitmap_merge(image, name, ptr::null(), 0, error));
        assert_eq!(merged, libc::EFBIG);
        is_as_it_was();
        let changed = errno(|error| qbm_bitmap_set_granularity(image, name, 1024, error));
        assert_eq!(changed, libc::EFBIG);
        is_as_it_was();

        let (lost, end) = (c"lost".as_ptr(), DISK_BYTES - 1);
        let marked = errno(|error| qbm_bitmap_mark_dirty(image, lost, end, 1, error));
        assert_eq!(marked, libc::EIO);
        let found = info(image, c"lost").unwrap();
        assert_eq!(
            found.flags & QBM_BITMAP_INCONSISTENT,
            QBM_BITMAP_INCONSISTENT
        );

        // Not even the descriptor.
        limit_files(0);
        let renamed = errno(|error| qbm_bitmap_rename(image, name, c"c".as_ptr(), error));
        assert_eq!(renamed, libc::EFBIG);
        is_as_it_was();
        let data = c"data".as_ptr().cast();
        let kept = errno(|error| qbm_bitmap_set_user_data(image, name, data, 4, error));
        assert_eq!(kept, libc::EFBIG);
        let mut size = 77;
        let to = &raw mut size;
        let got = call(|e| qbm_bitmap_get_user_data(image, name, ptr::null_mut(), 0, to, e));
        assert_eq!((got, size), (Ok(0), 0));
    }
    limit_files(u64::MAX);
    assert_eq!(info(image, c"c").unwrap_err(), libc::ENOENT);
    close(image);
    let image = open(&disk.path, 0, &mut error()).unwrap();
    assert_eq!(activate(image, DISK_BYTES, 0), 0);
    assert_eq!(extents(image, c"b"), [(0, 512)]);
    close(image);
}
