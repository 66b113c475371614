// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image as a whole.
//!
//! Life of an [`Image`]: [`open`](Image::open) reads the descriptor only; [`activate`](Image::activate), told the data
//! image's size, recovers, loads the bitmaps and (for writing) begins a session; [`inactivate`](Image::inactivate) ends
//! it cleanly. Dropping an active image leaves the session on disk, as a crash does.

mod activate;
mod bitmaps;
mod changes;
mod create;
mod data_place;
mod defaults;
mod examine;
mod extents;
mod freeze;
mod load;
mod mend;
mod names;
mod operations;
mod recover;
mod replace;
mod resize;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use activate::{Activation, DataPath};
pub use bitmaps::BitmapInfo;
pub use changes::BitmapChange;
pub use create::{CreateOptions, Created};
pub(crate) use data_place::DataPlace;
pub use defaults::Defaults;
pub use extents::Extent;
pub(crate) use names::is_derived_bitmap_name;

use freeze::Frozen;

use crate::descriptor::{Descriptor, DescriptorFile, Durability, PersistBitmaps};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::sabotage::sabotaged;
use crate::storage::{Access, FileId, LockMode, Storage, Timestamp};
use crate::tracking::{Begun, Recorder, Ticket, Tracker};

/// Notices kept for the caller; older ones give way.
const NOTICES_MAX: usize = 256;

/// How a descriptor is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// No locks are taken: the caller holds QEMU's locks on the descriptor already.
    pub no_lock: bool,
    /// Others may have the image open, even for writing. Nothing is changed; with a session in the descriptor, bitmaps
    /// are reported in use. Implies `read_only`.
    pub shared: bool,
    /// The image will not be activated for writing.
    pub read_only: bool,
}

/// What an image is made of, and its state.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Data image, resolved against the descriptor's directory.
    pub data_file: PathBuf,
    /// QEMU's name of the data image's format.
    pub data_format: String,
    /// Size of the disk in bytes, as far as known: while active what was given, otherwise what was recorded last.
    pub size_bytes: Option<u64>,
    /// In force while active, otherwise stored.
    pub durability: Durability,
    /// What a session has whose opener says nothing.
    pub stored_durability: Durability,
    /// Which bitmaps are to be stored where the opener says nothing.
    pub persist_bitmaps: PersistBitmaps,
    /// A session that is not ours is on record: the image is open elsewhere, or its writer crashed.
    pub in_use: bool,
    /// Activated, and not inactivated since.
    pub active: bool,
    /// Active with a session of ours.
    pub writable: bool,
    /// Bitmaps, inconsistent ones included.
    pub bitmaps_count: usize,
    /// How many sessions that changed something have ended cleanly, as recorded.
    pub generation: u64,
    /// The activation found the image as the clean close before had left it. With the same `generation` as after an
    /// earlier close nobody has written to it since that one.
    pub continued: bool,
}

/// The sizes of the image that bitmap files may have been made for: the session's two.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    size_bytes: u64,
    resize_to_bytes: Option<u64>,
}

/// What an active image holds besides its descriptor.
#[derive(Debug)]
struct Active {
    size_bytes: u64,
    /// What the session says, or will say with the next change of the descriptor that succeeds.
    on_record: Sizes,
    durability: Durability,
    read_only: bool,
    data_path: DataPath,
    /// The file that it led to, if that is a regular one.
    data_id: Option<FileId>,
    /// The descriptor says something else than at the session's begin.
    changed: bool,
    /// The image was found as the clean close before had left it.
    continued: bool,
    /// Every consistent bitmap, recording or not, in the descriptor's order.
    loaded: Vec<(String, Arc<Recorder>)>,
    /// Those of them that are frozen.
    frozen: Vec<Frozen>,
}

impl Active {
    /// Nothing loaded yet, nothing to be written.
    fn read_only(size_bytes: u64, durability: Durability) -> Self {
        Self {
            size_bytes,
            on_record: Sizes {
                size_bytes,
                resize_to_bytes: None,
            },
            durability,
            read_only: true,
            data_path: DataPath::Unknown,
            data_id: None,
            changed: false,
            continued: false,
            loaded: Vec::new(),
            frozen: Vec::new(),
        }
    }

