// SPDX-License-Identifier: MIT OR Apache-2.0
//! Beginning and ending a session.

use std::path::PathBuf;

use super::recover::{Found, Modified, Trusted, Verdict, judge};
use super::{Active, Image, Sizes, State};
use crate::caps;
use crate::descriptor::{Descriptor, DescriptorFile, Durability, Seal, Session, TrustedChange};
use crate::error::{Error, Result, quoted};
use crate::storage::{Access, FileId, leads_nowhere};

/// Where the data image is, for its modification time to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DataPath {
    /// Where the descriptor says.
    #[default]
    Stored,
    /// At this path of the host.
    File(PathBuf),
    /// Nowhere that can be looked at: only the size is compared.
    Unknown,
}

impl DataPath {
    /// From the root on: the process may change its directory while it has the image.
    pub(crate) fn absolute(&self) -> Result<Self> {
        match self {
            Self::File(path) => std::path::absolute(path)
                .map(Self::File)
                .map_err(|error| Error::io("cannot find data image", path, error)),
            Self::Stored | Self::Unknown => Ok(self.clone()),
        }
    }
}

/// How an image is activated.
#[derive(Debug, Clone, Default)]
pub struct Activation {
    /// The data image's size now, in bytes.
    pub size_bytes: u64,
    /// Nothing is written: no session, and what recovery finds stays in memory.
    pub read_only: bool,
    /// Overrides the stored durability.
    pub durability: Option<Durability>,
    /// The caller vouches for the data image: that it was written, replaced or cut while the image was closed does not
    /// make the bitmaps inconsistent. It leaves a trace in the descriptor and a notice.
    pub trust_data: bool,
    /// Where the data image is.
    pub data_path: DataPath,
}

impl Image {
    /// Recovers, loads the bitmaps and, unless read-only, begins a session; from then on writes are recorded.
    ///
    /// What is wrong with a bitmap makes it inconsistent and leaves a [notice](Self::take_notice); it is no error (I5).
    /// Waits for the disk.
    ///
    /// # Errors
    /// The image is active already; the data image's size is beyond the cap; the session cannot be written.
    pub fn activate(&self, activation: &Activation) -> Result<()> {
        self.activate_over(activation, None)
    }

