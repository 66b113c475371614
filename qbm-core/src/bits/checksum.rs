// SPDX-License-Identifier: MIT OR Apache-2.0
//! CRC-32C over long runs of zeros, without reading them.
//!
//! A CRC is the remainder of a polynomial over GF(2): appending `n` zero bytes multiplies it by x^(8n). That power comes
//! from squaring, so that a run of any length takes some hundred steps. Bits are reflected: the highest is x^0.

/// Castagnoli's polynomial without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;

/// `a * b` modulo the polynomial.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted) = (0, b);
    let mut term = ONE;
    while term != 0 {
        if a & term != 0 {
            product ^= shifted;
        }
        // Once more times x.
        let carry = if shifted & 1 != 0 { POLYNOMIAL } else { 0 };
        shifted = shifted >> 1 ^ carry;
        term >>= 1;
    }
    product
}

/// x^(8 * 2^n) at `n`: what 2^n zero bytes multiply by.
const ZEROS: [u32; 64] = {
    let mut powers = [ONE >> 8; 64];
    let mut n = 1;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while n < powers.len() {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// The CRC-32C of bytes whose CRC-32C is `crc`, followed by `zeros_bytes` bytes of zero.
pub(super) fn append_zeros(crc: u32, zeros_bytes: u64) -> u32 {
    let powers = ZEROS.iter().enumerate();
    let wanted = powers.filter(|(n, _)| zeros_bytes >> n & 1 != 0);
    // The register of CRC-32C begins inverted, and is inverted at the end.
    !wanted.fold(!crc, |register, (_, power)| multiply(register, *power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_zeros_against_zeros() {
        for text in ["", "123456789"] {
            let crc = crc32c::crc32c(text.as_bytes());
            for length in [0, 1, 2, 3, 4, 5, 255, 4095, 4096, 4097, 1_000_003] {
                let expected = crc32c::crc32c_append(crc, &vec![0; length]);
                assert_eq!(append_zeros(crc, length as u64), expected, "{length}");
            }
        }
    }

    #[test]
    fn a_long_run_is_two_shorter_ones() {
        for (first, second) in [(1 << 33, 1 << 33), (u64::MAX / 2, 77), (1 << 62, 1)] {
            let whole = append_zeros(0x1234_5678, first + second);
            let pieces = append_zeros(append_zeros(0x1234_5678, first), second);
            assert_eq!(whole, pieces);
        }
    }
}