    /// The size that a bitmap is made for: of a resize under way the larger one, for the tail may be written before its end.
    fn bitmap_size_bytes(&self) -> u64 {
        let announced_bytes = self.on_record.resize_to_bytes.unwrap_or(0);
        self.size_bytes.max(announced_bytes)
    }

    fn recorder(&self, name: &str) -> Option<&Arc<Recorder>> {
        self.loaded
            .iter()
            .find(|(loaded, _)| loaded == name)
            .map(|(_, recorder)| recorder)
    }

    fn frozen(&self, name: &str) -> Option<&Frozen> {
        self.frozen.iter().find(|frozen| frozen.name == name)
    }

    fn unload(&mut self, name: &str) {
        self.loaded.retain(|(loaded, _)| loaded != name);
        self.unfreeze(name);
    }

    fn unfreeze(&mut self, name: &str) {
        self.frozen.retain(|frozen| frozen.name != name);
    }
}

#[derive(Debug)]
struct State {
    /// What the descriptor file says; changed only once the file holds the change.
    descriptor: Descriptor,
    file: DescriptorFile,
    active: Option<Active>,
    /// Bitmaps under which a change of the descriptor failed.
    pending: Vec<Pending>,
    notices: VecDeque<String>,
}

/// A bitmap as a text has it of which it is not known whether the disk has it: while it is written, and after that
/// failed, a crash may bring the old text back or the new one. Until a change succeeds it must miss no write either (I1).
#[derive(Debug)]
struct Pending {
    name: String,
    recorder: Option<Arc<Recorder>>,
    /// Guest writes set bits.
    recording: bool,
    /// Its own file, which goes if the bitmap does not come to be.
    file: Option<String>,
}

/// An open image. All of it may be used from several threads at once; after a panic in one of them, which is a bug, what
/// the others call panics too.
#[derive(Debug)]
pub struct Image {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    options: OpenOptions,
    /// Not only to be examined.
    is_for_use: bool,
    state: Mutex<State>,
    tracker: Tracker,
}

impl Image {
    /// Opens and checks a descriptor; nothing else is touched. Reads a few KiB.
    ///
    /// # Errors
    /// The descriptor cannot be read or breaks a rule of the format; [`ErrorKind::Locked`] when another process has the
    /// image open in a way that conflicts.
    pub fn open(storage: Arc<dyn Storage>, path: &Path, options: OpenOptions) -> Result<Self> {
        let mut image = Self::open_any(storage, path, options)?;
        image.is_for_use = true;
        image.check_supported(&image.lock().descriptor)?;
        Ok(image)
    }

