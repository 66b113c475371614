// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap files by the format's text: nothing but bits, little endian.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The content of a bitmap file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitmapFile {
    granularity_bytes: u64,
    bits: Vec<u8>,
}

impl BitmapFile {
    /// Reads a bitmap file whose bits cover `granularity_bytes` each.
    ///
    /// # Errors
    /// When it cannot be read or the granularity is 0.
    pub fn read(path: &Path, granularity_bytes: u64) -> Result<Self> {
        ensure!(granularity_bytes > 0, "a granularity of 0");
        let bits = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self {
            granularity_bytes,
            bits,
        })
    }

    /// How much of the disk one bit covers.
    #[must_use]
    pub fn granularity_bytes(&self) -> u64 {
        self.granularity_bytes
    }

    /// The file's length.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.bits.len() as u64
    }

    /// The bit of one granule; false past the end of the file.
    #[must_use]
    pub fn is_set(&self, granule: u64) -> bool {
        let byte = usize::try_from(granule / 8)
            .ok()
            .and_then(|index| self.bits.get(index));
        byte.is_some_and(|byte| byte >> (granule % 8) & 1 == 1)
    }

    /// How many bits are set.
    #[must_use]
    pub fn set_count(&self) -> u64 {
        self.bits
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum()
    }

    /// The granules whose bits are set, in order.
    #[must_use]
    pub fn granules(&self) -> Vec<u64> {
        let bits_count = self.length_bytes() * 8;
        (0..bits_count)
            .filter(|&granule| self.is_set(granule))
            .collect()
    }
}
