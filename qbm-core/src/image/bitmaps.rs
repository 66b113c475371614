// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bitmaps of an image: list, add, remove, their bits.

use std::ffi::OsStr;
use std::sync::Arc;

use super::operations::check_room;
use super::{Active, DataPath, Image, Pending, State, is_derived_bitmap_name, names};
use crate::bits::Granularity;
use crate::caps;
use crate::check::is_bitmap_length;
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

/// The loaded bitmap of a name.
fn active_recorder(state: &State, name: &str) -> Option<Arc<Recorder>> {
    let active = state.active.as_ref()?;
    active.recorder(name).cloned()
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
    /// [`ErrorKind::NotFound`] when no bitmap of that name is loaded.
    pub fn dirty_count(&self, name: &str) -> Result<u64> {
        Ok(self.viewed(name)?.count())
    }

    /// Whether [`add_bitmap`](Self::add_bitmap) would succeed, as far as names and caps go.
    ///
    /// # Errors
    /// As `add_bitmap`, less the file system's.
    pub fn can_add_bitmap(&self, name: &str, granularity_bytes: u64) -> Result<()> {
        let state = self.lock();
        let granularity = self.check_addable(&state, name, granularity_bytes)?;
        let mut descriptor = state.descriptor.clone();
        let file = names::longest_bitmap_file(&self.path, name)?;
        let entry = BitmapEntry::new(name.to_owned(), file, granularity, true);
        descriptor.bitmaps.push(entry);
        check_room(&descriptor)
    }

    fn check_addable(
        &self,
        state: &State,
        name: &str,
        granularity_bytes: u64,
    ) -> Result<Granularity> {
        caps::check_bitmap_name(name)?;
        let granularity = Granularity::new(granularity_bytes)
            .map_err(|error| error.within(format_args!("bitmap {}: granularity", quoted(name))))?;
        let active = self.writable(state)?;
        caps::bits_count(active.bitmap_size_bytes(), granularity_bytes)
            .map_err(|error| error.within(format_args!("bitmap {}", quoted(name))))?;
        if state.descriptor.has_name(name) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("bitmap {} exists already", quoted(name)),
            ));
        }
        if state.descriptor.names_count() >= caps::BITMAPS_MAX {
            return Err(Error::new(
                ErrorKind::TooBig,
                format!(
                    "the image has {} bitmaps already, the most there can be",
                    caps::BITMAPS_MAX
                ),
            ));
        }
        Ok(granularity)
    }

    pub(super) fn writable<'a>(&self, state: &'a State) -> Result<&'a Active> {
        state
            .active
            .as_ref()
            .filter(|active| !active.read_only)
            .ok_or_else(|| self.not_writable())
    }

    /// Adds an empty bitmap. When this returns it is on disk and, if `recording`, no later write can miss it; writes in
    /// flight are included. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`], [`ErrorKind::NameTooLong`], [`ErrorKind::Invalid`] (granularity, empty name),
    /// [`ErrorKind::TooBig`] (caps), [`ErrorKind::ReadOnly`]; whatever the system says. Nothing has changed then.
    pub fn add_bitmap(&self, name: &str, granularity_bytes: u64, recording: bool) -> Result<()> {
        self.add(name, granularity_bytes, recording, false)
    }

    /// As [`add_bitmap`](Self::add_bitmap), with every bit set: for a bitmap whose bits are about to be stored. A crash
    /// before that over-reports; had it been empty, it would claim that nothing changed.
    ///
    /// # Errors
    /// As `add_bitmap`.
    pub fn add_dirty_bitmap(
        &self,
        name: &str,
        granularity_bytes: u64,
        recording: bool,
    ) -> Result<()> {
        self.add(name, granularity_bytes, recording, true)
    }

    fn add(
        &self,
        name: &str,
        granularity_bytes: u64,
        recording: bool,
        all_dirty: bool,
    ) -> Result<()> {
        let mut state = self.lock();
        let granularity = self.check_addable(&state, name, granularity_bytes)?;
        let active = self.writable(&state)?;
        let bits_count = caps::bits_count(active.bitmap_size_bytes(), granularity_bytes)?;
        let durability = active.durability;
        let made = names::create_beside(&*self.storage, &self.path, Some(name), "bitmap")?;
        let created = Recorder::create(&made.path, made.file, granularity, bits_count, durability);
        let filled = created.and_then(|recorder| {
            if all_dirty {
                recorder.set_all()?;
            }
            Ok(Arc::new(recorder))
        });
        let recorder = match filled {
            Ok(recorder) => recorder,
            Err(error) => {
                // The error that led here is the one to tell.
                let _ = self.storage.remove(&made.path);
                return Err(error);
            }
        };
        let mut descriptor = state.descriptor.clone();
        let entry = BitmapEntry::new(name.to_owned(), made.name.clone(), granularity, recording);
        descriptor.bitmaps.push(entry);
        if let Err(error) = check_room(&descriptor) {
            let _ = self.storage.remove(&made.path);
            return Err(error);
        }
        // Recording comes before being on record: a bitmap that a crash leaves behind has missed nothing.
        let pending = Pending {
            name: name.to_owned(),
            recorder: Some(Arc::clone(&recorder)),
            recording,
            file: Some(made.name),
        };
        self.commit_pending(&mut state, descriptor, pending)?;
        if let Some(active) = &mut state.active {
            active.loaded.push((name.to_owned(), recorder));
        }
        self.publish(&state);
        Ok(())
    }

    /// Removes a bitmap, consistent or not, and its file. The descriptor no longer has it, durably, when this returns.
    ///
    /// A file that another entry names too, or that may be somebody else's, is left, and a [notice](Self::take_notice) says
    /// so: one that is not directly in the descriptor's directory; one whose name we would not have given, unless it ends in
    /// `.bitmap` and has a bitmap's length.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::ReadOnly`], [`ErrorKind::Busy`]; whatever the system says.
    pub fn remove_bitmap(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        self.writable(&state)?;
        state.check_not_frozen(name)?;
        let mut descriptor = state.descriptor.clone();
        let Some(file) = descriptor.remove(name) else {
            return Err(self.no_such_bitmap(&state, name));
        };
        let is_shared = file
            .as_ref()
            .is_some_and(|file| descriptor.names_file(file));
        self.commit(&mut state, descriptor)?;
        if let Some(active) = &mut state.active {
            active.unload(name);
        }
        self.publish(&state);
        if let Some(file) = file {
            self.remove_file(&mut state, &file, is_shared);
        }
        Ok(())
    }

    /// I6, and a descriptor is untrusted: only a bitmap's own file beside the descriptor may go.
    pub(super) fn remove_file(&self, state: &mut State, file: &str, is_shared: bool) {
        let path = self.resolve(file);
        let Ok(metadata) = self.storage.metadata(&path) else {
            return;
        };
        let given = state.active.as_ref().map(|active| &active.data_path);
        let given = given.unwrap_or(&DataPath::Stored);
        let is_data = self
            .data_files(&state.descriptor, given)
            .contains(&metadata.id);
        let is_descriptor = state.file.id().map_or(true, |id| id == metadata.id);
        let is_own = metadata.is_regular && !is_data && !is_descriptor && !is_shared;
        // A name that we would have given is enough; another one may have been given by whoever wrote the descriptor, and
        // lead to anything.
        let own_name = self.path.file_name().and_then(OsStr::to_str);
        let is_derived = own_name.is_some_and(|own| is_derived_bitmap_name(own, file));
        let size_bytes = state.active.as_ref().map(|active| active.size_bytes);
        let has_length =
            size_bytes.is_some_and(|size| is_bitmap_length(metadata.length_bytes, size));
        let is_like_one =
            names::is_beside(file) && file.ends_with(names::BITMAP_SUFFIX) && has_length;
        if is_own && (is_derived || is_like_one) && self.storage.remove(&path).is_ok() {
            return;
        }
        self.notice(state, &format!("file {} is left behind", quoted(file)));
    }

    /// Turns recording on or off; durable when this returns. Turned on, no later write can miss the bitmap.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::ReadOnly`], [`ErrorKind::Busy`]; whatever
    /// the system says.
    pub fn set_recording(&self, name: &str, recording: bool) -> Result<()> {
        let mut state = self.lock();
        self.writable(&state)?;
        state.check_not_frozen(name)?;
        let mut descriptor = state.descriptor.clone();
        let entry = descriptor
            .bitmap_mut(name)
            .ok_or_else(|| self.no_such_bitmap(&state, name))?;
        if entry.recording == recording {
            return Ok(());
        }
        entry.recording = recording;
        let pending = Pending {
            name: name.to_owned(),
            recorder: active_recorder(&state, name),
            recording,
            file: None,
        };
        self.commit_pending(&mut state, descriptor, pending)?;
        self.publish(&state);
        Ok(())
    }

    /// Gives a bitmap up, durably: it can only be removed from now on. A frozen one is no longer frozen. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::ReadOnly`]; whatever the system says.
    pub fn set_inconsistent(&self, name: &str, reason: &str) -> Result<()> {
        let mut state = self.lock();
        self.writable(&state)?;
        if state.descriptor.bitmap(name).is_none() {
            return Err(self.no_such_bitmap(&state, name));
        }
        self.retire(&mut state, name, reason)
    }

    /// What reading shows of a loaded bitmap: while it is frozen, its frozen view.
    pub(super) fn viewed(&self, name: &str) -> Result<Arc<Recorder>> {
        let state = self.lock();
        let snapshot = state.frozen(name).map(|frozen| &frozen.snapshot);
        let viewed = snapshot.cloned().or_else(|| active_recorder(&state, name));
        viewed.ok_or_else(|| self.no_such_bitmap(&state, name))
    }

    /// A loaded bitmap of an image that is open for writing.
    pub(super) fn loaded_in(&self, state: &State, name: &str) -> Result<Arc<Recorder>> {
        self.writable(state)?;
        active_recorder(state, name).ok_or_else(|| self.no_such_bitmap(state, name))
    }

    /// Offset in bytes of the first dirty granule at or after the one that holds `offset_bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no bitmap of that name is loaded.
    pub fn next_dirty(&self, name: &str, offset_bytes: u64) -> Result<Option<u64>> {
        Ok(self.viewed(name)?.next_dirty(offset_bytes))
    }

    /// Copies the bits of a byte range into `bits`, laid out as in the bitmap file.
    ///
    /// `offset_bytes` is a multiple of 64 granules; so is `length_bytes`, unless the range reaches the end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for a range that is not aligned or a buffer that is too small.
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
    /// As `load_bits`, [`ErrorKind::ReadOnly`], [`ErrorKind::Busy`], and whatever the system says; the file then holds old
    /// bits, new bits, or a mixture.
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
