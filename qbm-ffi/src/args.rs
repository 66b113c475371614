// SPDX-License-Identifier: MIT OR Apache-2.0
//! C strings, arrays, flags and places of results to Rust values, and back.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use qbm_core::DataPath;

use crate::error::Failure;

pub(crate) fn null(what: &str) -> Failure {
    Failure::new(libc::EINVAL, format!("{what} is NULL"))
}

/// No object is larger than `isize::MAX` bytes, and no slice may be.
pub(crate) fn check_length<T>(count: usize, what: &str) -> Result<(), Failure> {
    let bytes = count.checked_mul(size_of::<T>());
    if bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok()) {
        return Ok(());
    }
    let text = format!("{what}: {count} are more than memory can hold");
    Err(Failure::new(libc::EINVAL, text))
}

/// A required string.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that lives as long as the result.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: promised by the caller.
    let text = unsafe { optional_text(text, what) }?;
    text.ok_or_else(|| null(what))
}

/// A string that may be NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(
    text: *const c_char,
    what: &str,
) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; NUL-terminated, as promised by the caller.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text
        .to_str()
        .map_err(|_| Failure::new(libc::EINVAL, format!("{what} is not UTF-8")))?;
    Ok(Some(text))
}

/// A required path: any bytes.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn path<'a>(path: *const c_char, what: &str) -> Result<&'a Path, Failure> {
    if path.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL; NUL-terminated, as promised by the caller.
    let path = unsafe { CStr::from_ptr(path) };
    Ok(Path::new(OsStr::from_bytes(path.to_bytes())))
}

/// Where the data image is, as activation and checks are told.
///
/// # Safety
/// `data_file` is NULL or a NUL-terminated string.
pub(crate) unsafe fn data_path(data_file: *const c_char) -> Result<DataPath, Failure> {
    if data_file.is_null() {
        return Ok(DataPath::Stored);
    }
    // SAFETY: promised by the caller.
    let path = unsafe { path(data_file, "args.data_file") }?;
    Ok(if path.as_os_str().is_empty() {
        DataPath::Unknown
    } else {
        DataPath::File(path.to_owned())
    })
}

/// An array of required strings; NULL only with a count of 0.
///
/// # Safety
/// `texts` points to `count` pointers, each as for [`text`].
pub(crate) unsafe fn texts<'a>(
    texts: *const *const c_char,
    count: usize,
    what: &str,
) -> Result<Vec<&'a str>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if texts.is_null() {
        return Err(null(what));
    }
    check_length::<*const c_char>(count, what)?;
    // SAFETY: not NULL; `count` pointers, as promised by the caller.
    let pointers = unsafe { std::slice::from_raw_parts(texts, count) };
    let each = pointers.iter().enumerate();
    // SAFETY: promised by the caller.
    each.map(|(index, pointer)| unsafe { text(*pointer, &format!("{what}[{index}]")) })
        .collect()
}

/// Where a result goes.
///
/// # Safety
/// `place` is NULL or points to a `T` that only this call uses.
pub(crate) unsafe fn place<'a, T>(place: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: promised by the caller.
    unsafe { place.as_mut() }.ok_or_else(|| null(what))
}

/// Where a result goes, as it is: two places may be one.
pub(crate) fn non_null<T>(place: *mut T, what: &str) -> Result<NonNull<T>, Failure> {
    NonNull::new(place).ok_or_else(|| null(what))
}

/// Bytes to read; NULL only with a size of 0.
///
/// # Safety
/// `data` points to `size` readable bytes.
pub(crate) unsafe fn bytes<'a>(
    data: *const u8,
    size: usize,
    what: &str,
) -> Result<&'a [u8], Failure> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(null(what));
    }
    check_length::<u8>(size, what)?;
    // SAFETY: not NULL; `size` readable bytes, as promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(data, size) })
}

/// Bytes to fill; NULL only with a size of 0.
///
/// # Safety
/// `data` points to `size` writable bytes that only this call uses.
pub(crate) unsafe fn bytes_mut<'a>(
    data: *mut u8,
    size: usize,
    what: &str,
) -> Result<&'a mut [u8], Failure> {
    if size == 0 {
        return Ok(&mut []);
    }
    if data.is_null() {
        return Err(null(what));
    }
    check_length::<u8>(size, what)?;
    // SAFETY: not NULL; `size` writable bytes of the caller's, for this call only.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, size) })
}

/// Unknown flags are an error: a later version may mean something by them.
pub(crate) fn flags(given: u32, known: u32, what: &str) -> Result<(), Failure> {
    if given & !known == 0 {
        return Ok(());
    }
    let text = format!("{what}: unknown flags {:#x}", given & !known);
    Err(Failure::new(libc::EINVAL, text))
}

/// As with flags: what is reserved is 0 until a later version means something by it.
pub(crate) fn reserved(given: u32, what: &str) -> Result<(), Failure> {
    if given == 0 {
        return Ok(());
    }
    Err(Failure::new(
        libc::EINVAL,
        format!("{what} is {given}, not 0"),
    ))
}

/// Copies text into a buffer, cut at a character's border, NUL-terminated. Returns whether all of it fitted.
pub(crate) fn copy_text(text: &str, buffer: &mut [c_char]) -> bool {
    let Some(room) = buffer.len().checked_sub(1) else {
        return false;
    };
    let mut length = text.len().min(room);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    copy_bytes(text.as_bytes().get(..length).unwrap_or_default(), buffer);
    length == text.len()
}

/// Copies a path as it is into a buffer, cut where it does not fit, NUL-terminated. Returns whether all of it fitted.
pub(crate) fn copy_path(path: &Path, buffer: &mut [c_char]) -> bool {
    let bytes = path.as_os_str().as_bytes();
    copy_bytes(bytes, buffer);
    bytes.len() < buffer.len()
}

fn copy_bytes(bytes: &[u8], buffer: &mut [c_char]) {
    let Some(room) = buffer.len().checked_sub(1) else {
        return;
    };
    let length = bytes.len().min(room);
    for (target, byte) in buffer.iter_mut().zip(bytes.iter().take(length)) {
        *target = c_char::from_ne_bytes([*byte]);
    }
    if let Some(end) = buffer.get_mut(length) {
        *end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_slice_is_longer_than_memory() {
        let byte = 0_u8;
        // SAFETY: refused before anything is read.
        let refused = unsafe { bytes(&byte, usize::MAX, "buf") };
        assert_eq!(refused.err().unwrap().errnum, libc::EINVAL);
    }

    #[test]
    fn text_is_cut_between_characters() {
        let mut buffer = [1; 4];
        assert!(!copy_text("aäö", &mut buffer));
        assert_eq!(
            buffer,
            [b'a' as c_char, 0xc3_u8 as c_char, 0xa4_u8 as c_char, 0]
        );
        assert!(copy_text("abc", &mut buffer));
        assert!(!copy_text("x", &mut []));
    }
}
