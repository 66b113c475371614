// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be true of an image, kept in the simplest way there is.
//!
//! Of every bitmap two sets are kept: granules that it `must` have and granules that it `may` have. They differ where
//! the engine is allowed to over-report:
//!
//! - a write that was announced but not let through (it may have reached the file);
//! - writes in flight when a bitmap begins to record, or loses bits: the table of them is in units of 64 KiB;
//! - the granule that holds the old end, when growing was announced and did not happen;
//! - the announced tail until the resize is ended;
//! - bits that are being stored or merged, or were when that failed.

use std::collections::BTreeMap;

use crate::granules::Granules;

/// The engine remembers writes in flight in units of this many bytes.
const FLIGHT_UNIT_BYTES: u64 = 64 << 10;

/// One bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Guest writes set bits.
    pub recording: bool,
    /// Given up for good: it must never be trusted again.
    pub inconsistent: bool,
    /// Only on disk, of a change that failed: the caller was told that it is not there, so it may be inconsistent.
    pub phantom: bool,
    /// Bytes of the disk to a bit.
    pub granularity_bytes: u64,
    /// Opaque bytes kept with the bitmap.
    pub user_data: Option<Vec<u8>>,
    /// Granules that must be dirty.
    pub must: Granules,
    /// Granules that may be dirty; a superset of `must`.
    pub may: Granules,
}

/// A write between begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// First byte.
    pub offset_bytes: u64,
    /// Bytes.
    pub length_bytes: u64,
    /// The engine said that its data may move.
    pub let_through: bool,
}

impl Flight {
    /// The range in the engine's units, as offset and length.
    fn rounded(self) -> (u64, u64) {
        let start = self.offset_bytes / FLIGHT_UNIT_BYTES * FLIGHT_UNIT_BYTES;
        let end = (self.offset_bytes + self.length_bytes).next_multiple_of(FLIGHT_UNIT_BYTES);
        (start, end - start)
    }
}

/// A resize between begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// What was announced.
    pub to_bytes: u64,
    /// The data image has that size already.
    pub early: bool,
}

/// An image's size and bitmaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Size in bytes.
    pub size_bytes: u64,
    /// What was announced and is not ended; sets of granules reach to the larger of both sizes.
    pub resize: Option<Resize>,
    /// By name.
    pub bitmaps: BTreeMap<String, Bitmap>,
}

impl Bitmap {
    /// A write that was let through.
    fn require(&mut self, offset_bytes: u64, length_bytes: u64) {
        self.must.touch(offset_bytes, length_bytes);
    }

    fn touch(&mut self, flight: &Flight) {
        if flight.length_bytes > 0 {
            if flight.let_through {
                self.require(flight.offset_bytes, flight.length_bytes);
            }
            self.may.touch(flight.offset_bytes, flight.length_bytes);
            let (offset_bytes, length_bytes) = flight.rounded();
            self.may.touch(offset_bytes, length_bytes);
        }
    }

    fn is_recording(&self) -> bool {
        self.recording && !self.inconsistent
    }
}

