// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps come and go and begin or cease to record: one, or several with one change of the descriptor.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::operations::check_room;
use super::{DataPath, Image, Pending, State, is_derived_bitmap_name, names};
use crate::bits::Granularity;
use crate::caps;
use crate::check::is_bitmap_length;
use crate::descriptor::{BitmapEntry, Descriptor};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::sabotage::sabotaged;
use crate::tracking::Recorder;

/// One of the changes that [`Image::change_bitmaps`] makes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BitmapChange<'a> {
    /// As [`Image::add_bitmap`] does, or [`Image::add_dirty_bitmap`].
    Add {
        /// 1 to [`caps::BITMAP_NAME_BYTES_MAX`] bytes.
        name: &'a str,
        /// A power of two.
        granularity_bytes: u64,
        /// Guest writes set bits.
        recording: bool,
        /// Begins with every bit set.
        all_dirty: bool,
    },
    /// As [`Image::remove_bitmap`] does.
    Remove {
        /// Of a bitmap, consistent or not.
        name: &'a str,
    },
    /// As [`Image::set_recording`] does.
    SetRecording {
        /// Of a consistent bitmap.
        name: &'a str,
        /// Guest writes set bits.
        recording: bool,
    },
}

impl BitmapChange<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Add { name, .. } | Self::Remove { name } | Self::SetRecording { name, .. } => {
                name
            }
        }
    }
}

/// What changes will come to, made ready as far as nobody can see it.
struct Plan {
    descriptor: Descriptor,
    is_changed: bool,
    pending: Vec<Pending>,
    added: Vec<(String, Arc<Recorder>)>,
    /// The files of those.
    made: Vec<PathBuf>,
    /// Names, and files where there are any.
    removed: Vec<(String, Option<String>)>,
}

impl Plan {
    fn new(descriptor: &Descriptor) -> Self {
        Self {
            descriptor: descriptor.clone(),
            is_changed: false,
            pending: Vec::new(),
            added: Vec::new(),
            made: Vec::new(),
            removed: Vec::new(),
        }
    }
}

