// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental copy as C does it.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr;

use qbm::*;

const SIZE_BYTES: u64 = 1 << 20;
const GRANULE: u64 = 65536;
const NAME: &CStr = c"daily";

/// An image, activated for writing, with one bitmap.
struct Session {
    image: *mut qbm_image,
    error: qbm_error,
}

impl Session {
    fn create(path: &Path) -> Self {
        let path_c = CString::new(path.to_str().unwrap()).unwrap();
        let args = qbm_create_args {
            size: size_of::<qbm_create_args>(),
            flags: 0,
            durability: QBM_DURABILITY_DEFAULT,
            image_size_bytes: SIZE_BYTES,
            data_file: ptr::null(),
            data_format: ptr::null(),
            data_file_out: ptr::null_mut(),
            data_file_out_size: 0,
            persist_bitmaps: QBM_PERSIST_BITMAPS_DEFAULT,
            reserved: 0,
        };
        // SAFETY: all pointers are to live values of the right type.
        let created = unsafe { qbm_create(path_c.as_ptr(), &args, ptr::null_mut()) };
        assert_eq!(created, 0);
        let session = Self::open(path, 0);
        let flags = QBM_BITMAP_RECORDING;
        // SAFETY: as above.
        let added = unsafe {
            qbm_bitmap_add(
                session.image,
                NAME.as_ptr(),
                GRANULE,
                flags,
                ptr::null_mut(),
            )
        };
        assert_eq!(added, 0);
        session
    }

    fn open(path: &Path, activate_flags: u32) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let args = qbm_open_args {
            size: size_of::<qbm_open_args>(),
            flags: 0,
            reserved: 0,
        };
        let activate_args = qbm_activate_args {
            size: size_of::<qbm_activate_args>(),
            flags: activate_flags,
            durability: QBM_DURABILITY_DEFAULT,
            image_size_bytes: SIZE_BYTES,
            data_file: ptr::null(),
        };
        let mut image = ptr::null_mut();
        // SAFETY: all pointers are to live values of the right type.
        unsafe {
            assert_eq!(
                qbm_open(path.as_ptr(), &args, &mut image, ptr::null_mut()),
                0
            );
            assert_eq!(qbm_activate(image, &activate_args, ptr::null_mut()), 0);
        }
        let error = qbm_error {
            size: size_of::<qbm_error>(),
            errnum: 0,
            message: [0; 2036],
        };
        Self { image, error }
    }

    fn write(&self, granules: &[u64]) {
        granules
            .iter()
            .for_each(|granule| self.write_at(granule * GRANULE));
    }

    fn write_at(&self, offset: u64) {
        let mut ticket = qbm_ticket { opaque: [0; 4] };
        // SAFETY: the image is open; the ticket lives.
        unsafe {
            assert_eq!(qbm_co_writev_begin(self.image, offset, 1, &mut ticket), 0);
            qbm_co_writev_end(self.image, &ticket);
        }
    }

    fn freeze(&mut self) -> i32 {
        // SAFETY: the image is open; the name and the error live.
        unsafe { qbm_bitmap_freeze(self.image, NAME.as_ptr(), &mut self.error) }
    }

    fn checkpoint(&mut self, offset: u64) -> i32 {
        // SAFETY: as above.
        unsafe { qbm_bitmap_checkpoint(self.image, NAME.as_ptr(), offset, &mut self.error) }
    }

    fn commit(&mut self) -> i32 {
        // SAFETY: as above.
        unsafe { qbm_bitmap_commit(self.image, NAME.as_ptr(), &mut self.error) }
    }

    fn abort(&mut self) -> i32 {
        // SAFETY: as above.
        unsafe { qbm_bitmap_abort(self.image, NAME.as_ptr(), &mut self.error) }
    }

    /// Numbers of the dirty granules.
    fn dirty(&self) -> Vec<u64> {
        let mut found = Vec::new();
        let mut offset = 0;
        loop {
            // SAFETY: as above; `offset` lives.
            let result = unsafe {
                let (from, name) = (offset, NAME.as_ptr());
                qbm_bitmap_next_dirty(self.image, name, from, &mut offset, ptr::null_mut())
            };
            if result == 0 {
                return found;
            }
            assert_eq!(result, 1);
            found.push(offset / GRANULE);
            offset += GRANULE;
        }
    }

    fn is_frozen(&self) -> bool {
        // SAFETY: integers and an array of them.
        let mut info = unsafe { std::mem::zeroed::<qbm_bitmap_info>() };
        info.size = size_of::<qbm_bitmap_info>();
        // SAFETY: as above.
        let found =
            unsafe { qbm_bitmap_find(self.image, NAME.as_ptr(), &mut info, ptr::null_mut()) };
        assert_eq!(found, 0);
        info.flags & QBM_BITMAP_FROZEN != 0
    }

    fn close(self) {
        // SAFETY: the image is open, and closed once.
        assert_eq!(unsafe { qbm_close(self.image, ptr::null_mut()) }, 0);
    }

    fn message(&self) -> &str {
        // SAFETY: the library leaves the message NUL-terminated.
        let text = unsafe { CStr::from_ptr(self.error.message.as_ptr()) };
        text.to_str().unwrap()
    }
}

