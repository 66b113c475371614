// SPDX-License-Identifier: MIT OR Apache-2.0
//! From bytes of the disk to bits of a bitmap.

use crate::caps;
use crate::error::Result;

/// Bits `[start, end)` of a bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl BitRange {
    pub(crate) fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// How many bytes of the disk one bit covers: a power of two from 512 B to 2 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granularity {
    shift: u32,
}

impl Granularity {
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        caps::check_granularity(bytes)?;
        Ok(Self {
            shift: bytes.trailing_zeros(),
        })
    }

    pub(crate) fn bytes(self) -> u64 {
        1_u64.wrapping_shl(self.shift) // At most 2^31.
    }

    /// The granule that a byte is in.
    pub(crate) fn granule(self, offset_bytes: u64) -> u64 {
        offset_bytes.wrapping_shr(self.shift)
    }

    /// Offset and length in bytes of a run of granules; past 2^64 they stop.
    pub(crate) fn bytes_of(self, bits: BitRange) -> (u64, u64) {
        let bytes = |bit: u64| bit.saturating_mul(self.bytes());
        let start = bytes(bits.start);
        (start, bytes(bits.end).saturating_sub(start))
    }

    /// The granules that `[offset, offset + length)` touches, rounded outwards, cut at `bits_count`.
    pub(crate) fn touched(self, offset_bytes: u64, length_bytes: u64, bits_count: u64) -> BitRange {
        let Some(before_last) = length_bytes.checked_sub(1) else {
            return BitRange { start: 0, end: 0 };
        };
        let last_byte = offset_bytes.saturating_add(before_last);
        BitRange {
            start: self.granule(offset_bytes).min(bits_count),
            end: self.granule(last_byte).saturating_add(1).min(bits_count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_round_outwards_and_stop_at_the_end() {
        let granularity = Granularity::new(65536).unwrap();
        let touched = |offset, length| {
            let range = granularity.touched(offset, length, 3);
            (range.start, range.end)
        };
        assert_eq!(touched(0, 1), (0, 1));
        assert_eq!(touched(65535, 2), (0, 2));
        assert_eq!(touched(65536, 65536), (1, 2));
        assert_eq!(touched(131072, 999_999), (2, 3));
        assert_eq!(touched(u64::MAX, u64::MAX), (3, 3));
        assert!(granularity.touched(5, 0, 3).is_empty());
    }
}