impl Model {
    /// An image without bitmaps.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            resize: None,
            bitmaps: BTreeMap::new(),
        }
    }

    /// How far sets of granules reach.
    pub fn extent_bytes(&self) -> u64 {
        let announced_bytes = self.resize.map_or(0, |resize| resize.to_bytes);
        self.size_bytes.max(announced_bytes)
    }

    /// The same, with nothing required of an announced tail: it is no part of the disk yet.
    #[must_use]
    pub fn without_tail(&self) -> Self {
        let mut new = self.clone();
        for bitmap in new.bitmaps.values_mut() {
            bitmap.must = bitmap.must.resized(self.size_bytes);
        }
        new
    }

    /// How far a guest may write.
    pub fn guest_bytes(&self) -> u64 {
        match self.resize {
            Some(resize) if resize.early => resize.to_bytes,
            _ => self.extent_bytes(),
        }
    }

    fn recording(&mut self) -> impl Iterator<Item = &mut Bitmap> {
        let bitmaps = self.bitmaps.values_mut();
        bitmaps.filter(|bitmap| bitmap.is_recording())
    }

    /// Names of the bitmaps that record.
    pub fn recording_names(&self) -> impl Iterator<Item = &String> {
        let recording = self
            .bitmaps
            .iter()
            .filter(|(_, bitmap)| bitmap.is_recording());
        recording.map(|(name, _)| name)
    }

    /// A write was announced.
    pub fn announce(&mut self, offset_bytes: u64, length_bytes: u64) {
        for bitmap in self.recording() {
            bitmap.may.touch(offset_bytes, length_bytes);
        }
    }

    /// A write was let through (I1).
    pub fn let_through(&mut self, offset_bytes: u64, length_bytes: u64) {
        self.announce(offset_bytes, length_bytes);
        for bitmap in self.recording() {
            bitmap.require(offset_bytes, length_bytes);
        }
    }

    /// A bitmap that is there to be used.
    pub fn usable(&mut self, name: &str) -> Option<&mut Bitmap> {
        let bitmap = self.bitmaps.get_mut(name)?;
        (!bitmap.inconsistent).then_some(bitmap)
    }

    /// A new bitmap; `all_dirty`: with every bit set.
    pub fn add(
        &mut self,
        name: &str,
        granularity_bytes: u64,
        recording: bool,
        all_dirty: bool,
        flights: &[Flight],
    ) {
        let mut set = Granules::none(granularity_bytes, self.extent_bytes());
        if all_dirty {
            set.touch(0, self.extent_bytes());
        }
        let mut bitmap = Bitmap {
            recording,
            inconsistent: false,
            phantom: false,
            granularity_bytes,
            user_data: None,
            must: set.clone(),
            may: set,
        };
        if recording {
            flights.iter().for_each(|flight| bitmap.touch(flight));
        }
        self.bitmaps.insert(name.to_owned(), bitmap);
    }

    /// Recording is turned on or off.
    pub fn set_recording(&mut self, name: &str, recording: bool, flights: &[Flight]) {
        if let Some(bitmap) = self.usable(name)
            && bitmap.recording != recording
        {
            bitmap.recording = recording;
            if recording {
                flights.iter().for_each(|flight| bitmap.touch(flight));
            }
        }
    }

    /// The bits go, but for those of writes in flight.
    pub fn clear(&mut self, name: &str, flights: &[Flight]) {
        let extent_bytes = self.extent_bytes();
        if let Some(bitmap) = self.usable(name) {
            bitmap.must = Granules::none(bitmap.granularity_bytes, extent_bytes);
            bitmap.may = bitmap.must.clone();
            if bitmap.recording {
                flights.iter().for_each(|flight| bitmap.touch(flight));
            }
        }
    }

    /// Bits of `sources` go into `target`.
    pub fn merge(&mut self, target: &str, sources: &[&str], flights: &[Flight]) {
        let read: Vec<Bitmap> = sources
            .iter()
            .filter_map(|name| self.usable(name).cloned())
            .collect();
        if let Some(bitmap) = self.usable(target) {
            for source in &read {
                bitmap.must.merge(&source.must);
                bitmap.may.merge(&source.may);
            }
            if bitmap.recording {
                flights.iter().for_each(|flight| bitmap.touch(flight));
            }
        }
    }

    /// Bits for another granularity, outwards.
    pub fn set_granularity(&mut self, name: &str, granularity_bytes: u64, flights: &[Flight]) {
        if let Some(bitmap) = self.usable(name) {
            bitmap.must = bitmap.must.regranulated(granularity_bytes);
            bitmap.may = bitmap.may.regranulated(granularity_bytes);
            bitmap.granularity_bytes = granularity_bytes;
            if bitmap.recording {
                flights.iter().for_each(|flight| bitmap.touch(flight));
            }
        }
    }

    /// A range is made dirty in one bitmap, recording or not.
    pub fn mark_dirty(&mut self, name: &str, offset_bytes: u64, length_bytes: u64) {
        if let Some(bitmap) = self.usable(name) {
            bitmap.must.touch(offset_bytes, length_bytes);
            bitmap.may.touch(offset_bytes, length_bytes);
        }
    }

    /// Nothing can be trusted any more (I2).
    pub fn give_up_all(&mut self) {
        for bitmap in self.bitmaps.values_mut() {
            bitmap.inconsistent = true;
            bitmap.recording = false;
        }
    }

    /// Another name for a bitmap.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(bitmap) = self.bitmaps.remove(from) {
            self.bitmaps.insert(to.to_owned(), bitmap);
        }
    }

    /// A whole bitmap's bits are about to be stored or merged: a crash or an error leaves any mixture.
    pub fn mix_bits(&mut self, name: &str, bits: &Granules, replaces: bool) {
        if let Some(bitmap) = self.usable(name) {
            bitmap.may.merge(bits);
            if replaces {
                bitmap.must = bitmap.must.common(bits);
            }
        }
    }

    /// They are there. Nothing is required of an announced tail: the bitmap may not reach there.
    pub fn exchange_bits(&mut self, name: &str, bits: &Granules, replaces: bool) {
        let (size_bytes, extent_bytes) = (self.size_bytes, self.extent_bytes());
        if let Some(bitmap) = self.usable(name) {
            let required = bits.resized(size_bytes).resized(extent_bytes);
            if replaces {
                bitmap.must = required;
                bitmap.may = bits.clone();
            } else {
                bitmap.must.merge(&required);
                bitmap.may.merge(bits);
            }
        }
    }

    /// A resize was announced; it may not happen. The tail may be dirty, and with it the granule that holds the old end.
    pub fn announce_resize(&mut self, to_bytes: u64, early: bool) {
        let old_bytes = self.size_bytes;
        self.resize = Some(Resize { to_bytes, early });
        let extent_bytes = self.extent_bytes();
        for bitmap in self.bitmaps.values_mut() {
            bitmap.must = bitmap.must.resized(extent_bytes);
            bitmap.may = bitmap.may.resized(extent_bytes);
            if bitmap.is_recording() {
                bitmap.may.touch(old_bytes, extent_bytes - old_bytes);
            }
        }
    }

    /// The data image has another size: bits are cut, or the new tail is dirty where writes are recorded.
    #[must_use]
    pub fn at_size(&self, size_bytes: u64) -> Self {
        let mut new = self.clone();
        new.resize = None;
        new.size_bytes = size_bytes;
        if size_bytes == self.extent_bytes() && size_bytes == self.size_bytes {
            return new;
        }
        for bitmap in new.bitmaps.values_mut() {
            bitmap.must = bitmap.must.resized(size_bytes);
            bitmap.may = bitmap.may.resized(size_bytes);
        }
        if size_bytes > self.size_bytes {
            new.let_through(self.size_bytes, size_bytes - self.size_bytes);
        }
        new
    }
}
