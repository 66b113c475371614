// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps follow the data image when it is resized.

use super::{Image, Sizes, State};
use crate::caps;
use crate::error::{Error, Result, quoted};
use crate::sabotage::sabotaged;

impl Image {
    /// Announces that the data image is about to be resized to `size_bytes`, and records the tail it may gain.
    ///
    /// The session says so first: a crash in between must look like our resize, not like a foreign one. Waits for the
    /// disk. Followed by [`end_resize`](Self::end_resize), however the resize went.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly); a bitmap would exceed the caps; whatever the system says.
    /// The data image is not to be resized then.
    pub fn begin_resize(&self, size_bytes: u64) -> Result<()> {
        let mut state = self.lock();
        let size_bytes = caps::round_image_size(size_bytes)?;
        let Some(active) = state.active.as_ref().filter(|active| !active.read_only) else {
            return Err(self.not_writable());
        };
        let old_bytes = active.size_bytes;
        for (name, recorder) in &active.loaded {
            caps::bits_count(size_bytes, recorder.granularity().bytes())
                .map_err(|error| error.within(format_args!("bitmap {}", quoted(name))))?;
        }
        let announced = if sabotaged!("resize-not-announced") {
            Ok(())
        } else {
            self.record_sizes(&mut state, old_bytes, Some(size_bytes))
        };
        let begun = announced.and_then(|()| {
            if size_bytes > old_bytes {
                self.resize_bitmaps(&mut state, size_bytes, Some(old_bytes))?;
            }
            Ok(())
        });
        if begun.is_err() {
            // The data image stays as it is; so do the bitmaps. What fails here too is told by the next change.
            let _ = self.resize_bitmaps(&mut state, old_bytes, None);
            let _ = self.record_sizes(&mut state, old_bytes, None);
        }
        begun
    }

    /// Fits bitmaps and session to the data image's size now, in bytes. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly); whatever the system says. The image has the new size all the
    /// same, as the data image has; the session names both until a later change of the descriptor succeeds, and recovery
    /// understands either.
    pub fn end_resize(&self, size_bytes: u64) -> Result<()> {
        let mut state = self.lock();
        let size_bytes = caps::round_image_size(size_bytes)?;
        let Some(active) = state.active.as_mut().filter(|active| !active.read_only) else {
            return Err(self.not_writable());
        };
        let announced = [
            Some(active.on_record.size_bytes),
            active.on_record.resize_to_bytes,
        ];
        let old_bytes = std::mem::replace(&mut active.size_bytes, size_bytes);
        if !announced.contains(&Some(size_bytes)) {
            // The data image went its own way. Bitmap files, which may have the announced length, go back to the one that
            // stays on record, and follow once the size is there too; if it cannot be put there they follow all the same,
            // and a crash finds lengths that it does not know: inconsistent, but nothing missed.
            let _ = self.resize_bitmaps(&mut state, old_bytes, None);
            let _ = self.record_sizes(&mut state, old_bytes, Some(size_bytes));
        }
        // Not all that was announced before may be marked: the size may be another, and bitmaps may be others, since then.
        let grown_from = (size_bytes > old_bytes).then_some(old_bytes);
        let resized = self.resize_bitmaps(&mut state, size_bytes, grown_from);
        let recorded = self.record_sizes(&mut state, size_bytes, None);
        resized.and(recorded)
    }

    /// Puts on record which sizes the bitmap files may have.
    fn record_sizes(
        &self,
        state: &mut State,
        size_bytes: u64,
        resize_to_bytes: Option<u64>,
    ) -> Result<()> {
        if let Some(active) = &mut state.active {
            active.on_record = Sizes {
                size_bytes,
                resize_to_bytes,
            };
        }
        let descriptor = state.descriptor.clone();
        self.commit(state, descriptor)?;
        self.publish(state);
        Ok(())
    }

    /// Every bitmap follows, or becomes inconsistent; the disk goes on. Returns the first error that kept one from both.
    fn resize_bitmaps(
        &self,
        state: &mut State,
        size_bytes: u64,
        dirty_from: Option<u64>,
    ) -> Result<()> {
        let loaded = state
            .active
            .as_ref()
            .map(|active| active.loaded.clone())
            .unwrap_or_default();
        let recording = |state: &State, name: &str| {
            state
                .descriptor
                .bitmap(name)
                .is_some_and(|entry| entry.recording)
        };
        let mut first_error = None;
        for (name, recorder) in loaded {
            let dirty_from = dirty_from.filter(|_| recording(state, &name));
            let result = resize_frozen(state, &name, size_bytes, dirty_from).and_then(|()| {
                let granularity_bytes = recorder.granularity().bytes();
                recorder.resize(caps::bits_count(size_bytes, granularity_bytes)?)
            });
            let result = result.and_then(|()| match dirty_from {
                Some(offset) => {
                    if recorder.record(offset, size_bytes.saturating_sub(offset)) {
                        Ok(())
                    } else {
                        Err(Error::invalid("the new tail could not be recorded"))
                    }
                }
                None => Ok(()),
            });
            if let Err(error) = result
                && let Err(error) = self.retire(state, &name, &error.to_string())
            {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// What memory has of a frozen bitmap follows too. The frozen view has nothing of a new tail: what is there was written
/// since.
fn resize_frozen(
    state: &State,
    name: &str,
    size_bytes: u64,
    dirty_from: Option<u64>,
) -> Result<()> {
    let Some(frozen) = state.frozen(name) else {
        return Ok(());
    };
    let granularity_bytes = frozen.since.granularity().bytes();
    let bits_count = caps::bits_count(size_bytes, granularity_bytes)?;
    frozen.snapshot.resize(bits_count)?;
    frozen.since.resize(bits_count)?;
    if let Some(offset) = dirty_from {
        frozen
            .since
            .record(offset, size_bytes.saturating_sub(offset));
    }
    Ok(())
}
