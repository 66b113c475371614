// SPDX-License-Identifier: MIT OR Apache-2.0
//! C arguments to Rust values, and back.

use std::ffi::{CStr, OsStr, c_char};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

use qbm_core::DataPath;

use crate::error::Failure;

/// No version of a structure will be larger, in bytes; a size beyond this was never set.
const STRUCTURE_BYTES_MAX: usize = 65536;

fn null(what: &str) -> Failure {
    Failure::new(libc::EINVAL, format!("{what} is NULL"))
}

/// No object is larger than `isize::MAX` bytes, and no slice may be.
fn check_length<T>(count: usize, what: &str) -> Result<(), Failure> {
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

/// A structure of arguments or results, which begins with its size, so that it can grow at its end.
///
/// # Safety
/// All zeros is a valid value, and so are any bytes; the first member is a `usize`.
pub(crate) unsafe trait SizeFirst: Copy {
    /// What the first version had that was published: nobody has a smaller one.
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// How many bytes the caller's structure has, by its first member.
///
/// # Safety
/// `structure` is NULL or points to a readable `usize`.
unsafe fn given_bytes<T: SizeFirst>(structure: *const T, what: &str) -> Result<usize, Failure> {
    if structure.is_null() {
        return Err(null(what));
    }
    // SAFETY: the first member is the size, by the trait.
    let given = unsafe { structure.cast::<usize>().read() };
    if given > STRUCTURE_BYTES_MAX {
        let text = format!("{what}.size is {given}, at most {STRUCTURE_BYTES_MAX}");
        return Err(Failure::new(libc::E2BIG, text));
    }
    if given < T::FIRST_BYTES {
        let text = format!("{what}.size is {given}, at least {}", T::FIRST_BYTES);
        return Err(Failure::new(libc::EINVAL, text));
    }
    Ok(given)
}

/// What is known of a structure of `given` bytes; the rest is 0.
///
/// # Safety
/// `structure` points to as many readable bytes.
unsafe fn read_known<T: SizeFirst>(structure: *const T, given: usize) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let source = structure.cast::<u8>();
    let target = value.as_mut_ptr().cast::<u8>();
    // SAFETY: no more bytes than either has; any are a valid value, by the trait.
    unsafe {
        ptr::copy_nonoverlapping(source, target, given.min(size_of::<T>()));
        value.assume_init()
    }
}

/// Copies an argument structure, whatever its version. Members that the caller does not know are 0.
///
/// # Safety
/// `args` is NULL or points to as many readable bytes as its first member says.
pub(crate) unsafe fn structure<T: SizeFirst>(args: *const T, what: &str) -> Result<T, Failure> {
    // SAFETY: promised by the caller.
    let given = unsafe { given_bytes(args, what) }?;
    let known = size_of::<T>();
    // SAFETY: the caller promises as many readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(args.cast::<u8>(), given) };
    if bytes.iter().skip(known).any(|byte| *byte != 0) {
        let text = format!("{what}: members beyond {known} bytes are not known to this version");
        return Err(Failure::new(libc::E2BIG, text));
    }
    // SAFETY: as above.
    Ok(unsafe { read_known(args, given) })
}

/// An array of argument structures, all of one version; NULL only with a count of 0.
///
/// # Safety
/// `array` points to `count` structures, each with as many readable bytes as its first member says.
pub(crate) unsafe fn structures<T: SizeFirst>(
    array: *const T,
    count: usize,
    what: &str,
) -> Result<Vec<T>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: promised by the caller; there is a first one.
    let stride = unsafe { given_bytes(array, what) }?;
    check_length::<u8>(count.saturating_mul(stride), what)?;
    let each = (0..count).map(|index| {
        let what = format!("{what}[{index}]");
        // SAFETY: within the array, if all before it were as large as the first.
        let one = unsafe { array.byte_add(index * stride) };
        // SAFETY: promised by the caller.
        let given = unsafe { given_bytes(one, &what) }?;
        if given != stride {
            let text = format!("{what}.size is {given}, that of the first {stride}");
            return Err(Failure::new(libc::EINVAL, text));
        }
        // SAFETY: promised by the caller.
        unsafe { structure(one, &what) }
    });
    each.collect()
}

/// A structure that is being filled. The caller's gets the members that it has, all but the size, when this is dropped.
pub(crate) struct Out<T: SizeFirst> {
    known: T,
    target: *mut T,
    given: usize,
}

/// A structure to be filled, whatever its version. Members that are not known will be 0.
///
/// # Safety
/// `out` is NULL or points to a structure with its size set, which only this call uses, for longer than the result lives.
pub(crate) unsafe fn out<T: SizeFirst>(out: *mut T, what: &str) -> Result<Out<T>, Failure> {
    // SAFETY: promised by the caller.
    let given = unsafe { given_bytes(out, what) }?;
    Ok(Out {
        // SAFETY: promised by the caller.
        known: unsafe { read_known(out, given) },
        target: out,
        given,
    })
}

impl<T: SizeFirst> Deref for Out<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.known
    }
}