    /// As [`activate`](Self::activate), over a data image that is open.
    pub(crate) fn activate_over(
        &self,
        activation: &Activation,
        opened: Option<FileId>,
    ) -> Result<()> {
        let mut state = self.lock();
        if state.active.is_some() {
            return Err(Error::invalid("the image is active already"));
        }
        let read_only = activation.read_only || self.options.shared;
        let size_bytes = caps::round_image_size(activation.size_bytes)?;
        let data_path = activation.data_path.absolute()?;
        // With the caller's locks the descriptor is opened again for writing.
        if !read_only && self.options.read_only && !self.options.no_lock {
            return Err(self.not_writable());
        }
        if !read_only {
            self.take_over(&mut state)?;
        }
        // Since it was read last another process may have had the image: a migrated guest's other end.
        state.descriptor = state.file.read(&*self.storage)?;
        self.check_supported(&state.descriptor)?;
        if size_bytes == 0 && opened.is_none() {
            self.check_empty(&state.descriptor, &data_path)?;
        }
        if let Some(opened) = opened {
            self.check_opened(&state.descriptor, &data_path, opened)?;
        }
        let mut descriptor = state.descriptor.clone();
        let durability = activation
            .durability
            .or(descriptor.durability)
            .unwrap_or(Durability::DEFAULT);
        let boot_id = self.boot_id()?;
        let found = Found {
            size_bytes,
            modified: self.modified(&descriptor, &data_path)?,
            boot_id: &boot_id,
            trust_data: activation.trust_data,
        };
        let mut active = Active {
            read_only,
            data_id: self.data_file_id(&descriptor, &data_path),
            data_path,
            ..Active::read_only(size_bytes, durability)
        };
        // Beside a running writer nothing on disk is settled: its bitmaps are in use, and stay unread.
        let is_unsettled = self.options.shared && descriptor.session.is_some();
        let mut recorded_bytes = size_bytes;
        let mut found_changed = false;
        if !is_unsettled {
            let verdict = judge(&descriptor, &found);
            if let Verdict::Trusted(trusted) = &verdict {
                recorded_bytes = trusted.recorded_bytes;
                active.continued = trusted.is_as_sealed && recorded_bytes == size_bytes;
                self.explain(&mut state, &mut descriptor, trusted, &found);
            }
            // Also without a bitmap that could tell of it: others may have kept some in their memory.
            found_changed = !active.continued;
            for problem in self.load(&state, &descriptor, &verdict, &mut active)? {
                if !problem.kind.costs_bitmap() {
                    continue;
                }
                found_changed = true;
                descriptor.set_inconsistent(&problem.bitmap, &problem.reason);
                self.notice_inconsistent(&mut state, &problem.bitmap, &problem.reason);
            }
        }
        if read_only {
            state.descriptor = descriptor;
            state.active = Some(active);
            return self.fit_loaded(&mut state, recorded_bytes);
        }
        let generation = descriptor.generation();
        descriptor.seal = None;
        descriptor.seal_is_damaged = false;
        // Files still have the recorded size: a crash from here on finds them at either.
        active.on_record = Sizes {
            size_bytes: recorded_bytes,
            resize_to_bytes: (recorded_bytes != size_bytes).then_some(size_bytes),
        };
        descriptor.session = Some(Session {
            generation,
            durability,
            boot_id,
            size_bytes: recorded_bytes,
            resize_to_bytes: active.on_record.resize_to_bytes,
        });
        self.commit(&mut state, descriptor)?;
        state.active = Some(active);
        let begun = self.begin_session(&mut state, recorded_bytes);
        if let Some(active) = &mut state.active {
            active.changed = found_changed || recorded_bytes != size_bytes;
        }
        if begun.is_err() {
            // The session stays on record, as after a crash.
            state.active = None;
        }
        begun
    }

    /// With the session on record: fits the bitmaps to the image, then lets writes be recorded.
    fn begin_session(&self, state: &mut State, recorded_bytes: u64) -> Result<()> {
        self.fit_loaded(state, recorded_bytes)?;
        if let Some(active) = &mut state.active
            && active.on_record.resize_to_bytes.take().is_some()
        {
            active.on_record.size_bytes = active.size_bytes;
            let descriptor = state.descriptor.clone();
            self.commit(state, descriptor)?;
        }
        self.publish(state);
        self.tracker.set_writable(true);
        Ok(())
    }

    /// Tells the operator why bitmaps are trusted where that is not a matter of course, and leaves a trace of what
    /// somebody vouched for.
    fn explain(
        &self,
        state: &mut State,
        descriptor: &mut Descriptor,
        trusted: &Trusted,
        found: &Found<'_>,
    ) {
        if trusted.crashed {
            let text = "the image was not closed cleanly; its bitmaps hold every write (durability process)";
            self.notice(state, text);
        }
        if let Some(reason) = &trusted.overruled {
            self.notice(state, &format!("{reason}; trusted all the same, as told"));
            descriptor.add_trusted(&TrustedChange {
                generation: descriptor.generation(),
                sealed: descriptor.seal.clone(),
                size_bytes: found.size_bytes,
                modified: found.modified.timestamp(),
            });
        }
    }

    /// The descriptor file for writing, whole.
    pub(super) fn take_over(&self, state: &mut State) -> Result<()> {
        if self.options.no_lock {
            // Opened for reading so far; the caller's lock protects both.
            state.file = DescriptorFile::open(&*self.storage, &self.path, Access::ReadWrite)?;
        }
        state.file.repair(&*self.storage)
    }

    pub(super) fn data_path(&self, descriptor: &Descriptor, given: &DataPath) -> Option<PathBuf> {
        // Other formats write their own metadata when QEMU opens and closes them.
        let path = match given {
            DataPath::Stored => Some(self.resolve(&descriptor.image.file)),
            DataPath::File(path) => Some(path.clone()),
            DataPath::Unknown => None,
        };
        path.filter(|_| descriptor.image.format == "raw")
    }

