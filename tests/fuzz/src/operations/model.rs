// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the bitmaps of an image have to say, and what they may say.

use std::collections::BTreeMap;

use super::Range;
use crate::image::touch;
use crate::runs::Runs;

/// Names that file names must not be made of as they are.
const NAMES: [&str; 6] = ["daily", "dai.ly", "../x", "\n\"", "\u{1f600}", "x.qbm"];
/// Writes in flight are remembered in units of this size, rounded outwards.
const IN_FLIGHT_BYTES: u64 = 1 << 16;

pub(super) fn name(index: u8) -> &'static str {
    NAMES[usize::from(index) % NAMES.len()]
}

pub(super) fn granularity(index: u8) -> u64 {
    512 << (index % 10)
}

#[derive(Debug, Clone)]
pub(super) struct Bitmap {
    pub(super) granularity: u64,
    pub(super) recording: bool,
    pub(super) consistent: bool,
    pub(super) user_data: Option<Vec<u8>>,
    /// Granules that a lost write would be missing from (I1).
    pub(super) must: Runs,
    /// Granules that there is a reason for.
    pub(super) may: Runs,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) size: u64,
    pub(super) bitmaps: BTreeMap<&'static str, Bitmap>,
    /// Writes that have begun and not ended.
    pub(super) in_flight: Vec<(u64, u64)>,
}

impl Bitmap {
    pub(super) fn new(granularity: u64) -> Self {
        Self {
            granularity,
            recording: true,
            consistent: true,
            user_data: None,
            must: Runs::default(),
            may: Runs::default(),
        }
    }

    pub(super) fn touch(&mut self, offset: u64, length: u64, size: u64) {
        touch(&mut self.must, offset, length, self.granularity, size);
        touch(&mut self.may, offset, length, self.granularity, size);
    }
}

impl Model {
    pub(super) fn range(&self, range: Range) -> (u64, u64) {
        let offset = u64::from(range.offset).checked_rem(self.size + 4096);
        (
            offset.unwrap_or(0),
            u64::from(range.length >> (range.length % 32)),
        )
    }

    /// The bitmap of a name, if it can be used.
    pub(super) fn usable(&mut self, name: &str) -> Option<&mut Bitmap> {
        self.bitmaps
            .get_mut(name)
            .filter(|bitmap| bitmap.consistent)
    }

    pub(super) fn write(&mut self, offset: u64, length: u64) {
        for bitmap in self.bitmaps.values_mut() {
            if bitmap.recording && bitmap.consistent {
                bitmap.touch(offset, length, self.size);
            }
        }
    }

    /// A bitmap begins to record: it holds the writes in flight, too.
    pub(super) fn begin_to_record(&mut self, name: &str) {
        let Some(bitmap) = self.bitmaps.get_mut(name) else {
            return;
        };
        for (offset, length) in &self.in_flight {
            bitmap.touch(*offset, *length, self.size);
            let start = offset / IN_FLIGHT_BYTES * IN_FLIGHT_BYTES;
            let end = (offset + length).next_multiple_of(IN_FLIGHT_BYTES);
            let granularity = bitmap.granularity;
            touch(&mut bitmap.may, start, end - start, granularity, self.size);
        }
    }

    /// The disk gets another size. A tail that it gains is dirty, whoever made it grow.
    pub(super) fn resize(&mut self, size: u64) {
        let old = std::mem::replace(&mut self.size, size);
        for bitmap in self.bitmaps.values_mut() {
            bitmap.must.truncate(size.div_ceil(bitmap.granularity));
            bitmap.may.truncate(size.div_ceil(bitmap.granularity));
            if size > old && bitmap.recording {
                bitmap.touch(old, size - old, size);
            }
        }
    }

    pub(super) fn give_up_all(&mut self) {
        for bitmap in self.bitmaps.values_mut() {
            bitmap.consistent = false;
        }
    }
}
