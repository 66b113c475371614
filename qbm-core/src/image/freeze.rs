// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental copy: a bitmap is frozen while what it says is copied, and what was copied leaves it.
//!
//! The file goes on recording everything, so there is nothing to recover: who never says that a copy is complete loses
//! nothing, however that came about. In memory there are two bitmaps more, the frozen view and what was dirtied since.
//! What was copied leaves the file as bits are exchanged elsewhere (`replace`): the file to come has the rest of the
//! frozen view and all that was dirtied since.

use std::sync::Arc;

use super::{Image, State};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::sabotage::sabotaged;
use crate::tracking::Recorder;

/// A bitmap between freeze and commit or abort.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) name: String,
    /// What was dirty at the freeze and has not been copied. Nothing is recorded here.
    pub(super) snapshot: Arc<Recorder>,
    /// What was dirtied since. If the bitmap records, so does this, beside the bitmap's own recorder.
    pub(super) since: Arc<Recorder>,
}

impl State {
    pub(super) fn frozen(&self, name: &str) -> Option<&Frozen> {
        let active = self.active.as_ref()?;
        active.frozen(name)
    }

    pub(super) fn check_not_frozen(&self, name: &str) -> Result<()> {
        match self.frozen(name) {
            Some(_) => Err(Error::new(
                ErrorKind::Busy,
                format!("bitmap {} is frozen", quoted(name)),
            )),
            None => Ok(()),
        }
    }
}

impl Image {
    /// Freezes what a bitmap says, to be copied: from now on reading shows the bitmap as it is at this moment, while the
    /// disk's bitmap goes on recording. Writes in flight count as later ones. Memory only: nothing waits, and a crash, a
    /// clean close or [`abort_bitmap`](Self::abort_bitmap) leaves a bitmap that has all of the frozen bits and all later
    /// ones.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::ReadOnly`], [`ErrorKind::Busy`] when it is
    /// frozen already; [`ErrorKind::Io`] when it could not record a write: it is inconsistent then.
    pub fn freeze_bitmap(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        let recorder = self.loaded_in(&state, name)?;
        state.check_not_frozen(name)?;
        self.check_sound(&mut state, name, &recorder)?;
        let snapshot = Arc::new(recorder.empty_in_memory());
        let since = Arc::new(recorder.empty_in_memory());
        if let Some(active) = &mut state.active {
            active.frozen.push(Frozen {
                name: name.to_owned(),
                snapshot: Arc::clone(&snapshot),
                since: Arc::clone(&since),
            });
        }
        // No write falls between (I1). One that begins from here on finds `since`, and one that is in flight here is put
        // there: its data may move after the copy was made. One that has ended before is in the bitmap by now, and what
        // it wrote is there for the copy to read.
        self.publish(&state);
        if sabotaged!("freeze-forgets-writes-in-flight") {
            since.store_bits(0, u64::MAX, None)?;
        }
        snapshot.absorb(&recorder);
        Ok(())
    }

    /// Says that all that was frozen before `offset_bytes` (rounded down to a granule; beyond the end of the disk: all) has
    /// been copied, and is safe there. It leaves the bitmap and the frozen view, but for what was dirtied since the freeze,
    /// which stays in the bitmap; the bitmap stays frozen. Durable when this returns. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::ReadOnly`], [`ErrorKind::Invalid`] when it is
    /// not frozen; [`ErrorKind::Io`] when it could not record a write: it is inconsistent then. Whatever the system says:
    /// the bitmap and the frozen view are as they were then, but a crash may find what was copied gone;
    /// [`abort_bitmap`](Self::abort_bitmap), and any change of the descriptor that succeeds, rules that out.
    pub fn checkpoint_bitmap(&self, name: &str, offset_bytes: u64) -> Result<()> {
        self.copied(&mut self.lock(), name, offset_bytes)
    }

    /// Says that all that was frozen has been copied, and is safe there: the bitmap has what was dirtied since, and is no
    /// longer frozen. Durable when this returns. Waits for the disk.
    ///
    /// # Errors
    /// As [`checkpoint_bitmap`](Self::checkpoint_bitmap); the bitmap is still frozen then, unless it is inconsistent.
    pub fn commit_bitmap(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        self.copied(&mut state, name, u64::MAX)?;
        self.unfreeze(&mut state, name);
        Ok(())
    }

    /// Ends a freeze without a copy: the bitmap has what is left of the frozen view and what was dirtied since. Waits for
    /// the disk only if a change of the descriptor failed before: what that may have put there is taken back.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] (also for an inconsistent bitmap), [`ErrorKind::ReadOnly`], [`ErrorKind::Invalid`] when it is
    /// not frozen; whatever the system says: the bitmap is still frozen then.
    pub fn abort_bitmap(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        self.loaded_in(&state, name)?;
        self.frozen_in(&state, name)?;
        if !state.pending.is_empty() && !sabotaged!("abort-leaves-a-failed-commit") {
            // The disk may have the text of a commit that failed, where the frozen bits are gone.
            let descriptor = state.descriptor.clone();
            self.commit(&mut state, descriptor)?;
        }
        self.unfreeze(&mut state, name);
        Ok(())
    }

    fn unfreeze(&self, state: &mut State, name: &str) {
        if let Some(active) = &mut state.active {
            active.unfreeze(name);
        }
        self.publish(state);
    }

    fn frozen_in<'a>(&self, state: &'a State, name: &str) -> Result<&'a Frozen> {
        let frozen = state.frozen(name);
        frozen.ok_or_else(|| Error::invalid(format!("bitmap {} is not frozen", quoted(name))))
    }

    /// A bitmap that has missed something is given up: nothing is to be made of what it says.
    pub(super) fn check_sound(
        &self,
        state: &mut State,
        name: &str,
        recorder: &Recorder,
    ) -> Result<()> {
        if !recorder.has_failed() {
            return Ok(());
        }
        let reason = "a write could not be recorded in the bitmap file";
        self.retire(state, name, reason)?;
        Err(Error::new(
            ErrorKind::Io,
            format!("bitmap {}: {reason}", quoted(name)),
        ))
    }

    fn copied(&self, state: &mut State, name: &str, offset_bytes: u64) -> Result<()> {
        let recorder = self.loaded_in(state, name)?;
        let frozen = self.frozen_in(state, name)?;
        let (snapshot, since) = (Arc::clone(&frozen.snapshot), Arc::clone(&frozen.since));
        self.check_sound(state, name, &recorder)?;
        let granularity = recorder.granularity();
        let size_bytes = self.writable(state)?.size_bytes;
        let first = if offset_bytes >= size_bytes {
            // A tail that was only announced cannot have been copied.
            granularity.touched(0, size_bytes, u64::MAX).end
        } else if sabotaged!("checkpoint-rounds-up") {
            granularity.touched(0, offset_bytes, u64::MAX).end
        } else {
            granularity.granule(offset_bytes)
        };
        let rest = Arc::new(snapshot.rest_in_memory(first));
        // Until the file that is to come records, every later write is in `since`, which it takes over then (I1).
        self.replace_bits(state, name, granularity, &[Arc::clone(&rest), since])?;
        let frozen = state
            .active
            .iter_mut()
            .flat_map(|active| &mut active.frozen);
        for frozen in frozen.filter(|frozen| frozen.name == name) {
            frozen.snapshot = Arc::clone(&rest);
        }
        Ok(())
    }
}
