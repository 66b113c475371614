// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tracked I/O as C calls it.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, mem, ptr};

use common::{alone, c_path, message};
use qbm::*;

const MIB: u64 = 1 << 20;
const GRANULE: u64 = 65536;
/// Where the image of a process that is to die is.
const DYING_IN: &str = "QBM_TEST_DYING_IN";

/// A handle that is closed at the end.
struct Handle(*mut qbm_image);

impl Handle {
    fn open(path: &Path, flags: u32) -> Self {
        let path = c_path(path);
        let args = qbm_open_args {
            size: size_of::<qbm_open_args>(),
            flags,
            reserved: 0,
        };
        let mut image = ptr::null_mut();
        // SAFETY: all pointers are to live values.
        let result = unsafe { qbm_open(path.as_ptr(), &args, &mut image, ptr::null_mut()) };
        assert_eq!(result, 0);
        Self(image)
    }

    fn activate(&self, flags: u32, size_bytes: u64, data_file: Option<&Path>) -> (i32, qbm_error) {
        let data_file = data_file.map(c_path);
        let args = qbm_activate_args {
            size: size_of::<qbm_activate_args>(),
            flags,
            durability: QBM_DURABILITY_DEFAULT,
            image_size_bytes: size_bytes,
            data_file: data_file.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
        };
        let mut error = common::error();
        // SAFETY: the handle is open; the rest lives.
        (unsafe { qbm_activate(self.0, &args, &mut error) }, error)
    }

    fn begin(path: &Path) -> Self {
        let handle = Self::open(path, 0);
        assert_eq!(handle.activate(QBM_ACTIVATE_DATA, 0, None).0, 0);
        handle
    }

