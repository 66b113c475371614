// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resizes: announced, then other steps, then ended at whatever size came of it.

use super::{Held, Run};
use crate::judge::data_bytes;
use crate::step::ResizeEnd;

impl Run<'_> {
    pub(super) fn resize(&mut self, size_bytes: u64, follows: bool) -> Held {
        self.begin_resize(size_bytes, false)?;
        self.end_resize(match follows {
            true => ResizeEnd::Announced,
            false => ResizeEnd::Old,
        })
    }

    /// A resize that is still under way ends first.
    pub(super) fn begin_resize(&mut self, size_bytes: u64, early: bool) -> Held {
        self.end_resize(ResizeEnd::Announced)?;
        let old_bytes = self.model.size_bytes;
        if size_bytes < old_bytes {
            self.drain()?;
        }
        let models = self.on_disk.iter_mut().chain([&mut self.model]);
        models.for_each(|model| model.announce_resize(size_bytes, early));
        let expectation = self.expect([]);
        let begun = self.call(&expectation, |run| {
            run.image
                .as_ref()
                .map(|image| image.begin_resize(size_bytes))
        })?;
        let begun = begun.expect("steps are run on an open image");
        self.adopt_losses();
        if let Err(error) = begun {
            self.allow(&error)?;
            // The data image stays as it is.
            let models = self.on_disk.iter_mut().chain([&mut self.model]);
            models.for_each(|model| *model = model.at_size(old_bytes));
            return self.explore_now(self.expect([]));
        }
        self.explore_now(self.expect([]))?;
        if early {
            self.disk.guest_resize(&self.data, size_bytes);
            self.explore_now(self.expect([]))?;
        }
        Ok(())
    }

    /// Where none is under way, nothing is done.
    pub(super) fn end_resize(&mut self, end: ResizeEnd) -> Held {
        let Some(resize) = self.model.resize else {
            return Ok(());
        };
        let old_bytes = self.model.size_bytes;
        let actual_bytes = match end {
            ResizeEnd::Announced => resize.to_bytes,
            ResizeEnd::Old => old_bytes,
            ResizeEnd::Other(sectors) => sectors * 512,
        };
        let before_bytes = data_bytes(&self.disk, &self.data);
        if actual_bytes < before_bytes.max(old_bytes) {
            self.drain()?;
        }
        if actual_bytes != before_bytes {
            self.disk.guest_resize(&self.data, actual_bytes);
        }
        // A disk that shrank, and not as announced: until that is on record it looks like somebody else's doing.
        let was_excused = self.is_excused;
        self.is_excused |= actual_bytes < old_bytes && actual_bytes != resize.to_bytes;
        self.explore_now(self.expect([]))?;
        let expectation = self.expect([]);
        let ended = self.call(&expectation, |run| {
            run.image
                .as_ref()
                .map(|image| image.end_resize(actual_bytes))
        })?;
        let models = self.on_disk.iter_mut().chain([&mut self.model]);
        models.for_each(|model| *model = model.at_size(actual_bytes));
        match ended.expect("steps are run on an open image") {
            Ok(()) => {
                self.on_disk = vec![self.model.clone()];
                self.tail_from = None;
                self.is_excused = was_excused || self.is_excused && self.is_faulty;
            }
            Err(error) => {
                self.allow(&error)?;
                self.tail_from = Some(self.tail_from.unwrap_or(old_bytes).min(old_bytes));
            }
        }
        self.adopt_losses();
        if !self.is_faulty {
            self.on_disk = vec![self.model.clone()];
        }
        self.explore_now(self.expect([]))
    }

    /// What is in flight ends: the driver's caller sees to it before a disk shrinks.
    fn drain(&mut self) -> Held {
        while !self.flights.is_empty() {
            self.end(0)?;
        }
        Ok(())
    }
}
