// SPDX-License-Identifier: MIT OR Apache-2.0
//! All bits of a bitmap exchanged at once: clear, merge, another granularity, a checkpoint.
//!
//! The new bits go to a file of their own, and the descriptor turns from one file to the other: a crash leaves the old
//! bits or the new ones (I4). Writes are let through all the while; until the descriptor has turned, and where it is not
//! known whether it has, both files record them (I1).

use std::sync::Arc;

use super::{Image, Pending, State, names};
use crate::bits::Granularity;
use crate::caps;
use crate::error::{Result, quoted};
use crate::sabotage::sabotaged;
use crate::tracking::Recorder;

impl Image {
    /// Makes a bitmap clean, at once. Writes in flight stay in it. Durable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) (also for an inconsistent bitmap),
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly), [`ErrorKind::Busy`](crate::ErrorKind::Busy); whatever the system
    /// says: the bitmap is as it was then.
    pub fn clear_bitmap(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        let granularity = self.loaded_in(&state, name)?.granularity();
        state.check_not_frozen(name)?;
        self.replace_bits(&mut state, name, granularity, &[])
    }

    /// Adds to `target` what is dirty in any of `sources`, at once; granularities may differ, and ranges are rounded
    /// outwards to the target's. Durable when this returns.
    ///
    /// # Errors
    /// As [`clear_bitmap`](Self::clear_bitmap), for each of the names; [`ErrorKind::Io`](crate::ErrorKind::Io) when one could
    /// not record a write: it is inconsistent then.
    pub fn merge_bitmaps(&self, target: &str, sources: &[&str]) -> Result<()> {
        let mut state = self.lock();
        let target_recorder = self.loaded_in(&state, target)?;
        let granularity = target_recorder.granularity();
        let mut from = vec![target_recorder];
        for source in sources {
            from.push(self.loaded_in(&state, source)?);
        }
        for (name, recorder) in [&target].into_iter().chain(sources).zip(&from) {
            state.check_not_frozen(name)?;
            self.check_sound(&mut state, name, recorder)?;
        }
        self.replace_bits(&mut state, target, granularity, &from)
    }

    /// Gives a bitmap another granularity, at once. Dirty ranges are rounded outwards to it. Durable when this returns.
    ///
    /// # Errors
    /// As [`clear_bitmap`](Self::clear_bitmap); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a granularity that
    /// breaks the rules, [`ErrorKind::TooBig`](crate::ErrorKind::TooBig) for one too small for the disk,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the bitmap could not record a write: it is inconsistent then.
    pub fn set_granularity(&self, name: &str, granularity_bytes: u64) -> Result<()> {
        let granularity = Granularity::new(granularity_bytes)
            .map_err(|error| error.within(format_args!("bitmap {}: granularity", quoted(name))))?;
        let mut state = self.lock();
        let old = self.loaded_in(&state, name)?;
        state.check_not_frozen(name)?;
        self.check_sound(&mut state, name, &old)?;
        self.replace_bits(&mut state, name, granularity, &[old])
    }

    pub(super) fn replace_bits(
        &self,
        state: &mut State,
        name: &str,
        granularity: Granularity,
        from: &[Arc<Recorder>],
    ) -> Result<()> {
        let active = self.writable(state)?;
        let bits_count = caps::bits_count(active.bitmap_size_bytes(), granularity.bytes())
            .map_err(|error| error.within(format_args!("bitmap {}", quoted(name))))?;
        let durability = active.durability;
        let made = names::create_beside(&*self.storage, &self.path, Some(name), "bitmap")?;
        let created = Recorder::create(&made.path, made.file, granularity, bits_count, durability);
        let recorder = match created {
            Ok(recorder) => Arc::new(recorder),
            Err(error) => {
                // The error that led here is the one to tell.
                let _ = self.storage.remove(&made.path);
                return Err(error);
            }
        };
        let mut descriptor = state.descriptor.clone();
        let entry = descriptor
            .bitmap_mut(name)
            .ok_or_else(|| self.no_such_bitmap(state, name))?;
        let old_file = std::mem::replace(&mut entry.file, made.name.clone());
        entry.granularity = granularity;
        // What the seal said was said of the old file.
        entry.crc32c = None;
        state.pending.push(Pending {
            name: name.to_owned(),
            recorder: Some(Arc::clone(&recorder)),
            recording: entry.recording,
            file: Some(made.name),
        });
        self.publish(state);
        // Whatever is recorded from now on is in both; what was before is copied.
        for other in from {
            recorder.absorb(other);
        }
        // Everything is in the file before the descriptor names it.
        if let Err(error) = recorder.sync() {
            state.pending.pop();
            self.publish(state);
            let _ = self.storage.remove(&made.path);
            return Err(error.within(format_args!("bitmap {}", quoted(name))));
        }
        if sabotaged!("old-bits-dropped-early") {
            self.remove_file(state, &old_file, false);
        }
        self.commit(state, descriptor)?;
        let loaded = state
            .active
            .iter_mut()
            .flat_map(|active| &mut active.loaded);
        for (loaded_name, loaded_recorder) in loaded {
            if loaded_name == name {
                *loaded_recorder = Arc::clone(&recorder);
            }
        }
        self.publish(state);
        let is_shared = state.descriptor.names_file(&old_file);
        self.remove_file(state, &old_file, is_shared);
        Ok(())
    }
}