    fn write(&self, offset: u64, data: &[u8]) -> i32 {
        // SAFETY: the handle is open; the rest lives.
        unsafe {
            let (data, length) = (data.as_ptr(), data.len());
            qbm_pwrite(self.0, offset, length, data.cast(), ptr::null_mut())
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> i32 {
        // SAFETY: as above.
        unsafe {
            let place = buffer.as_mut_ptr().cast();
            qbm_pread(self.0, offset, buffer.len(), place, ptr::null_mut())
        }
    }

    fn info(&self) -> qbm_info {
        // SAFETY: integers, for which zeros are valid.
        let mut info = unsafe { mem::zeroed::<qbm_info>() };
        info.size = size_of::<qbm_info>();
        // SAFETY: as above.
        let result = unsafe { qbm_get_info(self.0, &mut info, ptr::null_mut()) };
        assert_eq!(result, 0);
        info
    }

    fn dirty(&self) -> Vec<u64> {
        let mut granules = Vec::new();
        let (mut next, mut found) = (0, 0);
        loop {
            let name = c"b".as_ptr();
            // SAFETY: as above.
            let result =
                unsafe { qbm_bitmap_next_dirty(self.0, name, next, &mut found, ptr::null_mut()) };
            if result == 0 {
                return granules;
            }
            assert_eq!(result, 1);
            granules.push(found / GRANULE);
            next = found + GRANULE;
        }
    }

    fn close(self) -> i32 {
        let image = self.0;
        mem::forget(self);
        // SAFETY: given up.
        unsafe { qbm_close(image, ptr::null_mut()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: given up.
        unsafe { qbm_close(self.0, ptr::null_mut()) };
    }
}

/// An image of 4 MiB with a recording bitmap `b`.
fn create(directory: &Path) -> PathBuf {
    let path = directory.join("x.qbm");
    let args = qbm_create_args {
        size: size_of::<qbm_create_args>(),
        flags: 0,
        durability: QBM_DURABILITY_DEFAULT,
        image_size_bytes: 4 * MIB,
        data_file: ptr::null(),
        data_format: ptr::null(),
        data_file_out: ptr::null_mut(),
        data_file_out_size: 0,
        persist_bitmaps: QBM_PERSIST_BITMAPS_DEFAULT,
        reserved: 0,
    };
    // SAFETY: all pointers are to live values.
    unsafe {
        let none = ptr::null_mut();
        assert_eq!(qbm_create(c_path(&path).as_ptr(), &args, none), 0);
        let handle = Handle::begin(&path);
        let flags = QBM_BITMAP_RECORDING;
        let result = qbm_bitmap_add(handle.0, c"b".as_ptr(), GRANULE, flags, none);
        assert_eq!(result, 0);
    }
    path
}

#[test]
fn a_session_over_the_data_image() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let handle = Handle::begin(&path);
    let info = handle.info();
    let expected = QBM_INFO_DATA
        | QBM_INFO_ACTIVE
        | QBM_INFO_WRITABLE
        | QBM_INFO_SIZE_KNOWN
        | QBM_INFO_CONTINUED;
    assert_eq!((info.flags, info.image_size_bytes), (expected, 4 * MIB));
    assert_eq!(handle.write(GRANULE, b"a"), 0);
    // SAFETY: the handle is open; no error buffer.
    unsafe {
        let none = ptr::null_mut();
        let image = handle.0;
        assert_eq!(qbm_zero(image, 3 * GRANULE, 1, 0, none), 0);
        let unmap = QBM_ZERO_MAY_UNMAP;
        assert_eq!(qbm_zero(image, 5 * GRANULE, 1, unmap, none), 0);
        assert_eq!(qbm_discard(image, 7 * GRANULE, GRANULE, none), 0);
        assert_eq!(qbm_flush(image, none), 0);
        assert_eq!(qbm_truncate(image, 5 * MIB, none), 0);
    }
    let grown: Vec<u64> = [1, 3, 5, 7].into_iter().chain(64..80).collect();
    assert_eq!(handle.dirty(), grown);
    assert_eq!(handle.info().image_size_bytes, 5 * MIB);
    assert_eq!(handle.close(), 0);

    let handle = Handle::open(&path, QBM_OPEN_READ_ONLY);
    let flags = QBM_ACTIVATE_DATA | QBM_ACTIVATE_READ_ONLY;
    assert_eq!(handle.activate(flags, 0, None).0, 0);
    assert_eq!(handle.dirty(), grown);
    let mut read = [9; 2];
    assert_eq!(handle.read(GRANULE, &mut read), 0);
    assert_eq!(&read, b"a\0");
    assert_eq!(handle.write(0, b"x"), -libc::EROFS);
    assert_eq!(handle.close(), 0);
}

#[test]
fn what_cannot_be_is_told() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let handle = Handle::open(&path, 0);
    assert_eq!(handle.read(0, &mut [0]), -libc::EBADF);
    assert_eq!(handle.activate(0, 4 * MIB, None).0, 0);
    assert_eq!(handle.read(0, &mut [0]), -libc::EBADF);
    assert_eq!(handle.write(0, b"x"), -libc::EBADF);
    assert_eq!(handle.info().flags & QBM_INFO_DATA, 0);
    // SAFETY: the handle is open.
    unsafe {
        let none = ptr::null_mut();
        let image = handle.0;
        assert_eq!(qbm_zero(image, 0, 1, 0, none), -libc::EBADF);
        assert_eq!(qbm_discard(image, 0, 1, none), -libc::EBADF);
        assert_eq!(qbm_flush(image, none), -libc::EBADF);
        assert_eq!(qbm_truncate(image, 0, none), -libc::EBADF);
        assert_eq!(qbm_inactivate(image, none), 0);
    }
    let (result, error) = handle.activate(QBM_ACTIVATE_DATA, 4 * MIB, None);
    assert_eq!(result, -libc::EINVAL);
    assert!(message(&error).contains("image_size_bytes is 4194304"));
    let bitmap = directory.path().join("x.qbm.b.bitmap");
    for (file, errno) in [
        (Path::new("/dev/null"), libc::EINVAL),
        (Path::new("/"), libc::EISDIR),
        (Path::new(""), libc::EINVAL),
        (&path, libc::EINVAL),
        (&bitmap, libc::EINVAL),
    ] {
        let (result, error) = handle.activate(QBM_ACTIVATE_DATA, 0, Some(file));
        assert_eq!(result, -errno, "{}", message(&error));
        assert_eq!(handle.info().flags & (QBM_INFO_DATA | QBM_INFO_ACTIVE), 0);
    }
    let raw = directory.path().join("x.qbm.raw");
    assert_eq!(handle.activate(QBM_ACTIVATE_DATA, 0, Some(&raw)).0, 0);
    let (result, _) = handle.activate(QBM_ACTIVATE_DATA, 0, None);
    assert_eq!(result, -libc::EINVAL);
    assert_eq!(handle.read(4 * MIB, &mut [0]), -libc::EINVAL);
    // SAFETY: the handle is open; sizes that no buffer has are refused before anything is read.
    unsafe {
        let mut error = common::error();
        let image = handle.0;
        let large = usize::MAX;
        let buffer = ptr::dangling_mut();
        for size in [large, large / 2 + 1, large / 2] {
            let result = qbm_pread(image, 0, size, ptr::null_mut(), &mut error);
            assert_eq!(result, -libc::EINVAL);
        }
        let result = qbm_pwrite(image, 1, large, buffer, &mut error);
        assert_eq!(result, -libc::EINVAL);
        assert!(message(&error).contains("beyond the disk"));
        let null = qbm_pread(image, 0, 1, ptr::null_mut(), &mut error);
        assert_eq!(
            (null, message(&error).as_str()),
            (-libc::EINVAL, "buf is NULL")
        );
        assert_eq!(qbm_zero(image, 0, 1, 2, &mut error), -libc::EINVAL);
        assert_eq!(qbm_zero(image, u64::MAX, 2, 0, &mut error), -libc::EINVAL);
        // Resizing behind the library's back.
        let begun = qbm_co_truncate_begin(image, MIB, &mut error);
        assert_eq!(begun, -libc::EINVAL);
        let ended = qbm_co_truncate_end(image, MIB, &mut error);
        assert_eq!(ended, -libc::EINVAL);
        assert_eq!(qbm_inactivate(image, &mut error), 0);
    }
    assert_eq!(handle.read(0, &mut [0]), -libc::EBADF);
    // Closed: others can have it.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Handle::open(&create(elsewhere.path()), 0);
    assert_eq!(other.activate(QBM_ACTIVATE_DATA, 0, Some(&raw)).0, 0);
    let (result, error) = handle.activate(QBM_ACTIVATE_DATA, 0, None);
    assert_eq!(result, -libc::EAGAIN);
    assert!(message(&error).contains("x.qbm.raw"), "{}", message(&error));
}

/// Not a test of its own: what [`a_killed_writer_leaves_every_block_dirty`] runs in a process of its own.
#[test]
fn a_writer_that_dies() {
    let Some(directory) = env::var_os(DYING_IN) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let handle = Handle::begin(&directory.join("x.qbm"));
    for granule in (0..64).step_by(3) {
        assert_eq!(handle.write(granule * GRANULE + granule, b"x"), 0);
    }
    let how = fs::read_to_string(directory.join("how")).unwrap();
    // SAFETY: the process ends here.
    unsafe {
        match how.as_str() {
            "_exit" => libc::_exit(0),
            "abort" => libc::abort(),
            _ => libc::raise(libc::SIGKILL),
        }
    };
}

#[test]
fn a_killed_writer_leaves_every_block_dirty() {
    let _alone = alone();
    for (how, signal) in [
        ("_exit", None),
        ("abort", Some(libc::SIGABRT)),
        ("kill", Some(libc::SIGKILL)),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = create(directory.path());
        fs::write(directory.path().join("how"), how).unwrap();
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_writer_that_dies", "--nocapture"])
            .env(DYING_IN, directory.path())
            .current_dir(directory.path())
            .output()
            .unwrap()
            .status;
        assert_eq!(status.signal(), signal, "{how}: {status}");
        let handle = Handle::begin(&path);
        let expected: Vec<u64> = (0..64).step_by(3).collect();
        assert_eq!(handle.dirty(), expected, "{how}");
        for granule in expected {
            let mut read = [0];
            assert_eq!(handle.read(granule * GRANULE + granule, &mut read), 0);
            assert_eq!(&read, b"x");
        }
        assert_eq!(handle.close(), 0);
    }
}

#[test]
fn handles_come_and_go_beside_the_io() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let handle = Handle::open(&path, 0);
    struct Shared(*mut qbm_image);
    // SAFETY: a handle may be used by several threads.
    unsafe impl Sync for Shared {}
    let shared = &Shared(handle.0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for _ in 0..2000 {
                    let image = shared.0;
                    // SAFETY: the handle outlives the threads.
                    let result = unsafe {
                        let data: *const u8 = b"x".as_ptr();
                        let offset = thread * GRANULE;
                        qbm_pwrite(image, offset, 1, data.cast(), ptr::null_mut())
                    };
                    assert!([0, -libc::EBADF].contains(&result), "{result}");
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(handle.activate(QBM_ACTIVATE_DATA, 0, None).0, 0);
            // SAFETY: as above.
            let result = unsafe { qbm_inactivate(shared.0, ptr::null_mut()) };
            assert_eq!(result, 0);
        }
    });
    assert_eq!(handle.activate(QBM_ACTIVATE_DATA, 0, None).0, 0);
    assert!(handle.dirty().iter().all(|granule| *granule < 8));
    assert_eq!(handle.write(9 * GRANULE, b"x"), 0);
    assert_eq!(handle.close(), 0);
}