    /// The data images, as far as they are known: the one that is named, and the one that is used in its place.
    pub(super) fn data_files(&self, descriptor: &Descriptor, given: &DataPath) -> Vec<FileId> {
        let named = self.resolve(&descriptor.image.file);
        let used = match given {
            DataPath::File(path) => Some(path.clone()),
            DataPath::Stored | DataPath::Unknown => None,
        };
        let paths = [Some(named), used].into_iter().flatten();
        paths
            .filter_map(|path| self.storage.metadata(&path).ok())
            .map(|metadata| metadata.id)
            .collect()
    }

    /// What can be seen of the data image's modification time. A failure to look at it is an error: it says nothing of the
    /// bitmaps.
    pub(super) fn modified(&self, descriptor: &Descriptor, given: &DataPath) -> Result<Modified> {
        let Some(path) = self.data_path(descriptor, given) else {
            return Ok(Modified::Unknown);
        };
        match self.storage.metadata(&path) {
            Ok(metadata) if metadata.is_regular => Ok(Modified::At(metadata.modified)),
            Ok(_) => Ok(Modified::NotAFile),
            Err(error) if leads_nowhere(&error) => Ok(Modified::NotAFile),
            Err(error) => Err(Error::io("cannot examine data image", &path, error)),
        }
    }

    /// Writes what the files lack, makes it durable and ends the session. Afterwards the image is not active, and may
    /// be activated again. Waits for the disk.
    ///
    /// The caller has no write in flight.
    ///
    /// # Errors
    /// A bitmap could not be stored (it is inconsistent then, the others are fine), or the session could not be ended
    /// (the image stays marked in use, as after a crash).
    pub fn inactivate(&self) -> Result<()> {
        let mut state = self.lock();
        let Some(active) = state.active.take() else {
            return Ok(());
        };
        if active.read_only {
            return Ok(());
        }
        debug_assert!(self.tracker.is_idle(), "no write is in flight at a close");
        self.tracker.set_writable(false);
        self.tracker.publish(Vec::new());
        let mut first_error = None;
        for (name, recorder) in &active.loaded {
            let Err(error) = recorder.sync() else {
                continue;
            };
            // At once: until then the session vouches for a file of which nothing is known.
            let mut descriptor = state.descriptor.clone();
            descriptor.set_inconsistent(name, &error.to_string());
            self.commit(&mut state, descriptor)?;
            first_error.get_or_insert(error.within(format_args!("bitmap {}", quoted(name))));
        }
        let mut descriptor = state.descriptor.clone();
        let data_path = self.data_path(&descriptor, &active.data_path);
        // Before the file is looked at for being the one: not the time of one that comes after that.
        let modified = data_path
            .as_ref()
            .and_then(|path| super::sealable_time(&*self.storage, path));
        if let (Some(path), Some(id)) = (&data_path, active.data_id)
            && self.data_was_moved(path, id)
        {
            // The seal would vouch for a file that nobody wrote through us.
            let reason = "the data image was moved or replaced while it was open";
            for (name, _) in &active.loaded {
                descriptor.set_inconsistent(name, reason);
                self.notice_inconsistent(&mut state, name, reason);
            }
        }
        for (name, recorder) in &active.loaded {
            if let Some(entry) = descriptor.bitmap_mut(name) {
                entry.crc32c = Some(recorder.crc32c());
            }
        }
        // A session in which nothing happened leaves the text as it was.
        let changed = active.changed || first_error.is_some() || self.tracker.was_written();
        let generation = descriptor.generation().saturating_add(u64::from(changed));
        descriptor.session = None;
        descriptor.seal = Some(Seal {
            generation,
            size_bytes: active.size_bytes,
            modified,
        });
        self.commit(&mut state, descriptor)?;
        first_error.map_or(Ok(()), Err)
    }
}
