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
//!
//! Of a frozen bitmap these two are what the disk has; what reading shows is kept apart, and so is what was dirtied since.

use std::collections::BTreeMap;

use qbm_core::{BitmapChange, ErrorKind};

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
    /// Between freeze and commit or abort; of what is on disk it says nothing.
    pub frozen: Option<Frozen>,
}

/// Granules that must be dirty, and granules that may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// A subset of `may`.
    pub must: Granules,
    /// A superset of `must`.
    pub may: Granules,
}

/// What memory has of a frozen bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// What was dirty at the freeze and is not copied.
    pub view: Marks,
    /// What was dirtied since.
    pub since: Marks,
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

impl Marks {
    fn none(granularity_bytes: u64, image_bytes: u64) -> Self {
        let none = Granules::none(granularity_bytes, image_bytes);
        Self {
            must: none.clone(),
            may: none,
        }
    }

    fn rest(&self, first: u64) -> Self {
        Self {
            must: self.must.rest(first),
            may: self.may.rest(first),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.must.merge(&other.must);
        self.may.merge(&other.may);
    }
}

/// A write that was in flight when these sets began to record.
fn touch(must: &mut Granules, may: &mut Granules, flight: &Flight) {
    if flight.length_bytes > 0 {
        if flight.let_through {
            must.touch(flight.offset_bytes, flight.length_bytes);
        }
        may.touch(flight.offset_bytes, flight.length_bytes);
        let (offset_bytes, length_bytes) = flight.rounded();
        may.touch(offset_bytes, length_bytes);
    }
}

impl Bitmap {
    /// The sets that what is dirtied now goes to: `must` and `may`, and while it is frozen those since then.
    fn recorded_in(&mut self) -> impl Iterator<Item = (&mut Granules, &mut Granules)> {
        let since = self.frozen.as_mut().map(|frozen| &mut frozen.since);
        let since = since.map(|since| (&mut since.must, &mut since.may));
        std::iter::once((&mut self.must, &mut self.may)).chain(since)
    }

    /// A range may have become dirty.
    pub fn announce(&mut self, offset_bytes: u64, length_bytes: u64) {
        for (_, may) in self.recorded_in() {
            may.touch(offset_bytes, length_bytes);
        }
    }

    /// A write that was let through.
    fn require(&mut self, offset_bytes: u64, length_bytes: u64) {
        for (must, _) in self.recorded_in() {
            must.touch(offset_bytes, length_bytes);
        }
    }

    fn touch(&mut self, flight: &Flight) {
        touch(&mut self.must, &mut self.may, flight);
    }

    fn resize(&mut self, image_bytes: u64) {
        let marks = |marks: &mut Marks| {
            marks.must = marks.must.resized(image_bytes);
            marks.may = marks.may.resized(image_bytes);
        };
        self.must = self.must.resized(image_bytes);
        self.may = self.may.resized(image_bytes);
        if let Some(frozen) = &mut self.frozen {
            marks(&mut frozen.view);
            marks(&mut frozen.since);
        }
    }

