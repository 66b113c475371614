// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a descriptor to bitmaps that record, and back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::recover::{Verdict, check_length, judge};
use super::{Active, Image, State};
use crate::caps;
use crate::descriptor::{BitmapEntry, Descriptor, DescriptorFile, Durability, Seal, Session};
use crate::error::{Error, Result, quoted};
use crate::storage::{Access, FileId, StorageFile};
use crate::tracking::Recorder;

/// How an image is activated.
#[derive(Debug, Clone, Copy)]
pub struct Activation {
    /// The data image's size now, in bytes.
    pub size_bytes: u64,
    /// Nothing is written: no session, and what recovery finds stays in memory.
    pub read_only: bool,
    /// Overrides the stored durability.
    pub durability: Option<Durability>,
}

/// A bitmap that cannot be used, and why.
type Broken = (String, String);

impl Image {
    /// Recovers, loads the bitmaps and, unless read-only, begins a session; from then on writes are recorded.
    ///
    /// What is wrong with a bitmap makes it inconsistent and leaves a [notice](Self::take_notice); it is no error (I5).
    /// Waits for the disk.
    ///
    /// # Errors
    /// The image is active already; the data image's size is beyond the cap; the session cannot be written.
    pub fn activate(&self, activation: &Activation) -> Result<()> {
        let mut state = self.lock();
        if state.active.is_some() {
            return Err(Error::invalid("the image is active already"));
        }
        let read_only = activation.read_only || self.options.shared;
        let size_bytes = caps::round_image_size(activation.size_bytes)?;
        if !read_only {
            self.take_over(&mut state)?;
        }
        let mut descriptor = state.descriptor.clone();
        let durability = activation
            .durability
            .or(descriptor.durability)
            .unwrap_or(Durability::DEFAULT);
        let boot_id = self
            .storage
            .boot_id()
            .map_err(|error| Error::invalid(format!("cannot read the host's boot id: {error}")))?;

        let mut active = Active {
            size_bytes,
            durability,
            read_only,
            changed: false,
            loaded: Vec::new(),
        };
        // Beside a running writer nothing on disk is settled: its bitmaps are in use, and stay unread.
        let is_unsettled = self.options.shared && descriptor.session.is_some();
        if !is_unsettled {
            let verdict = judge(&descriptor, size_bytes, &boot_id);
            if let Verdict::Trusted { crashed: true, .. } = verdict {
                let text = "the image was not closed cleanly; its bitmaps hold every write (durability process)";
                self.notice(&mut state, text);
            }
            let broken = self.load(&state, &descriptor, &verdict, &mut active)?;
            for (name, reason) in broken {
                descriptor.set_inconsistent(&name, &reason);
                let text = format!("bitmap {} is inconsistent: {reason}", quoted(&name));
                self.notice(&mut state, &text);
            }
        }
        if read_only {
            state.descriptor = descriptor;
        } else {
            let generation = descriptor.generation();
            descriptor.seal = None;
            descriptor.session = Some(Session {
                generation,
                durability,
                boot_id,
                size_bytes,
                resize_to_bytes: None,
            });
            self.commit(&mut state, descriptor)?;
        }
        state.active = Some(active);
        if !read_only {
            self.publish(&state);
            self.tracker.set_writable(true);
        }
        Ok(())
    }

    /// The descriptor file for writing, whole.
    fn take_over(&self, state: &mut State) -> Result<()> {
        if self.options.no_lock {
            // Opened for reading so far; the caller's lock protects both.
            state.file = DescriptorFile::open(&*self.storage, &self.path, Access::ReadWrite)?;
        }
        state.file.repair(&*self.storage)
    }

