// SPDX-License-Identifier: MIT OR Apache-2.0
//! C structures that begin with their size, from callers of other versions and back to them.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr;

use crate::args::{check_length, null};
use crate::error::Failure;

/// No version of a structure will be larger, in bytes; a size beyond this was never set.
const STRUCTURE_BYTES_MAX: usize = 65536;

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
    let given = unsafe { structure.cast::<usize>().read_unaligned() };
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
pub(crate) unsafe fn read<T: SizeFirst>(args: *const T, what: &str) -> Result<T, Failure> {
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
pub(crate) unsafe fn read_all<T: SizeFirst>(
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
        unsafe { read(one, &what) }
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
        let given = |words: &[usize; 3]| {
            // SAFETY: 24 readable bytes, as the first says.
            unsafe { read(words.as_ptr().cast::<Args>(), "args") }
        };
        assert_eq!(given(&words).unwrap().value, 7);
        words[2] = 1;
        assert_eq!(given(&words).err().unwrap().errnum, libc::E2BIG);
        words[0] = 8;
        assert_eq!(given(&words).err().unwrap().errnum, libc::EINVAL);
        // A size that was never set made the library read until it crashed.
        words[0] = usize::MAX;
        assert_eq!(given(&words).err().unwrap().errnum, libc::E2BIG);
        // SAFETY: NULL is allowed.
        let missing = unsafe { read::<Args>(std::ptr::null(), "args") };
        assert_eq!(missing.err().unwrap().message, "args is NULL");
    }

    #[test]
    fn an_array_is_of_one_version() {
        let mut words = [24_usize, 7, 0, 24, 8, 0];
        let array = |words: &[usize; 6], count| {
            // SAFETY: 48 readable bytes, two structures of 24.
            unsafe { read_all(words.as_ptr().cast::<Args>(), count, "args") }
        };
        let values = |read: Vec<Args>| read.iter().map(|args| args.value).collect::<Vec<_>>();
        assert_eq!(values(array(&words, 2).unwrap()), [7, 8]);
        assert!(array(&words, 0).unwrap().is_empty());
        words[5] = 1;
        assert_eq!(array(&words, 2).err().unwrap().errnum, libc::E2BIG);
        words[3] = 16;
        assert_eq!(
            array(&words, 2).err().unwrap().message,
            "args[1].size is 16, that of the first 24"
        );
        assert_eq!(
            array(&words, usize::MAX / 8).err().unwrap().errnum,
            libc::EINVAL
        );
        // SAFETY: NULL is refused.
        let missing = unsafe { read_all::<Args>(std::ptr::null(), 1, "args") };
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
        let given = unsafe { read(older, "args") }.unwrap();
        assert_eq!((given.value, given.added), (7, 0));
        // SAFETY: 16 writable bytes.
        let mut filled = unsafe { out(older, "args") }.unwrap();
        filled.value = 5;
        filled.added = 5;
        drop(filled);
        assert_eq!(words, [16, 5, 9]);

        words[0] = 15;
        let smaller = words.as_mut_ptr().cast::<GrownArgs>();
        // SAFETY: refused before anything but the size is read.
        let refused = unsafe { read(smaller, "args") };
        assert_eq!(
            refused.err().unwrap().message,
            "args.size is 15, at least 16"
        );
        // SAFETY: as above.
        let refused = unsafe { out(smaller, "args") };
        assert_eq!(refused.err().unwrap().errnum, libc::EINVAL);
    }
}
