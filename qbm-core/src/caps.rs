// SPDX-License-Identifier: MIT OR Apache-2.0
//! The caps of the format, and the sizes that follow from an image's size.

use crate::error::{Error, ErrorKind, Result, quoted};

/// Largest descriptor that is read or written, in bytes.
pub const DESCRIPTOR_BYTES_MAX: u64 = 16 << 20;
/// How much of that is kept free for sessions, seals, checksums and reasons, in bytes.
pub const DESCRIPTOR_RESERVED_BYTES: u64 = 2 << 20;
/// Most bitmaps in one image, inconsistent ones included.
pub const BITMAPS_MAX: usize = 4096;
/// Longest bitmap name in bytes of UTF-8, as QEMU has it (`BDRV_BITMAP_MAX_NAME_SIZE`).
pub const BITMAP_NAME_BYTES_MAX: usize = 1023;
/// Longest file name in a descriptor, in bytes (Linux's `PATH_MAX` less the NUL).
pub const FILE_NAME_BYTES_MAX: usize = 4095;
/// Longest format name, in bytes.
pub const FORMAT_NAME_BYTES_MAX: usize = 63;
/// Most user data of one bitmap, in bytes.
pub const USER_DATA_BYTES_MAX: usize = 65_536;
/// Smallest granularity: QEMU's `BDRV_SECTOR_SIZE`.
pub const GRANULARITY_BYTES_MIN: u64 = 512;
/// Largest granularity: 2 GiB, the largest power of two QEMU's bitmap API takes.
pub const GRANULARITY_BYTES_MAX: u64 = 1 << 31;
/// Largest image, in bytes.
pub const IMAGE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most bits in one bitmap (a bitmap file of 8 GiB).
pub const BITMAP_BITS_MAX: u64 = 1 << 36;
/// QEMU counts a disk in sectors of this many bytes; an image's size is rounded up to it.
pub const SECTOR_BYTES: u64 = 512;

/// `size_bytes` rounded up to whole sectors, as QEMU reports a disk's length.
///
/// # Errors
/// [`ErrorKind::TooBig`] above [`IMAGE_BYTES_MAX`].
pub fn round_image_size(size_bytes: u64) -> Result<u64> {
    match size_bytes.checked_next_multiple_of(SECTOR_BYTES) {
        Some(rounded) if rounded <= IMAGE_BYTES_MAX => Ok(rounded),
        _ => Err(Error::new(
            ErrorKind::TooBig,
            format!("image size {size_bytes} bytes: at most {IMAGE_BYTES_MAX}"),
        )),
    }
}

/// Checks a bitmap's name: 1 to 1,023 bytes, no NUL.
///
/// # Errors
/// [`ErrorKind::Invalid`] when empty or with a NUL, [`ErrorKind::NameTooLong`] when longer.
pub fn check_bitmap_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("bitmap name: empty"));
    }
    if name.len() > BITMAP_NAME_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::NameTooLong,
            format!(
                "bitmap name {}: {} bytes, at most {BITMAP_NAME_BYTES_MAX}",
                quoted(name),
                name.len()
            ),
        ));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!(
            "bitmap name {}: contains a NUL",
            quoted(name)
        )));
    }
    Ok(())
}

/// Checks the length of a bitmap's user data.
///
/// # Errors
/// [`ErrorKind::TooBig`] above [`USER_DATA_BYTES_MAX`].
pub fn check_user_data_bytes(length_bytes: usize) -> Result<()> {
    if length_bytes > USER_DATA_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::TooBig,
            format!("{length_bytes} bytes of user data, at most {USER_DATA_BYTES_MAX}"),
        ));
    }
    Ok(())
}

/// Checks a granularity: a power of two from 512 B to 2 GiB.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub fn check_granularity(granularity_bytes: u64) -> Result<()> {
    if !granularity_bytes.is_power_of_two() {
        return Err(Error::invalid(format!(
            "{granularity_bytes} is not a power of two"
        )));
    }
    if !(GRANULARITY_BYTES_MIN..=GRANULARITY_BYTES_MAX).contains(&granularity_bytes) {
        return Err(Error::invalid(format!(
            "{granularity_bytes} is not within {GRANULARITY_BYTES_MIN} to {GRANULARITY_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Bits of a bitmap: granules of the image, the last one perhaps partial.
///
/// # Errors
/// [`ErrorKind::TooBig`] above [`BITMAP_BITS_MAX`].
pub fn bits_count(image_bytes: u64, granularity_bytes: u64) -> Result<u64> {
    let bits = image_bytes.div_ceil(granularity_bytes);
    if bits > BITMAP_BITS_MAX {
        return Err(Error::new(
            ErrorKind::TooBig,
            format!(
                "granularity {granularity_bytes} makes {bits} bits for an image of {image_bytes} \
                 bytes, at most {BITMAP_BITS_MAX}: use a larger granularity"
            ),
        ));
    }
    Ok(bits)
}

/// Size of a bitmap file in bytes: one byte for every eight bits begun.
pub fn bitmap_file_bytes(bits: u64) -> u64 {
    bits.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granularities() {
        for good in [512, 65536, 1 << 31] {
            check_granularity(good).unwrap();
        }
        for bad in [0, 1, 256, 3000, 1 << 32, u64::MAX] {
            check_granularity(bad).unwrap_err();
        }
    }

    #[test]
    fn names() {
        check_bitmap_name(&"n".repeat(1023)).unwrap();
        let long = check_bitmap_name(&"n".repeat(1024)).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::NameTooLong);
        assert_eq!(
            check_bitmap_name("").unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert_eq!(
            check_bitmap_name("a\0").unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }

    #[test]
    fn sizes_round_up() {
        assert_eq!(round_image_size(1).unwrap(), 512);
        assert_eq!(round_image_size(0).unwrap(), 0);
        round_image_size(u64::MAX).unwrap_err();
        round_image_size(i64::MAX as u64).unwrap_err();
        assert_eq!(bits_count(65537, 65536).unwrap(), 2);
        assert_eq!(bitmap_file_bytes(9), 2);
        bits_count(1 << 62, 512).unwrap_err();
    }
}
