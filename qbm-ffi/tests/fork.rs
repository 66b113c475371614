// SPDX-License-Identifier: MIT OR Apache-2.0
//! A handle belongs to the process that opened it.

mod common;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use common::*;
use qbm::*;

const NAME: &CStr = c"b";

/// Runs `body` in a child, which ends with what it returns (0 to 99) and without running anything else.
fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls the library and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: one that hangs is killed; nothing of the test's is run at its end.
        unsafe {
            libc::alarm(20);
            let result = catch_unwind(AssertUnwindSafe(body));
            libc::_exit(result.unwrap_or(100));
        }
    }
    let mut status = 0;
    // SAFETY: our child, waited for once.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "status {status:#x}: it hung");
    libc::WEXITSTATUS(status)
}

type Call = fn(*mut qbm_image) -> i32;

/// Every function that takes a handle, with arguments that would do.
macro_rules! calls {
    ($($entry:ident($($argument:expr),*);)*) => {
        // SAFETY: `image` is a handle; the rest are live values, or NULL where that is allowed.
        &[$((stringify!($entry), |image| unsafe { $entry(image $(, $argument)*) })),*]
    };
}

const NO_ERROR: *mut qbm_error = ptr::null_mut();

/// Room for whatever a function would fill.
fn room<T>() -> *mut T {
    static ROOM: [u64; 2048] = [0; 2048];
    // Never written: the functions return before.
    ROOM.as_ptr().cast_mut().cast()
}

fn sized<T>() -> *mut T {
    let block = vec![size_of::<T>(); 2048].leak();
    block.as_mut_ptr().cast()
}

const CALLS: &[(&str, Call)] = calls! {
    qbm_get_info(sized(), NO_ERROR);
    qbm_take_notice(room(), 8);
    qbm_activate(sized(), NO_ERROR);
    qbm_inactivate(NO_ERROR);
    qbm_set_defaults(sized(), NO_ERROR);
    qbm_bitmap_get(0, sized(), NO_ERROR);
    qbm_bitmap_find(NAME.as_ptr(), sized(), NO_ERROR);
    qbm_bitmap_can_store(c"new".as_ptr(), GRANULARITY, NO_ERROR);
    qbm_bitmap_add(c"new".as_ptr(), GRANULARITY, 0, NO_ERROR);
    qbm_bitmap_remove(NAME.as_ptr(), NO_ERROR);
    qbm_bitmap_set_recording(NAME.as_ptr(), false, NO_ERROR);
    qbm_bitmap_change_several(ptr::null(), 0, NO_ERROR);
    qbm_bitmap_set_inconsistent(NAME.as_ptr(), NO_ERROR);
    qbm_bitmap_rename(NAME.as_ptr(), c"new".as_ptr(), NO_ERROR);
    qbm_bitmap_clear(NAME.as_ptr(), NO_ERROR);
    qbm_bitmap_merge(NAME.as_ptr(), ptr::null(), 0, NO_ERROR);
    qbm_bitmap_set_granularity(NAME.as_ptr(), 512, NO_ERROR);
    qbm_bitmap_get_user_data(NAME.as_ptr(), ptr::null_mut(), 0, room(), NO_ERROR);
    qbm_bitmap_set_user_data(NAME.as_ptr(), ptr::null(), 0, NO_ERROR);
    qbm_bitmap_count(NAME.as_ptr(), room(), NO_ERROR);
    qbm_bitmap_next_extent(NAME.as_ptr(), 0, room(), room(), NO_ERROR);
    qbm_bitmap_next_dirty(NAME.as_ptr(), 0, room(), NO_ERROR);
    qbm_bitmap_load_bits(NAME.as_ptr(), 0, SIZE, room(), 8, NO_ERROR);
    qbm_bitmap_store_bits(NAME.as_ptr(), 0, SIZE, ptr::null(), 0, NO_ERROR);
    qbm_bitmap_merge_bits(NAME.as_ptr(), 0, SIZE, room::<std::ffi::c_void>(), 8, NO_ERROR);
    qbm_bitmap_mark_dirty(NAME.as_ptr(), 0, 1, NO_ERROR);
    qbm_bitmap_freeze(NAME.as_ptr(), NO_ERROR);
    qbm_bitmap_checkpoint(NAME.as_ptr(), 0, NO_ERROR);
    qbm_bitmap_commit(NAME.as_ptr(), NO_ERROR);
    qbm_bitmap_abort(NAME.as_ptr(), NO_ERROR);
    qbm_pread(0, 1, room(), NO_ERROR);
    qbm_pwrite(0, 1, room::<std::ffi::c_void>(), NO_ERROR);
    qbm_zero(0, 1, 0, NO_ERROR);
    qbm_discard(0, 1, NO_ERROR);
    qbm_flush(NO_ERROR);
    qbm_truncate(SIZE, NO_ERROR);
    qbm_co_truncate_begin(SIZE, NO_ERROR);
    qbm_co_truncate_end(SIZE, NO_ERROR);
};

