// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is dirty, as ranges of bytes.

use super::Image;
use crate::error::Result;

/// A range of bytes of the disk, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

impl Extent {
    /// The first byte after it.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.length_bytes)
    }
}

impl Image {
    /// The first dirty extent that ends after `offset_bytes`: it begins there or later, is as long as it can be, and ends
    /// with the disk at the latest. `None`: all is clean from there on.
    ///
    /// To walk over all of a bitmap, begin at 0 and go on at each extent's [end](Extent::end_bytes). Bits that are set
    /// meanwhile behind that point are not seen.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when no bitmap of that name is loaded.
    pub fn next_dirty_extent(&self, name: &str, offset_bytes: u64) -> Result<Option<Extent>> {
        let recorder = self.viewed(name)?;
        let size_bytes = self.size_bytes();
        if offset_bytes >= size_bytes {
            return Ok(None);
        }
        let extent = recorder.next_extent(offset_bytes).map(|bits| {
            let (start, length) = recorder.granularity().bytes_of(bits);
            let end = start.saturating_add(length).min(size_bytes);
            let start = start.max(offset_bytes);
            Extent {
                offset_bytes: start,
                length_bytes: end.saturating_sub(start),
            }
        });
        // While a resize is under way a bitmap may be longer than the disk.
        Ok(extent.filter(|extent| extent.length_bytes > 0))
    }

    /// Bytes in dirty granules of a bitmap; the last granule is cut at the end of the disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when no bitmap of that name is loaded.
    pub fn dirty_bytes(&self, name: &str) -> Result<u64> {
        let recorder = self.viewed(name)?;
        Ok(recorder.dirty_bytes(self.size_bytes()))
    }

    /// Size of the disk while active.
    fn size_bytes(&self) -> u64 {
        let state = self.lock();
        state.active.as_ref().map_or(0, |active| active.size_bytes)
    }
}