impl<T: SizeFirst> DerefMut for Out<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.known
    }
}

impl<T: SizeFirst> Drop for Out<T> {
    fn drop(&mut self) {
        let size = size_of::<usize>();
        let bytes = self.given.min(size_of::<T>());
        let source = (&raw const self.known).cast::<u8>();
        let target = self.target.cast::<u8>();
        // SAFETY: the caller's structure has the bytes given, ours no fewer than are known; both begin with the size.
        unsafe {
            ptr::copy_nonoverlapping(source.add(size), target.add(size), bytes - size);
            target.add(bytes).write_bytes(0, self.given - bytes);
        }
    }
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

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Args {
        size: usize,
        value: u32,
        more: u32,
    }
    // SAFETY: plain integers, size first.
    unsafe impl SizeFirst for Args {}

    #[test]
    fn a_newer_structure_is_taken_if_its_tail_is_zero() {
        let mut words = [24_usize, 7, 0];
        let read = |words: &[usize; 3]| {
            // SAFETY: 24 readable bytes, as the first says.
            unsafe { structure(words.as_ptr().cast::<Args>(), "args") }
        };
        assert_eq!(read(&words).unwrap().value, 7);
        words[2] = 1;
        assert_eq!(read(&words).err().unwrap().errnum, libc::E2BIG);
        words[0] = 8;
        assert_eq!(read(&words).err().unwrap().errnum, libc::EINVAL);
        // A size that was never set made the library read until it crashed.
        words[0] = usize::MAX;
        assert_eq!(read(&words).err().unwrap().errnum, libc::E2BIG);
        // SAFETY: NULL is allowed.
        let missing = unsafe { structure::<Args>(std::ptr::null(), "args") };
        assert_eq!(missing.err().unwrap().message, "args is NULL");
    }

    #[test]
    fn an_array_is_of_one_version() {
        let mut words = [24_usize, 7, 0, 24, 8, 0];
        let read = |words: &[usize; 6], count| {
            // SAFETY: 48 readable bytes, two structures of 24.
            unsafe { structures(words.as_ptr().cast::<Args>(), count, "args") }
        };
        let values = |read: Vec<Args>| read.iter().map(|args| args.value).collect::<Vec<_>>();
        assert_eq!(values(read(&words, 2).unwrap()), [7, 8]);
        assert!(read(&words, 0).unwrap().is_empty());
        words[5] = 1;
        assert_eq!(read(&words, 2).err().unwrap().errnum, libc::E2BIG);
        words[3] = 16;
        assert_eq!(
            read(&words, 2).err().unwrap().message,
            "args[1].size is 16, that of the first 24"
        );
        assert_eq!(
            read(&words, usize::MAX / 8).err().unwrap().errnum,
            libc::EINVAL
        );
        // SAFETY: NULL is refused.
        let missing = unsafe { structures::<Args>(std::ptr::null(), 1, "args") };
        assert_eq!(missing.err().unwrap().message, "args is NULL");
    }

    #[test]
    fn what_a_newer_structure_has_more_is_zeroed() {
        let mut words = [24_usize, 7, 7, 7];
        // SAFETY: 32 writable bytes, of which the structure has 24.
        let mut filled = unsafe { out(words.as_mut_ptr().cast::<Args>(), "args") }.unwrap();
        assert_eq!(filled.value, 7);
        filled.value = 5;
        drop(filled);
        assert_eq!(words, [24, 5, 0, 7]);
        words[0] = usize::MAX;
        // SAFETY: as above; the size is refused.
        let refused = unsafe { out(words.as_mut_ptr().cast::<Args>(), "args") };
        assert_eq!(refused.err().unwrap().errnum, libc::E2BIG);
    }

    /// What `Args` has become.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct GrownArgs {
        size: usize,
        value: u32,
        more: u32,
        added: usize,
    }
    // SAFETY: plain integers, size first.
    unsafe impl SizeFirst for GrownArgs {
        const FIRST_BYTES: usize = size_of::<Args>();
    }

    #[test]
    fn an_older_structure_is_read_and_written_no_further_than_it_goes() {
        let mut words = [16_usize, 7, 9];
        let older = words.as_mut_ptr().cast::<GrownArgs>();
        // SAFETY: 16 readable bytes, as the first says.
        let read = unsafe { structure(older, "args") }.unwrap();
        assert_eq!((read.value, read.added), (7, 0));
        // SAFETY: 16 writable bytes.
        let mut filled = unsafe { out(older, "args") }.unwrap();
        filled.value = 5;
        filled.added = 5;
        drop(filled);
        assert_eq!(words, [16, 5, 9]);

        words[0] = 15;
        let smaller = words.as_mut_ptr().cast::<GrownArgs>();
        // SAFETY: refused before anything but the size is read.
        let refused = unsafe { structure(smaller, "args") };
        assert_eq!(
            refused.err().unwrap().message,
            "args.size is 15, at least 16"
        );
        // SAFETY: as above.
        let refused = unsafe { out(smaller, "args") };
        assert_eq!(refused.err().unwrap().errnum, libc::EINVAL);
    }

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