    /// Loads what can be trusted into `active`; returns the rest.
    fn load(
        &self,
        state: &State,
        descriptor: &Descriptor,
        verdict: &Verdict,
        active: &mut Active,
    ) -> Result<Vec<Broken>> {
        let mut broken = Vec::new();
        let mut opened: Vec<(&BitmapEntry, Box<dyn StorageFile>)> = Vec::new();
        let mut uses: HashMap<FileId, usize> = HashMap::new();
        // Neither the descriptor nor the data image may be written as if it were a bitmap (I6).
        let mut reserved = HashSet::from([state.file.id()?]);
        if let Ok(data) = self.storage.metadata(&self.resolve(&descriptor.image.file)) {
            reserved.insert(data.id);
        }
        let access = if active.read_only {
            Access::Read
        } else {
            Access::ReadWrite
        };
        for entry in &descriptor.bitmaps {
            if let Verdict::Inconsistent(reason) = verdict {
                broken.push((entry.name.clone(), reason.clone()));
                continue;
            }
            let path = self.resolve(&entry.file);
            let file = self.storage.open(&path, access);
            let file = file.and_then(|file| Ok((file.id()?, file)));
            match file {
                Ok((id, _)) if reserved.contains(&id) => {
                    let text = format!(
                        "file {} is not a bitmap's own: it is the descriptor or the data image",
                        quoted(&entry.file)
                    );
                    broken.push((entry.name.clone(), text));
                }
                Ok((id, file)) => {
                    *uses.entry(id).or_default() += 1;
                    opened.push((entry, file));
                }
                Err(error) => {
                    let text = Error::io("cannot open bitmap file", &path, error).to_string();
                    broken.push((entry.name.clone(), text));
                }
            }
        }
        for (entry, file) in opened {
            let is_shared = file
                .id()
                .is_ok_and(|id| uses.get(&id).is_none_or(|uses| *uses > 1));
            let loaded = if is_shared {
                Err(format!(
                    "file {} is named by more than one bitmap",
                    quoted(&entry.file)
                ))
            } else {
                self.load_one(entry, file, verdict, active)
            };
            match loaded {
                Ok(recorder) => active.loaded.push((entry.name.clone(), Arc::new(recorder))),
                Err(reason) => broken.push((entry.name.clone(), reason)),
            }
        }
        Ok(broken)
    }

    fn load_one(
        &self,
        entry: &BitmapEntry,
        file: Box<dyn StorageFile>,
        verdict: &Verdict,
        active: &Active,
    ) -> std::result::Result<Recorder, String> {
        let Verdict::Trusted {
            recorded_bytes,
            resize_to_bytes,
            ..
        } = *verdict
        else {
            return Err("not trusted".into());
        };
        let granularity = entry.granularity;
        let path = self.resolve(&entry.file);
        let told = |error: Error| error.to_string();
        let length_bytes = file
            .length()
            .map_err(|error| told(Error::io("cannot examine bitmap file", &path, error)))?;
        check_length(
            length_bytes,
            granularity.bytes(),
            recorded_bytes,
            resize_to_bytes,
        )?;
        // The bits that both the file and the disk have; a resize cut short may have left the file at either length.
        let size_bytes = active.size_bytes;
        let bits = |bytes| caps::bits_count(bytes, granularity.bytes()).map_err(told);
        let known_bits = bits(recorded_bytes.min(size_bytes))?;
        let recorder = Recorder::load(&path, file, granularity, known_bits, active.durability)
            .map_err(told)?;
        if active.read_only {
            recorder.resize_in_memory(bits(size_bytes)?);
        } else {
            recorder.fit(bits(size_bytes)?).map_err(told)?;
        }
        if size_bytes > recorded_bytes {
            // Nobody recorded what happened to the new tail.
            let tail = size_bytes - recorded_bytes;
            let recorded = if active.read_only {
                recorder.set_in_memory(recorded_bytes, tail);
                true
            } else {
                recorder.record(recorded_bytes, tail)
            };
            if !recorded {
                return Err("cannot record that the disk grew".into());
            }
        }
        Ok(recorder)
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
        let mut descriptor = state.descriptor.clone();
        let mut first_error = None;
        for (name, recorder) in &active.loaded {
            if let Err(error) = recorder.sync() {
                descriptor.set_inconsistent(name, &error.to_string());
                first_error.get_or_insert(error.within(format_args!("bitmap {}", quoted(name))));
            }
        }
        // A session in which nothing happened leaves the text as it was.
        let changed = active.changed || self.tracker.was_written();
        let generation = descriptor.generation() + u64::from(changed);
        descriptor.session = None;
        descriptor.seal = Some(Seal {
            generation,
            size_bytes: active.size_bytes,
        });
        self.commit(&mut state, descriptor)?;
        first_error.map_or(Ok(()), Err)
    }
}