/// The functions of the header that take a handle, less those that do not look and the one that frees it.
fn entries_with_a_handle() -> Vec<String> {
    let header = include_str!("../../include/qbm.h");
    let is_name = |character: char| character.is_ascii_lowercase() || character == '_';
    let mut names = Vec::new();
    for (at, _) in header
        .match_indices("(struct qbm_image *image")
        .chain(header.match_indices("(const struct qbm_image *image"))
    {
        let before = &header[..at];
        let name = &before[before.rfind(|character| !is_name(character)).unwrap() + 1..];
        let of_writes = ["writev", "write_zeroes", "discard"];
        let looks = !of_writes
            .iter()
            .any(|group| name.starts_with(&format!("qbm_co_{group}_")));
        if looks && name != "qbm_close" {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn a_child_is_refused_everything() {
    let _alone = alone();
    let mut listed: Vec<_> = CALLS.iter().map(|(name, _)| (*name).to_owned()).collect();
    listed.sort();
    assert_eq!(listed, entries_with_a_handle(), "each entry is tried below");

    let disk = Disk::new();
    let image = disk.active();
    add(image, NAME, GRANULARITY);
    let before = content(&disk);
    for (name, call) in CALLS {
        let errno = in_child(|| -call(image));
        assert_eq!(errno, libc::ECHILD, "{name}");
    }
    let message_is_right = in_child(|| {
        // SAFETY: the child's copy of a handle that is open.
        let text = call(|error| unsafe { qbm_inactivate(image, error) })
            .unwrap_err()
            .1;
        i32::from(text.contains("opened in another"))
    });
    assert_eq!(message_is_right, 1);
    assert_eq!(content(&disk), before);
    close(image);
}

/// Every file in the disk's directory, with its modification time.
fn content(disk: &Disk) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(disk.directory.path()).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let modified = path.metadata().unwrap().modified().unwrap();
            (path, (bytes, modified))
        })
        .collect()
}

#[test]
fn a_childs_close_changes_nothing_and_leaves_the_parents_locks() {
    let _alone = alone();
    let disk = Disk::new();
    let image = disk.active();
    add(image, NAME, GRANULARITY);
    write(image, 5 * GRANULARITY, 1);
    let before = content(&disk);
    let path: CString = disk.path.clone();
    let result = in_child(|| {
        // SAFETY: the child's copy of a handle that is open.
        let closed = unsafe { qbm_close(image, ptr::null_mut()) };
        if closed != -libc::ECHILD {
            return 1;
        }
        // The parent's locks hold against its child too.
        match open(&path, 0, &mut error()) {
            Err(errno) => -errno,
            Ok(_) => 2,
        }
    });
    assert_eq!(result, libc::EAGAIN);
    assert_eq!(content(&disk), before);
    assert_eq!(
        open(&disk.path, 0, &mut error()).unwrap_err(),
        -libc::EAGAIN
    );

    // The parent goes on.
    write(image, 7 * GRANULARITY, 1);
    close(image);
    let image = disk.active();
    let dirty = [
        (5 * GRANULARITY, GRANULARITY),
        (7 * GRANULARITY, GRANULARITY),
    ];
    assert_eq!(extents(image, NAME), dirty);
    close(image);
}