#[test]
fn a_copy_in_steps_that_goes_on_after_a_close() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.qbm");
    let mut session = Session::create(&path);
    session.write(&[1, 5, 9]);
    assert_eq!(session.freeze(), 0);
    assert!(session.is_frozen());
    session.write(&[5, 7]);
    assert_eq!(session.dirty(), [1, 5, 9]);
    assert_eq!(session.checkpoint(7 * GRANULE), 0);
    assert_eq!(session.dirty(), [9]);
    assert!(session.is_frozen());
    session.close();

    let mut session = Session::open(&path, 0);
    assert!(!session.is_frozen());
    assert_eq!(session.dirty(), [5, 7, 9]);
    assert_eq!(session.freeze(), 0);
    session.write(&[3]);
    assert_eq!(session.commit(), 0);
    assert!(!session.is_frozen());
    assert_eq!(session.dirty(), [3]);
    assert_eq!(session.freeze(), 0);
    session.write(&[4]);
    assert_eq!(session.abort(), 0);
    assert_eq!(session.dirty(), [3, 4]);
    session.close();
}

#[test]
fn each_refusal_has_its_errno() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.qbm");
    let mut session = Session::create(&path);
    let not_frozen = [session.checkpoint(0), session.commit(), session.abort()];
    assert_eq!(not_frozen, [-libc::EINVAL; 3]);
    assert_eq!(session.message(), "bitmap \"daily\" is not frozen");
    assert_eq!(session.freeze(), 0);
    assert_eq!(session.freeze(), -libc::EBUSY);
    assert_eq!(session.error.errnum, libc::EBUSY);
    assert_eq!(session.message(), "bitmap \"daily\" is frozen");
    // SAFETY: the image is open; what is not NULL lives.
    unsafe {
        let (image, name, no_error) = (session.image, NAME.as_ptr(), ptr::null_mut());
        let results = [
            qbm_bitmap_remove(image, name, no_error),
            qbm_bitmap_set_recording(image, name, false, no_error),
            qbm_bitmap_store_bits(image, name, 0, SIZE_BYTES, ptr::null(), 0, no_error),
        ];
        assert_eq!(results, [-libc::EBUSY; 3]);
        let other = c"weekly".as_ptr();
        let results = [
            qbm_bitmap_freeze(image, other, no_error),
            qbm_bitmap_checkpoint(image, other, 0, no_error),
            qbm_bitmap_commit(image, other, no_error),
            qbm_bitmap_abort(image, other, no_error),
        ];
        assert_eq!(results, [-libc::ENOENT; 4]);
        let results = [
            qbm_bitmap_freeze(ptr::null_mut(), name, no_error),
            qbm_bitmap_checkpoint(image, ptr::null(), 0, no_error),
            qbm_bitmap_commit(ptr::null_mut(), ptr::null(), no_error),
            qbm_bitmap_abort(image, ptr::null(), no_error),
        ];
        assert_eq!(results, [-libc::EINVAL; 4]);
    }
    session.close();
    let mut session = Session::open(&path, QBM_ACTIVATE_READ_ONLY);
    let read_only = [
        session.freeze(),
        session.checkpoint(0),
        session.commit(),
        session.abort(),
    ];
    assert_eq!(read_only, [-libc::EROFS; 4]);
    session.close();
}
