// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps follow the data image when it is resized.

use super::{Image, State};
use crate::caps;
use crate::error::{Error, Result, quoted};

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
        let mut descriptor = state.descriptor.clone();
        if let Some(session) = &mut descriptor.session {
            session.resize_to_bytes = Some(size_bytes);
        }
        self.commit(&mut state, descriptor)?;
        if size_bytes > old_bytes {
            self.resize_bitmaps(&mut state, size_bytes, Some(old_bytes))?;
        }
        Ok(())
    }

    /// Fits bitmaps and session to the data image's size now, in bytes. Waits for the disk.
    ///
    /// # Errors
    /// Whatever the system says; the session then still names both sizes, and recovery understands either.
    pub fn end_resize(&self, size_bytes: u64) -> Result<()> {
        let mut state = self.lock();
        let size_bytes = caps::round_image_size(size_bytes)?;
        self.resize_bitmaps(&mut state, size_bytes, None)?;
        if let Some(active) = &mut state.active {
            active.size_bytes = size_bytes;
        }
        let mut descriptor = state.descriptor.clone();
        if let Some(session) = &mut descriptor.session {
            session.size_bytes = size_bytes;
            session.resize_to_bytes = None;
        }
        self.commit(&mut state, descriptor)
    }

    /// A bitmap that cannot follow becomes inconsistent; the disk goes on.
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
        for (name, recorder) in loaded {
            let result = caps::bits_count(size_bytes, recorder.granularity().bytes())
                .and_then(|bits_count| recorder.resize(bits_count));
            let result = result.and_then(|()| match dirty_from {
                Some(offset) if recording(state, &name) => {
                    if recorder.record(offset, size_bytes - offset) {
                        Ok(())
                    } else {
                        Err(Error::invalid("the new tail could not be recorded"))
                    }
                }
                _ => Ok(()),
            });
            if let Err(error) = result {
                self.retire(state, &name, &error.to_string())?;
            }
        }
        Ok(())
    }
}
