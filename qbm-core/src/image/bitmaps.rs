// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bitmaps of an image: what there is of them, their bits.

use std::sync::Arc;

use super::{Active, Image, State};
use crate::descriptor::{BitmapEntry, InconsistentEntry};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::tracking::Recorder;

/// One bitmap as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BitmapInfo {
    /// Its name; of an entry that breaks the rules, whatever stands there.
    pub name: String,
    /// Bytes of the disk that one bit covers; 0 when an inconsistent bitmap's entry has no valid one.
    pub granularity_bytes: u64,
    /// Guest writes set bits.
    pub recording: bool,
    /// Part of a session: open here or elsewhere, or left by a crash that nobody has recovered from.
    pub in_use: bool,
    /// Usable for nothing but removal.
    pub inconsistent: bool,
    /// Between [`Image::freeze_bitmap`] and [`Image::commit_bitmap`] or [`Image::abort_bitmap`].
    pub frozen: bool,
}

impl State {
    /// The loaded bitmap of a name.
    pub(super) fn recorder(&self, name: &str) -> Option<Arc<Recorder>> {
        let active = self.active.as_ref()?;
        active.recorder(name).cloned()
    }

    fn describe(&self, entry: &BitmapEntry) -> BitmapInfo {
        // What a read-only activation could load, it has judged: nobody else is in that session any more.
        let is_recovered = self
            .active
            .as_ref()
            .is_some_and(|active| active.read_only && active.recorder(&entry.name).is_some());
        BitmapInfo {
            name: entry.name.clone(),
            granularity_bytes: entry.granularity.bytes(),
            recording: entry.recording,
            in_use: self.descriptor.session.is_some() && !is_recovered,
            inconsistent: false,
            frozen: self.frozen(&entry.name).is_some(),
        }
    }
}

fn describe_inconsistent(entry: &InconsistentEntry) -> BitmapInfo {
    BitmapInfo {
        name: entry.name.clone(),
        granularity_bytes: entry.granularity_bytes().unwrap_or(0),
        recording: false,
        in_use: false,
        inconsistent: true,
        frozen: false,
    }
}

impl Image {
    /// All bitmaps: the consistent ones in the descriptor's order, then the inconsistent ones.
    pub fn bitmaps(&self) -> Vec<BitmapInfo> {
        let state = self.lock();
        let consistent = state.descriptor.bitmaps.iter();
        let inconsistent = state.descriptor.inconsistent.iter();
        consistent
            .map(|entry| state.describe(entry))
            .chain(inconsistent.map(describe_inconsistent))
            .collect()
    }

    /// The bitmap at `index` of [`bitmaps`](Self::bitmaps).
    pub fn bitmap_at(&self, index: usize) -> Option<BitmapInfo> {
        let state = self.lock();
        let consistent = &state.descriptor.bitmaps;
        match consistent.get(index) {
            Some(entry) => Some(state.describe(entry)),
            None => {
                let index = index.checked_sub(consistent.len())?;
                let entry = state.descriptor.inconsistent.get(index)?;
                Some(describe_inconsistent(entry))
            }
        }
    }

    /// The bitmap of a name.
    pub fn bitmap(&self, name: &str) -> Option<BitmapInfo> {
        let state = self.lock();
        let inconsistent = &state.descriptor.inconsistent;
        match state.descriptor.bitmap(name) {
            Some(entry) => Some(state.describe(entry)),
            None => {
                let entry = inconsistent.iter().find(|entry| entry.name == name)?;
                Some(describe_inconsistent(entry))
            }
        }
    }

    /// Dirty granules of a bitmap; while it is [frozen](Self::freeze_bitmap), of its frozen view. So it is with all
    /// that reads bits.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when no bitmap of that name is loaded.
    pub fn dirty_count(&self, name: &str) -> Result<u64> {
        Ok(self.viewed(name)?.count())
    }