    /// It must never be trusted again.
    pub fn give_up(&mut self) {
        self.inconsistent = true;
        self.recording = false;
        self.frozen = None;
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

    /// The same as reading shows it: of frozen bitmaps the frozen view.
    #[must_use]
    pub fn as_read(&self) -> Self {
        let mut new = self.clone();
        for bitmap in new.bitmaps.values_mut() {
            if let Some(frozen) = &bitmap.frozen {
                bitmap.must = frozen.view.must.clone();
                bitmap.may = frozen.view.may.clone();
            }
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
            bitmap.announce(offset_bytes, length_bytes);
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
            frozen: None,
        };
        if recording {
            flights.iter().for_each(|flight| bitmap.touch(flight));
        }
        self.bitmaps.insert(name.to_owned(), bitmap);
    }

    /// A bitmap is about to begin to record: its file gets what is in flight before the descriptor says that it records.
    pub fn announce_recording(&mut self, name: &str, flights: &[Flight]) {
        if let Some(bitmap) = self.usable(name)
            && !bitmap.recording
        {
            let mut required = bitmap.must.clone();
            for flight in flights {
                touch(&mut required, &mut bitmap.may, flight);
            }
        }
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

    /// Why a change among several cannot be made. None of them is in the way of another.
    pub fn refusal(&self, change: &BitmapChange<'_>) -> Option<ErrorKind> {
        let refused = |name: &str, is_there: bool| match (self.is_frozen(name), is_there) {
            (true, _) => Some(ErrorKind::Busy),
            (false, true) => None,
            (false, false) => Some(ErrorKind::NotFound),
        };
        let bitmap = |name: &str| self.bitmaps.get(name);
        match *change {
            BitmapChange::Add { name, .. } => bitmap(name).map(|_| ErrorKind::Exists),
            BitmapChange::Remove { name } => refused(name, bitmap(name).is_some()),
            BitmapChange::SetRecording { name, .. } => {
                let is_usable = bitmap(name).is_some_and(|bitmap| !bitmap.inconsistent);
                refused(name, is_usable)
            }
            _ => unreachable!("{change:?}"),
        }
    }

    /// One of several changes.
    pub fn change(&mut self, change: &BitmapChange<'_>, flights: &[Flight]) {
        match *change {
            BitmapChange::Add {
                name,
                granularity_bytes,
                recording,
                all_dirty,
            } => self.add(name, granularity_bytes, recording, all_dirty, flights),
            BitmapChange::Remove { name } => drop(self.bitmaps.remove(name)),
            BitmapChange::SetRecording { name, recording } => {
                self.set_recording(name, recording, flights);
            }
            _ => unreachable!("{change:?}"),
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
            bitmap.require(offset_bytes, length_bytes);
            bitmap.announce(offset_bytes, length_bytes);
        }
    }

    /// Nothing can be trusted any more (I2).
    pub fn give_up_all(&mut self) {
        self.bitmaps.values_mut().for_each(Bitmap::give_up);
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
            bitmap.recorded_in().for_each(|(_, may)| may.merge(bits));
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
                for (must, may) in bitmap.recorded_in() {
                    must.merge(&required);
                    may.merge(bits);
                }
            }
        }
    }

    /// Whether a bitmap is between freeze and commit or abort.
    pub fn is_frozen(&self, name: &str) -> bool {
        let bitmap = self.bitmaps.get(name);
        bitmap.is_some_and(|bitmap| bitmap.frozen.is_some())
    }

    /// What a bitmap says is kept to be copied.
    pub fn freeze(&mut self, name: &str, flights: &[Flight]) {
        let extent_bytes = self.extent_bytes();
        if let Some(bitmap) = self.usable(name) {
            let mut since = Marks::none(bitmap.granularity_bytes, extent_bytes);
            for flight in flights.iter().filter(|_| bitmap.recording) {
                touch(&mut since.must, &mut since.may, flight);
            }
            bitmap.frozen = Some(Frozen {
                view: Marks {
                    must: bitmap.must.clone(),
                    may: bitmap.may.clone(),
                },
                since,
            });
        }
    }

    /// What was frozen before `offset_bytes` is copied: what is left is the rest, and what was dirtied since.
    pub fn checkpoint(&mut self, name: &str, offset_bytes: u64, flights: &[Flight]) {
        let size_bytes = self.size_bytes;
        if let Some(bitmap) = self.usable(name)
            && let Some(frozen) = &mut bitmap.frozen
        {
            let first = match offset_bytes < size_bytes {
                true => offset_bytes / bitmap.granularity_bytes,
                // An announced tail is no part of the disk yet.
                false => size_bytes.div_ceil(bitmap.granularity_bytes),
            };
            frozen.view = frozen.view.rest(first);
            let mut left = frozen.view.clone();
            left.merge(&frozen.since);
            (bitmap.must, bitmap.may) = (left.must, left.may);
            if bitmap.recording {
                flights.iter().for_each(|flight| bitmap.touch(flight));
            }
        }
    }

    /// It is no longer frozen.
    pub fn unfreeze(&mut self, name: &str) {
        if let Some(bitmap) = self.bitmaps.get_mut(name) {
            bitmap.frozen = None;
        }
    }

    /// A resize was announced; it may not happen. The tail may be dirty, and with it the granule that holds the old end.
    pub fn announce_resize(&mut self, to_bytes: u64, early: bool) {
        let old_bytes = self.size_bytes;
        self.resize = Some(Resize { to_bytes, early });
        let extent_bytes = self.extent_bytes();
        for bitmap in self.bitmaps.values_mut() {
            bitmap.resize(extent_bytes);
            if bitmap.is_recording() {
                bitmap.announce(old_bytes, extent_bytes - old_bytes);
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
            bitmap.resize(size_bytes);
        }
        if size_bytes > self.size_bytes {
            new.let_through(self.size_bytes, size_bytes - self.size_bytes);
        }
        new
    }
}
