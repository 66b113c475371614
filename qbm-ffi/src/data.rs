// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading and writing the data image, with every write recorded.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use qbm_core::{Activation, DataImage, Image};

use crate::args;
use crate::call::with;
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;

/// For qbm_zero(): the range's space may be given back.
pub const QBM_ZERO_MAY_UNMAP: u32 = 1;

/// The data image that a handle has open.
#[derive(Debug, Default)]
pub(crate) struct Data {
    /// Held for as long as it takes to count one more user.
    current: RwLock<Option<Arc<DataImage>>>,
    /// One thread at a time makes it come and go.
    changing: Mutex<()>,
}

impl Data {
    fn get(&self) -> Option<Arc<DataImage>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// As [`DataImage::leave_locked`]. What a lost thread of the forking process was using is not dropped at all.
    pub(crate) fn leave_locked(&mut self) {
        let current = self.current.get_mut();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = current.as_mut().and_then(Arc::get_mut) {
            data.leave_locked();
        }
    }

    fn set(&self, data: Option<Arc<DataImage>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = data;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.get().is_some()
    }

    pub(crate) fn activate(&self, image: &Image, activation: &Activation) -> Result<(), Failure> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let data = DataImage::activate(image, activation)?;
        self.set(Some(Arc::new(data)));
        Ok(())
    }

    pub(crate) fn inactivate(&self, image: &Image) -> Result<(), Failure> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(data) = self.get() else {
            return Ok(image.inactivate()?);
        };
        let ended = data.inactivate(image);
        if !image.info().active {
            self.set(None);
        }
        Ok(ended?)
    }

    /// The library resizes the data image itself.
    pub(crate) fn refuse(&self, what: &str) -> Result<(), Failure> {
        if !self.is_open() {
            return Ok(());
        }
        let text = format!("{what}: the library has the data image open, qbm_truncate() is for it");
        Err(Failure::new(libc::EINVAL, text))
    }
}

/// # Safety
/// As the entries below.
unsafe fn with_data(
    image: *const qbm_image,
    error: *mut qbm_error,
    body: impl FnOnce(&Image, &DataImage) -> Result<(), Failure>,
) -> i32 {
    let body = |image: &qbm_image| {
        let data = image.data.get().ok_or_else(|| {
            let text = "the image is not activated with QBM_ACTIVATE_DATA";
            Failure::new(libc::EBADF, text)
        })?;
        body(&image.image, &data)?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with(image, error, body) }
}

/// No disk is that large, and no buffer.
fn check_buffer(offset: u64, bytes: usize) -> Result<(), Failure> {
    if isize::try_from(bytes).is_ok() {
        return Ok(());
    }
    let text = format!("range of {bytes} bytes at {offset}: beyond the disk");
    Err(Failure::new(libc::EINVAL, text))
}

/// Reads bytes at offset into buf; a read-only image too. Blocks.
///
/// What the disk has beyond the end of the file, the rest of its last 512 bytes, is zeros. Any number of threads may
/// read and write at once; beside a write of the same bytes, a read returns the old or the new of each.
/// Errors: -EINVAL (beyond the disk), -EBADF (not activated with QBM_ACTIVATE_DATA), or the system's; what is in buf
/// then is unspecified.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_pread(
    image: *const qbm_image,
    offset: u64,
    bytes: usize,
    buf: *mut c_void,
    error: *mut qbm_error,
) -> i32 {
    let body = |_: &Image, data: &DataImage| {
        check_buffer(offset, bytes)?;
        // SAFETY: promised by the caller.
        let buffer = unsafe { args::bytes_mut(buf.cast::<u8>(), bytes, "buf") }?;
        Ok(data.read(offset, buffer)?)
    };
    // SAFETY: promised by the caller.
    unsafe { with_data(image, error, body) }
}

/// Writes bytes from buf at offset. Blocks.
///
/// The range, rounded outwards, is dirty in every recording bitmap before the data moves, as durable as the image's
/// durability says. buf must not change until this returns. The data is in the page cache when this returns: it survives the process, and a power cut after
/// qbm_flush(). Any number of threads may write at once; writes that overlap are neither ordered nor atomic, as with
/// pwrite(2).
/// Errors: -EINVAL (beyond the disk), -EROFS (not activated for writing), -EBADF (not activated with
/// QBM_ACTIVATE_DATA), or the system's, such as -ENOSPC and -EIO: any part may have been written, and all of the range
/// is dirty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_pwrite(
    image: *mut qbm_image,
    offset: u64,
    bytes: usize,
    buf: *const c_void,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &Image, data: &DataImage| {
        check_buffer(offset, bytes)?;
        // SAFETY: promised by the caller.
        let buffer = unsafe { args::bytes(buf.cast::<u8>(), bytes, "buf") }?;
        Ok(data.write(image, offset, buffer)?)
    };
    // SAFETY: promised by the caller.
    unsafe { with_data(image, error, body) }
}

/// Makes bytes at offset read as zeros: by the file system or the device where that can do it, otherwise by writing
/// them. Blocks.
///
/// flags: QBM_ZERO_MAY_UNMAP. Recorded, durable and in parallel as qbm_pwrite(), with its errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_zero(
    image: *mut qbm_image,
    offset: u64,
    bytes: u64,
    flags: u32,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &Image, data: &DataImage| {
        args::flags(flags, QBM_ZERO_MAY_UNMAP, "flags")?;
        let may_unmap = flags & QBM_ZERO_MAY_UNMAP != 0;
        Ok(data.write_zeroes(image, offset, bytes, may_unmap)?)
    };
    // SAFETY: promised by the caller.
    unsafe { with_data(image, error, body) }
}

/// Says that bytes at offset are needed no more; their space is given back where that is possible. Blocks.
///
/// Advice: where it is not possible nothing happens, and 0 is returned. The range then reads as zeros or as before, and is
/// dirty in either case. Recorded and in parallel as qbm_pwrite(), with its errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_discard(
    image: *mut qbm_image,
    offset: u64,
    bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &Image, data: &DataImage| Ok(data.discard(image, offset, bytes)?);
    // SAFETY: promised by the caller.
    unsafe { with_data(image, error, body) }
}

/// Makes every write that has returned durable in the data image. Bitmaps become durable at the end of the session. Blocks.
///
/// Errors: -EBADF (not activated with QBM_ACTIVATE_DATA), or the system's, such as -EIO. Those are final: what was written
/// before may be lost, every later flush fails too, and every bitmap is inconsistent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_flush(image: *mut qbm_image, error: *mut qbm_error) -> i32 {
    let body = |image: &Image, data: &DataImage| Ok(data.flush(image)?);
    // SAFETY: promised by the caller.
    unsafe { with_data(image, error, body) }
}

/// Cuts the data image, a regular file, to new_size_bytes, or grows it with zeros; the bitmaps follow, and what the disk
/// gains is dirty. Reads and writes of other threads wait meanwhile. Blocks.
///
/// The disk has the size rounded up to 512. The bitmaps' part is durable when this returns, the data image's length after
/// qbm_flush(). After an error disk and bitmaps have the size that the data image has.
/// Errors: -ENOTSUP (a block device), -EFBIG (a bitmap, or the disk, would exceed its cap), -EROFS (not activated for
/// writing), -EBADF (not activated with QBM_ACTIVATE_DATA), or the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_truncate(
    image: *mut qbm_image,
    new_size_bytes: u64,
    error: *mut qbm_error,
) -> i32 {
    let body = |image: &Image, data: &DataImage| Ok(data.resize(image, new_size_bytes)?);
    // SAFETY: promised by the caller.
    unsafe { with_data(image, error, body) }
}