fn check_named_once(changes: &[BitmapChange<'_>]) -> Result<()> {
    let mut names = HashSet::new();
    match changes.iter().find(|change| !names.insert(change.name())) {
        None => Ok(()),
        Some(change) => Err(Error::invalid(format!(
            "bitmap {} is to be changed twice at once",
            quoted(change.name())
        ))),
    }
}

impl Image {
    /// Whether [`add_bitmap`](Self::add_bitmap) would succeed, as far as names and caps go.
    ///
    /// # Errors
    /// As `add_bitmap`, less the file system's.
    pub fn can_add_bitmap(&self, name: &str, granularity_bytes: u64) -> Result<()> {
        let state = self.lock();
        let granularity = self.check_addable(&state, &state.descriptor, name, granularity_bytes)?;
        let mut descriptor = state.descriptor.clone();
        let file = names::longest_bitmap_file(&self.path, name)?;
        let entry = BitmapEntry::new(name.to_owned(), file, granularity, true);
        descriptor.bitmaps.push(entry);
        check_room(&descriptor)
    }

    fn check_addable(
        &self,
        state: &State,
        descriptor: &Descriptor,
        name: &str,
        granularity_bytes: u64,
    ) -> Result<Granularity> {
        caps::check_bitmap_name(name)?;
        let granularity = Granularity::new(granularity_bytes)
            .map_err(|error| error.within(format_args!("bitmap {}: granularity", quoted(name))))?;
        let active = self.writable(state)?;
        caps::bits_count(active.bitmap_size_bytes(), granularity_bytes)
            .map_err(|error| error.within(format_args!("bitmap {}", quoted(name))))?;
        if descriptor.has_name(name) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("bitmap {} exists already", quoted(name)),
            ));
        }
        if descriptor.names_count() >= caps::BITMAPS_MAX {
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

    /// Adds an empty bitmap. When this returns it is on disk and, if `recording`, no later write can miss it; writes in
    /// flight are included. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`], [`ErrorKind::NameTooLong`], [`ErrorKind::Invalid`] (granularity, empty name),
    /// [`ErrorKind::TooBig`] (caps), [`ErrorKind::ReadOnly`]; whatever the system says. Nothing has changed then.
    pub fn add_bitmap(&self, name: &str, granularity_bytes: u64, recording: bool) -> Result<()> {
        self.change_bitmaps(&[BitmapChange::Add {
            name,
            granularity_bytes,
            recording,
            all_dirty: false,
        }])
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
        self.change_bitmaps(&[BitmapChange::Add {
            name,
            granularity_bytes,
            recording,
            all_dirty: true,
        }])
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
        self.change_bitmaps(&[BitmapChange::Remove { name }])
    }

    /// Turns recording on or off; durable when this returns. Turned on, no later write can miss the bitmap.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::ReadOnly`], [`ErrorKind::Busy`]; whatever
    /// the system says. If that concerns a write in flight, which the bitmap's file did not take, it is inconsistent.
    pub fn set_recording(&self, name: &str, recording: bool) -> Result<()> {
        self.change_bitmaps(&[BitmapChange::SetRecording { name, recording }])
    }

    /// Makes several changes with one replacement of the descriptor: all of them or, after an error or a crash, none. No
    /// bitmap may be named twice. Durable when this returns; waits for the disk about as long as for one change.
    ///
    /// # Errors
    /// As of the single changes, and [`ErrorKind::Invalid`] for a bitmap that is named twice. Nothing has changed then.
    pub fn change_bitmaps(&self, changes: &[BitmapChange<'_>]) -> Result<()> {
        if sabotaged!("several-changes-one-by-one") && changes.len() > 1 {
            let mut singly = changes.chunks(1);
            return singly.try_for_each(|change| self.change_bitmaps(change));
        }
        let mut state = self.lock();
        self.writable(&state)?;
        check_named_once(changes)?;
        let mut plan = Plan::new(&state.descriptor);
        if let Err(error) = self.plan_all(&state, &mut plan, changes) {
            for path in &plan.made {
                // The error that led here is the one to tell.
                let _ = self.storage.remove(path);
            }
            return Err(error);
        }
        if !plan.is_changed {
            return Ok(());
        }
        // Recording comes before being on record: a bitmap that a crash leaves behind has missed nothing.
        self.commit_pending(&mut state, plan.descriptor, plan.pending)?;
        if let Some(active) = &mut state.active {
            for (name, _) in &plan.removed {
                active.unload(name);
            }
            active.loaded.extend(plan.added);
        }
        self.publish(&state);
        let named: HashSet<String> = state.descriptor.files().into_iter().collect();
        for (_, file) in plan.removed {
            if let Some(file) = file {
                self.remove_file(&mut state, &file, named.contains(&file));
            }
        }
        Ok(())
    }

    fn plan_all(&self, state: &State, plan: &mut Plan, changes: &[BitmapChange<'_>]) -> Result<()> {
        for change in changes {
            match *change {
                BitmapChange::Add {
                    name,
                    granularity_bytes,
                    recording,
                    all_dirty,
                } => {
                    let granularity =
                        self.check_addable(state, &plan.descriptor, name, granularity_bytes)?;
                    self.plan_add(state, plan, name, granularity, recording, all_dirty)?;
                }
                BitmapChange::Remove { name } => self.plan_remove(state, plan, name)?,
                BitmapChange::SetRecording { name, recording } => {
                    self.plan_recording(state, plan, name, recording)?;
                }
            }
        }
        match plan.added.is_empty() {
            true => Ok(()),
            false => check_room(&plan.descriptor),
        }
    }

    fn plan_add(
        &self,
        state: &State,
        plan: &mut Plan,
        name: &str,
        granularity: Granularity,
        recording: bool,
        all_dirty: bool,
    ) -> Result<()> {
        let active = self.writable(state)?;
        let bits_count = caps::bits_count(active.bitmap_size_bytes(), granularity.bytes())?;
        let durability = active.durability;
        let made = names::create_beside(&*self.storage, &self.path, Some(name), "bitmap")?;
        plan.made.push(made.path.clone());
        let recorder =
            Recorder::create(&made.path, made.file, granularity, bits_count, durability)?;
        if all_dirty {
            recorder.set_all()?;
        }
        let recorder = Arc::new(recorder);
        let entry = BitmapEntry::new(name.to_owned(), made.name.clone(), granularity, recording);
        plan.descriptor.bitmaps.push(entry);
        plan.pending.push(Pending {
            name: name.to_owned(),
            recorder: Some(Arc::clone(&recorder)),
            recording,
            file: Some(made.name),
        });
        plan.added.push((name.to_owned(), recorder));
        plan.is_changed = true;
        Ok(())
    }

    fn plan_remove(&self, state: &State, plan: &mut Plan, name: &str) -> Result<()> {
        state.check_not_frozen(name)?;
        let file = plan.descriptor.remove(name);
        let file = file.ok_or_else(|| self.no_such_bitmap(state, name))?;
        plan.removed.push((name.to_owned(), file));
        plan.is_changed = true;
        Ok(())
    }

    fn plan_recording(
        &self,
        state: &State,
        plan: &mut Plan,
        name: &str,
        recording: bool,
    ) -> Result<()> {
        state.check_not_frozen(name)?;
        let entry = plan.descriptor.bitmap_mut(name);
        let entry = entry.ok_or_else(|| self.no_such_bitmap(state, name))?;
        if entry.recording == recording {
            return Ok(());
        }
        entry.recording = recording;
        plan.pending.push(Pending {
            name: name.to_owned(),
            recorder: state.recorder(name),
            recording,
            file: None,
        });
        plan.is_changed = true;
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
}