    pub(super) fn writable<'a>(&self, state: &'a State) -> Result<&'a Active> {
        state
            .active
            .as_ref()
            .filter(|active| !active.read_only)
            .ok_or_else(|| self.not_writable())
    }

    /// Gives a bitmap up, durably: it can only be removed from now on. A frozen one is no longer frozen. Waits for the disk.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`ReadOnly`](crate::ErrorKind::ReadOnly); whatever the system says.
    pub fn set_inconsistent(&self, name: &str, reason: &str) -> Result<()> {
        let mut state = self.lock();
        self.writable(&state)?;
        if state.descriptor.bitmap(name).is_none() {
            return Err(self.no_such_bitmap(&state, name));
        }
        self.retire(&mut state, name, reason)
    }

    /// What reading shows of a loaded bitmap: while it is frozen, its frozen view. One that has missed something is not
    /// shown, also where that could not be put on disk yet (I2).
    pub(super) fn viewed(&self, name: &str) -> Result<Arc<Recorder>> {
        let state = self.lock();
        if let Some(frozen) = state.frozen(name) {
            return Ok(Arc::clone(&frozen.snapshot));
        }
        match state.recorder(name) {
            Some(recorder) if recorder.has_failed() => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "bitmap {} is lost: a write could not be recorded in the bitmap file",
                    quoted(name)
                ),
            )),
            Some(recorder) => Ok(recorder),
            None => Err(self.no_such_bitmap(&state, name)),
        }
    }

    /// A loaded bitmap of an image that is open for writing.
    pub(super) fn loaded_in(&self, state: &State, name: &str) -> Result<Arc<Recorder>> {
        self.writable(state)?;
        state
            .recorder(name)
            .ok_or_else(|| self.no_such_bitmap(state, name))
    }

    /// Offset in bytes of the first dirty granule at or after the one that holds `offset_bytes`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when no bitmap of that name is loaded.
    pub fn next_dirty(&self, name: &str, offset_bytes: u64) -> Result<Option<u64>> {
        Ok(self.viewed(name)?.next_dirty(offset_bytes))
    }

    /// Copies the bits of a byte range into `bits`, laid out as in the bitmap file.
    ///
    /// `offset_bytes` is a multiple of 64 granules; so is `length_bytes`, unless the range reaches the end.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Invalid`](crate::ErrorKind::Invalid) for a range that is not aligned or a
    /// buffer that is too small.
    pub fn load_bits(
        &self,
        name: &str,
        offset_bytes: u64,
        length_bytes: u64,
        bits: &mut [u8],
    ) -> Result<()> {
        self.viewed(name)?
            .load_bits(offset_bytes, length_bytes, bits)
    }

    /// Makes the bits of a byte range (aligned as for [`load_bits`](Self::load_bits)) what `bits` says; `None`: zero.
    /// Page cache only.
    ///
    /// Bits may go from 1 to 0 here, so the caller sees to it that no write is in flight.
    ///
    /// # Errors
    /// As `load_bits`, [`ReadOnly`](crate::ErrorKind::ReadOnly), [`Busy`](crate::ErrorKind::Busy), and whatever the system
    /// says; the file then holds old bits, new bits, or a mixture.
    pub fn store_bits(
        &self,
        name: &str,
        offset_bytes: u64,
        length_bytes: u64,
        bits: Option<&[u8]>,
    ) -> Result<()> {
        // Under the lock: no other operation replaces the bitmap meanwhile.
        let mut state = self.lock();
        let recorder = self.loaded_in(&state, name)?;
        state.check_not_frozen(name)?;
        recorder.store_bits(offset_bytes, length_bytes, bits)?;
        match bits {
            Some(bits) => self.merge_pending(&mut state, name, offset_bytes, length_bytes, bits),
            None => Ok(()),
        }
    }

    /// Adds bits to a byte range (aligned as for [`load_bits`](Self::load_bits)). Safe beside writes in flight. Page
    /// cache only. To a frozen bitmap they come as later ones.
    ///
    /// # Errors
    /// As `store_bits`, less `Busy`.
    pub fn merge_bits(
        &self,
        name: &str,
        offset_bytes: u64,
        length_bytes: u64,
        bits: &[u8],
    ) -> Result<()> {
        let mut state = self.lock();
        let recorder = self.loaded_in(&state, name)?;
        recorder.merge_bits(offset_bytes, length_bytes, bits)?;
        if let Some(frozen) = state.frozen(name) {
            frozen.since.merge_bits(offset_bytes, length_bytes, bits)?;
        }
        self.merge_pending(&mut state, name, offset_bytes, length_bytes, bits)
    }

    /// Bits that were put into a bitmap, put also where a crash may find it; granularities may differ.
    fn merge_pending(
        &self,
        state: &mut State,
        name: &str,
        offset_bytes: u64,
        length_bytes: u64,
        bits: &[u8],
    ) -> Result<()> {
        if state.pending.iter().all(|pending| pending.name != name) {
            return Ok(());
        }
        let given = self.loaded_in(state, name)?.empty_in_memory();
        given.merge_bits(offset_bytes, length_bytes, bits)?;
        self.mark_pending(state, name, |pending| pending.record_all_of(&given))
    }
}