    /// An image with an allocation bitmap can be examined, not used.
    fn check_supported(&self, descriptor: &Descriptor) -> Result<()> {
        match &descriptor.allocation {
            Some(allocation) if self.is_for_use => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "descriptor {}: bitmaps.{}.type: allocation bitmaps are not supported",
                    quoted(self.path.display()),
                    quoted(&allocation.name)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// As [`open`](Self::open), also what cannot be used: to be examined.
    pub(crate) fn open_any(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<Self> {
        let path = &locate(&*storage, path)?;
        let read_only = options.read_only || options.shared;
        let access = if read_only || options.no_lock {
            Access::Read
        } else {
            Access::ReadWrite
        };
        let file = DescriptorFile::open(&*storage, path, access)?;
        if !options.no_lock && !options.shared {
            file.lock(if read_only {
                LockMode::Read
            } else {
                LockMode::Write
            })?;
        }
        let descriptor = file.read(&*storage)?;
        let complaints = descriptor.complaints();
        let image = Self {
            storage,
            path: path.to_owned(),
            options,
            is_for_use: false,
            state: Mutex::new(State {
                descriptor,
                file,
                active: None,
                pending: Vec::new(),
                notices: VecDeque::new(),
            }),
            tracker: Tracker::new(),
        };
        for complaint in complaints {
            image.notice(&mut image.lock(), &complaint);
        }
        Ok(image)
    }

    /// Dropping it in this process will not give the lock back, which belongs to the one that forked it.
    pub fn leave_locked(&mut self) {
        let state = self.state.get_mut();
        state
            .unwrap_or_else(PoisonError::into_inner)
            .file
            .leave_locked();
    }

    /// What the image is made of.
    pub fn info(&self) -> ImageInfo {
        let state = self.lock();
        let descriptor = &state.descriptor;
        let active = state.active.as_ref();
        let data_file = self.resolve(&descriptor.image.file);
        let size_bytes = active
            .map(|active| active.size_bytes)
            .or(descriptor.recorded_bytes())
            // Beyond the cap it is no size of an image that could be opened.
            .filter(|bytes| crate::caps::round_image_size(*bytes).is_ok());
        // A descriptor as proposed records no size. A raw file's is its length; that can be seen without opening it.
        let size_bytes = size_bytes.or_else(|| {
            let metadata = self.storage.metadata(&data_file).ok()?;
            let is_raw_file = descriptor.image.format == "raw" && metadata.is_regular;
            let rounded = crate::caps::round_image_size(metadata.length_bytes).ok()?;
            is_raw_file.then_some(rounded)
        });
        let writable = self.tracker.is_writable();
        ImageInfo {
            data_file,
            data_format: descriptor.image.format.clone(),
            size_bytes,
            durability: active.map_or_else(
                || descriptor.durability.unwrap_or(Durability::DEFAULT),
                |active| active.durability,
            ),
            stored_durability: descriptor.durability.unwrap_or(Durability::DEFAULT),
            persist_bitmaps: descriptor
                .persist_bitmaps
                .unwrap_or(PersistBitmaps::DEFAULT),
            in_use: descriptor.session.is_some() && !writable,
            active: active.is_some(),
            writable,
            bitmaps_count: descriptor.names_count(),
            generation: descriptor.generation(),
            continued: active.is_some_and(|active| active.continued),
        }
    }

    /// The oldest line for the operator's log that was not taken yet: what recovery did, why a bitmap is inconsistent.
    pub fn take_notice(&self) -> Option<String> {
        self.lock().notices.pop_front()
    }

    /// Announces that `length_bytes` at `offset_bytes` of the data image are about to change (write, zeroes, discard,
    /// copy). Ranges are rounded outwards, and cut at the end of the disk: what grows it is announced by
    /// [`begin_resize`](Self::begin_resize). Writes to the page cache at most; never waits for a disk.
    ///
    /// Every success is followed by one [`end_write`](Self::end_write), after the data moved or failed to.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] when the image is not active for writing.
    pub fn begin_write(&self, offset_bytes: u64, length_bytes: u64) -> Result<(Ticket, Begun)> {
        self.tracker
            .begin(offset_bytes, length_bytes)
            .ok_or_else(|| self.not_writable())
    }

    /// What [`Begun::MustWait`] asks for: a bitmap that could not record the write is made inconsistent on disk, so that
    /// the write may go ahead (I1, I2). Waits for the disk.
    ///
    /// # Errors
    /// Even that failed: the write must not reach the data image.
    pub fn wait_write(&self) -> Result<()> {
        let mut state = self.lock();
        let failed = self.tracker.failed();
        let names: Vec<String> = state
            .active
            .iter()
            .flat_map(|active| &active.loaded)
            .filter(|(_, recorder)| failed.iter().any(|other| Arc::ptr_eq(other, recorder)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.retire(
                &mut state,
                &name,
                "a write could not be recorded in the bitmap file",
            )?;
        }
        let pending = state.pending.iter();
        let mut recorders = pending.filter_map(|pending| pending.recorder.as_ref());
        if recorders.any(|recorder| recorder.has_failed()) {
            // Whichever text the disk has, after this it is ours, and without that bitmap.
            let descriptor = state.descriptor.clone();
            self.commit(&mut state, descriptor)?;
            self.publish(&state);
        }
        Ok(())
    }

    /// Ends what [`begin_write`](Self::begin_write) began.
    pub fn end_write(&self, ticket: Ticket) {
        self.tracker.end(ticket);
    }

    fn boot_id(&self) -> Result<String> {
        let boot_id = self.storage.boot_id();
        boot_id.map_err(|error| Error::io("cannot read the host's boot id for", &self.path, error))
    }

    /// # Panics
    /// Another thread has panicked in the middle of a change: nobody goes on with what it left.
    #[expect(clippy::expect_used, reason = "there is nothing sound to go on with")]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation has panicked")
    }

    /// A file name in the descriptor, as a path.
    fn resolve(&self, file: &str) -> PathBuf {
        names::resolve(&self.path, file)
    }

    /// The files that a descriptor names, as far as they are there.
    fn file_ids(&self, files: impl IntoIterator<Item = String>) -> impl Iterator<Item = FileId> {
        let found = files
            .into_iter()
            .map(|file| self.storage.metadata(&self.resolve(&file)));
        found.flatten().map(|metadata| metadata.id)
    }

    fn notice_inconsistent(&self, state: &mut State, name: &str, reason: &str) {
        self.notice(
            state,
            &format!("bitmap {} is inconsistent: {reason}", quoted(name)),
        );
    }

    fn notice(&self, state: &mut State, text: &str) {
        if state.notices.len() == NOTICES_MAX {
            state.notices.pop_front();
        }
        let line = format!("descriptor {}: {text}", quoted(self.path.display()));
        state.notices.push_back(line);
    }

    pub(crate) fn not_writable(&self) -> Error {
        Error::new(
            ErrorKind::ReadOnly,
            format!(
                "descriptor {}: the image is not active for writing",
                quoted(self.path.display())
            ),
        )
    }

    fn not_for_writing(&self) -> Error {
        Error::new(
            ErrorKind::ReadOnly,
            format!(
                "descriptor {}: the image is open for reading only",
                quoted(self.path.display())
            ),
        )
    }

    fn no_such_bitmap(&self, state: &State, name: &str) -> Error {
        let descriptor = &state.descriptor;
        let bitmap = quoted(name);
        let text = if descriptor
            .inconsistent
            .iter()
            .any(|entry| entry.name == name)
        {
            format!("bitmap {bitmap} is inconsistent: it can only be removed")
        } else if descriptor.bitmap(name).is_none() {
            format!("no bitmap {bitmap}")
        } else if state.active.is_none() {
            format!("bitmap {bitmap} is not loaded: the image is not active")
        } else {
            format!("bitmap {bitmap} is not loaded: it is in use elsewhere")
        };
        let path = quoted(self.path.display());
        Error::new(ErrorKind::NotFound, format!("descriptor {path}: {text}"))
    }

    /// Stores a changed descriptor; what is in memory changes only when that worked.
    fn commit(&self, state: &mut State, mut descriptor: Descriptor) -> Result<()> {
        if let (Some(session), Some(active)) = (&mut descriptor.session, &state.active) {
            session.size_bytes = active.on_record.size_bytes;
            session.resize_to_bytes = active.on_record.resize_to_bytes;
        }
        state.file.write(&*self.storage, &descriptor)?;
        state.descriptor = descriptor;
        // Now they are listed.
        state.descriptor.invalid.clear();
        if let Some(active) = &mut state.active {
            active.changed = true;
        }
        // Now the disk has this text and no other.
        for pending in std::mem::take(&mut state.pending) {
            let file = pending
                .file
                .filter(|file| !state.descriptor.names_file(file));
            if let Some(file) = file {
                // Where it cannot be removed it is an orphan, which `check` finds.
                let _ = self.storage.remove(&self.resolve(&file));
            }
        }
        Ok(())
    }

    /// Stores a descriptor in which bitmaps are others than before. Those that record do so before the text that says so is
    /// on disk.
    fn commit_pending(
        &self,
        state: &mut State,
        descriptor: Descriptor,
        pending: Vec<Pending>,
    ) -> Result<()> {
        if sabotaged!("named-before-it-records") {
            self.commit(state, descriptor.clone())?;
        }
        let known_count = state.pending.len();
        state.pending.extend(pending);
        self.publish(state);
        self.check_recorded(state, known_count)?;
        self.commit(state, descriptor)
    }

    /// Writes in flight have been recorded in the bitmaps that are to come, those of `state.pending` from `known_count` on.
    /// If one could not take them, none comes; one that was there already is inconsistent.
    fn check_recorded(&self, state: &mut State, known_count: usize) -> Result<()> {
        let coming = state.pending.iter().skip(known_count);
        let failed = coming.filter(|pending| pending.recording).find(|pending| {
            let recorder = pending.recorder.as_ref();
            recorder.is_some_and(|recorder| recorder.has_failed())
        });
        let Some(name) = failed.map(|pending| pending.name.clone()) else {
            return Ok(());
        };
        for pending in state.pending.split_off(known_count) {
            if let Some(file) = pending.file {
                // Where it cannot be removed it is an orphan, which `check` finds.
                let _ = self.storage.remove(&self.resolve(&file));
            }
        }
        self.publish(state);
        let reason = "a write in flight could not be recorded in the bitmap file";
        if state.recorder(&name).is_some() {
            self.retire(state, &name, reason)?;
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("bitmap {}: {reason}", quoted(&name)),
        ))
    }

    /// What is marked in a bitmap goes also where a crash may find that bitmap ([`Pending`]).
    fn mark_pending(
        &self,
        state: &mut State,
        name: &str,
        mark: impl Fn(&Recorder) -> bool,
    ) -> Result<()> {
        let pending = state.pending.iter().filter(|pending| pending.name == name);
        let mut recorders = pending.filter_map(|pending| pending.recorder.as_ref());
        if recorders.all(|recorder| mark(recorder)) {
            return Ok(());
        }
        // A crash must not find it there, then.
        let descriptor = state.descriptor.clone();
        self.commit(state, descriptor)?;
        self.publish(state);
        Ok(())
    }

    /// The recorders of the bitmaps that record, or may have to.
    fn publish(&self, state: &State) {
        let recording = state.active.iter().flat_map(|active| {
            let loaded = active.loaded.iter();
            let loaded = loaded.map(|(name, recorder)| (name, recorder));
            let frozen = active.frozen.iter();
            let since = frozen.map(|frozen| (&frozen.name, &frozen.since));
            let recording = loaded.chain(since).filter(|(name, _)| {
                let entry = state.descriptor.bitmap(name);
                entry.is_some_and(|entry| entry.recording)
            });
            recording.map(|(_, recorder)| recorder)
        });
        let pending = state.pending.iter().filter(|pending| pending.recording);
        let pending = pending.filter_map(|pending| pending.recorder.as_ref());
        let mut recorders: Vec<Arc<Recorder>> = Vec::new();
        for recorder in recording.chain(pending) {
            if !recorders.iter().any(|known| Arc::ptr_eq(known, recorder)) {
                recorders.push(Arc::clone(recorder));
            }
        }
        self.tracker.publish(recorders);
    }

    /// Makes a loaded bitmap inconsistent on disk, then forgets it.
    fn retire(&self, state: &mut State, name: &str, reason: &str) -> Result<()> {
        let mut descriptor = state.descriptor.clone();
        descriptor.set_inconsistent(name, reason);
        self.commit(state, descriptor)?;
        if let Some(active) = &mut state.active {
            active.unload(name);
        }
        self.publish(state);
        self.notice_inconsistent(state, name, reason);
        Ok(())
    }
}

/// Where a descriptor is, from the root on: the process may change its directory while it has the image. Names in it are
/// relative to where it is, not to where a symbolic link to it is.
fn locate(storage: &dyn Storage, path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::io("cannot find descriptor", path, error);
    let absolute = std::path::absolute(path).map_err(failed)?;
    let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    // What is not there has no link to it either.
    let real = storage.real_path(directory);
    match (real, storage.real_path(&absolute)) {
        (Ok(directory), Ok(real)) if real != directory.join(name) => Ok(real),
        _ => Ok(absolute),
    }
}

/// The modification time that a seal keeps: of a regular file, settled.
fn sealable_time(storage: &dyn Storage, path: &Path) -> Option<Timestamp> {
    let metadata = storage.metadata(path).ok()?;
    if !metadata.is_regular {
        return None;
    }
    // Without it a change is not noticed; that is no reason to keep the image in use.
    let settled = storage.settled_metadata(path).ok()?;
    Some(settled.modified)
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