#[test]
fn a_child_that_lives_on_keeps_no_lock() {
    // It shares the open files, and their locks outlived the session of the process that took them.
    let _alone = alone();
    let disk = Disk::new();
    let begin = || {
        let image = open(&disk.path, 0, &mut error()).unwrap();
        assert_eq!(activate(image, 0, QBM_ACTIVATE_DATA), 0);
        image
    };
    let image = begin();
    let mut pipe = [0; 2];
    // SAFETY: two descriptors are stored.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child waits for the pipe's end and ends itself.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut byte = 0_u8;
        // SAFETY: as above; it is killed if nobody tells it to end.
        unsafe {
            libc::alarm(20);
            libc::close(pipe[1]);
            libc::read(pipe[0], (&raw mut byte).cast(), 1);
            libc::_exit(-qbm_close(image, ptr::null_mut()));
        }
    }
    // The same handle again, then another one.
    // SAFETY: `image` is open.
    assert_eq!(unsafe { qbm_inactivate(image, ptr::null_mut()) }, 0);
    assert_eq!(activate(image, 0, QBM_ACTIVATE_DATA), 0);
    close(image);
    let image = begin();
    let mut status = 0;
    // SAFETY: our descriptors and our child.
    unsafe {
        libc::close(pipe[1]);
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        libc::close(pipe[0]);
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == libc::ECHILD);
    // What the child closed was not ours any more.
    let other = open(&disk.path, 0, &mut error());
    assert_eq!(other.unwrap_err(), -libc::EAGAIN);
    close(image);
}

/// Ends the threads, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_child_does_not_hang_on_what_another_thread_held() {
    let _alone = alone();
    let disk = Disk::new();
    let image = disk.active();
    add(image, NAME, GRANULARITY);
    let address = image as usize;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let image = address as *mut qbm_image;
                while !done.load(Ordering::Relaxed) {
                    info(image, NAME).unwrap();
                }
            });
        }
        let _ends = Ends(&done);
        for _ in 0..100 {
            let errno = in_child(|| {
                let image = address as *mut qbm_image;
                let mut dirty = 0;
                // SAFETY: the child's copy of a handle that is open, closed once.
                unsafe {
                    let counted =
                        qbm_bitmap_count(image, NAME.as_ptr(), &mut dirty, ptr::null_mut());
                    if counted != -libc::ECHILD {
                        return 1;
                    }
                    -qbm_close(image, ptr::null_mut())
                }
            });
            assert_eq!(errno, libc::ECHILD);
        }
    });
    close(image);
}

#[test]
fn a_report_is_memory_and_may_be_read_anywhere() {
    let _alone = alone();
    let disk = Disk::new();
    let args = qbm_check_args {
        size: size_of::<qbm_check_args>(),
        flags: 0,
        reserved: 0,
        image_size_bytes: 0,
        data_file: ptr::null(),
    };
    let mut report = ptr::null_mut();
    let path = disk.path.as_ptr();
    // SAFETY: all pointers are to live values.
    let checked = call(|error| unsafe { qbm_check(path, &args, &mut report, error) });
    assert_eq!(checked, Ok(0));
    let read = |report: *mut qbm_report| {
        // SAFETY: plain integers; the report is freed once in each process.
        unsafe {
            let mut summary = std::mem::zeroed::<qbm_report_summary>();
            summary.size = size_of::<qbm_report_summary>();
            let result = qbm_report_get_summary(report, &mut summary, ptr::null_mut());
            qbm_report_free(report);
            -result
        }
    };
    assert_eq!(in_child(|| read(report)), 0);
    assert_eq!(read(report), 0);
}
