// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental copies: freeze, checkpoint, commit, abort.

use qbm_core::{ErrorKind, Image};

use super::{Held, Run};
use crate::model::Model;

impl Run<'_> {
    /// Of the disk nothing changes.
    pub(super) fn freeze(&mut self, name: &str) -> Held {
        let call = |image: &Image| image.freeze_bitmap(name);
        if self.model.usable(name).is_none() {
            return self.refused(ErrorKind::NotFound, call);
        }
        if self.model.is_frozen(name) {
            return self.refused(ErrorKind::Busy, call);
        }
        let expectation = self.expect([]);
        let result = self.call(&expectation, |run| run.image.as_ref().map(call))?;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                let flights = self.flights();
                self.model.freeze(name, &flights);
            }
            Err(error) => self.allow(&error)?,
        }
        self.adopt_losses();
        self.explore_now(self.expect([]))
    }

    pub(super) fn checkpoint(&mut self, name: &str, offset_bytes: u64) -> Held {
        let flights = self.flights();
        self.copied(
            name,
            |model| model.checkpoint(name, offset_bytes, &flights),
            |image| image.checkpoint_bitmap(name, offset_bytes),
        )
    }

    pub(super) fn commit(&mut self, name: &str) -> Held {
        let flights = self.flights();
        self.copied(
            name,
            |model| {
                model.checkpoint(name, u64::MAX, &flights);
                model.unfreeze(name);
            },
            |image| image.commit_bitmap(name),
        )
    }

    /// What is made of a frozen bitmap comes from memory, whatever the disk has.
    fn copied(
        &mut self,
        name: &str,
        apply: impl FnOnce(&mut Model),
        call: impl FnOnce(&Image) -> qbm_core::Result<()>,
    ) -> Held {
        if let Some(kind) = self.refusal(name) {
            return self.refused(kind, call);
        }
        let mut new = self.model.clone();
        apply(&mut new);
        let expectation = self.expect([new.clone()]);
        let result = self.call(&expectation, |run| run.image.as_ref().map(call))?;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                self.on_disk = vec![new.clone()];
                self.model = new;
            }
            Err(error) => {
                self.allow(&error)?;
                self.failed(new, Vec::new());
            }
        }
        self.adopt_losses();
        self.explore_now(self.expect([]))
    }

    pub(super) fn abort(&mut self, name: &str) -> Held {
        let call = |image: &Image| image.abort_bitmap(name);
        if let Some(kind) = self.refusal(name) {
            return self.refused(kind, call);
        }
        let expectation = self.expect([self.model.clone()]);
        let result = self.call(&expectation, |run| run.image.as_ref().map(call))?;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                self.model.unfreeze(name);
                // A commit that failed is not to be found any more.
                let required = self.model.bitmaps[name].must.clone();
                self.on_disk.retain(|model| {
                    let bitmap = model.bitmaps.get(name);
                    bitmap.is_none_or(|bitmap| {
                        bitmap.inconsistent || required.first_beyond(&bitmap.must).is_none()
                    })
                });
                if self.on_disk.is_empty() {
                    self.on_disk.push(self.model.clone());
                }
            }
            Err(error) => self.allow(&error)?,
        }
        self.adopt_losses();
        self.explore_now(self.expect([]))
    }

    /// Why nothing can be done to a bitmap as a frozen one.
    fn refusal(&mut self, name: &str) -> Option<ErrorKind> {
        if self.model.usable(name).is_none() {
            return Some(ErrorKind::NotFound);
        }
        (!self.model.is_frozen(name)).then_some(ErrorKind::Invalid)
    }
}
