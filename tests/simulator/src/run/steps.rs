// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each step does to the image and to the model.

use std::collections::BTreeSet;

use qbm_core::{Begun, BitmapChange, ErrorKind, Image};

use super::{Held, Run};
use crate::model::{Flight, Model};
use crate::step::{FLIGHTS, GRANULARITIES, NAMES, Step};
use crate::violation::Violation;

/// The names whose bits are set.
fn chosen(bits: u8) -> impl Iterator<Item = &'static str> {
    let numbered = NAMES.iter().enumerate();
    let set = numbered.filter(move |(number, _)| bits >> number & 1 == 1);
    set.map(|(_, name)| *name)
}

impl Run<'_> {
    pub(super) fn step(&mut self, step: &Step) -> Held {
        match *step {
            Step::Write(offset, length) => {
                self.begin(offset, length)?;
                self.end(self.flights.len() - 1)
            }
            Step::Begin(offset, length) if self.flights.len() < FLIGHTS => {
                self.begin(offset, length)
            }
            Step::Begin(..) => Ok(()),
            Step::End if self.flights.is_empty() => Ok(()),
            Step::End => self.end(0),
            Step::Add(name, granularity, recording, dirty) => {
                self.add(NAMES[name], GRANULARITIES[granularity], recording, dirty)
            }
            Step::Remove(name) => self.remove(NAMES[name]),
            Step::Record(name, on) => {
                let flights = self.flights();
                if on && !self.model.is_frozen(NAMES[name]) {
                    self.announce_recording(NAMES[name], &flights);
                }
                self.on_unfrozen(
                    NAMES[name],
                    |model, name| model.set_recording(name, on, &flights),
                    |image, name| image.set_recording(name, on),
                )
            }
            Step::Several(removed, turned, on, added, granularity) => {
                self.change_several(removed, turned, on, added, GRANULARITIES[granularity])
            }
            Step::GiveUp(name) => self.on(
                NAMES[name],
                |model, name| {
                    if let Some(bitmap) = model.usable(name) {
                        bitmap.give_up();
                    }
                },
                |image, name| image.set_inconsistent(name, "given up"),
            ),
            Step::Clear(name) => {
                let flights = self.flights();
                self.on_unfrozen(
                    NAMES[name],
                    |model, name| model.clear(name, &flights),
                    |image, name| image.clear_bitmap(name),
                )
            }
            Step::Merge(target, sources) => self.merge(NAMES[target], sources),
            Step::Rename(from, to) => self.rename(NAMES[from], NAMES[to]),
            Step::Granularity(name, granularity) => {
                let flights = self.flights();
                let granularity_bytes = GRANULARITIES[granularity];
                self.on_unfrozen(
                    NAMES[name],
                    |model, name| model.set_granularity(name, granularity_bytes, &flights),
                    |image, name| image.set_granularity(name, granularity_bytes),
                )
            }
            Step::Mark(name, offset, length) => self.mark(NAMES[name], offset, length),
            Step::UserData(name, length) => {
                // Which bytes does not matter, as long as two lengths differ in more than their length.
                let data = length.map(|length| vec![length as u8; length]);
                self.on(
                    NAMES[name],
                    |model, name| {
                        if let Some(bitmap) = model.usable(name) {
                            bitmap.user_data.clone_from(&data);
                        }
                    },
                    |image, name| image.set_user_data(name, data.as_deref()),
                )
            }
            Step::Foreign(how, vouched) => self.foreign(how, vouched),
            Step::MergeBits(name, seed) => self.merge_bits(NAMES[name], seed),
            Step::StoreBits(name, seed) => self.store_bits(NAMES[name], seed),
            Step::Freeze(name) => self.freeze(NAMES[name]),
            Step::Checkpoint(name, offset) => self.checkpoint(NAMES[name], offset),
            Step::Commit(name) => self.commit(NAMES[name]),
            Step::Abort(name) => self.abort(NAMES[name]),
            Step::Resize(sectors, follows) => self.resize(sectors * 512, follows),
            Step::BeginResize(sectors, early) => self.begin_resize(sectors * 512, early),
            Step::EndResize(end) => self.end_resize(end),
            Step::Reopen(process) => self.reopen_after_close(process, true),
            Step::Reactivate => self.reopen_after_close(self.is_process, false),
            Step::Kill => self.crash(crate::outcome::Outcome::Kill),
            Step::Cut(seed) => self.crash(crate::outcome::Outcome::CutRandom(seed)),
        }
    }

    /// A change of one usable bitmap; of any other name it must be refused.
    fn on(
        &mut self,
        name: &str,
        apply: impl Fn(&mut Model, &str),
        call: impl FnOnce(&Image, &str) -> qbm_core::Result<()>,
    ) -> Held {
        if self.model.usable(name).is_some() {
            return self.change(|model| apply(model, name), |image| call(image, name));
        }
        self.refused(ErrorKind::NotFound, |image| call(image, name))
    }

    /// As [`on`](Self::on); of a frozen bitmap it must be refused.
    fn on_unfrozen(
        &mut self,
        name: &str,
        apply: impl Fn(&mut Model, &str),
        call: impl FnOnce(&Image, &str) -> qbm_core::Result<()>,
    ) -> Held {
        if self.model.is_frozen(name) {
            return self.refused(ErrorKind::Busy, |image| call(image, name));
        }
        self.on(name, apply, call)
    }

    /// A call that must fail and change nothing.
    pub(super) fn refused(
        &mut self,
        kind: ErrorKind,
        call: impl FnOnce(&Image) -> qbm_core::Result<()>,
    ) -> Held {
        let expectation = self.expect([]);
        let result = self.call(&expectation, |run| run.image.as_ref().map(call))?;
        match result.expect("steps are run on an open image") {
            Err(error) if error.kind() == kind || self.is_faulty => Ok(()),
            other => Err(Violation::new(
                "API",
                format!("{other:?} instead of {kind:?}"),
            )),
        }
    }

    fn add(&mut self, name: &str, granularity_bytes: u64, recording: bool, dirty: bool) -> Held {
        let call = |image: &Image| match dirty {
            true => image.add_dirty_bitmap(name, granularity_bytes, recording),
            false => image.add_bitmap(name, granularity_bytes, recording),
        };
        if self.model.bitmaps.contains_key(name) {
            return self.refused(ErrorKind::Exists, call);
        }
        let flights = self.flights();
        let apply =
            |model: &mut Model| model.add(name, granularity_bytes, recording, dirty, &flights);
        self.change(apply, call)
    }

    fn remove(&mut self, name: &str) -> Held {
        if !self.model.bitmaps.contains_key(name) {
            return self.refused(ErrorKind::NotFound, |image| image.remove_bitmap(name));
        }
        if self.model.is_frozen(name) {
            return self.refused(ErrorKind::Busy, |image| image.remove_bitmap(name));
        }
        let apply = |model: &mut Model| {
            model.bitmaps.remove(name);
        };
        self.change(apply, |image| image.remove_bitmap(name))
    }

    fn change_several(
        &mut self,
        removed: u8,
        turned: u8,
        recording: bool,
        added: u8,
        granularity_bytes: u64,
    ) -> Held {
        let removed_names = chosen(removed).map(|name| BitmapChange::Remove { name });
        let turned_names = chosen(turned & !removed);
        let turned_names = turned_names.map(|name| BitmapChange::SetRecording { name, recording });
        let added_names = chosen(added & !removed & !turned);
        let added_names = added_names.map(|name| BitmapChange::Add {
            name,
            granularity_bytes,
            recording: true,
            all_dirty: false,
        });
        let changes: Vec<_> = removed_names
            .chain(turned_names)
            .chain(added_names)
            .collect();
        let mut refusals = changes
            .iter()
            .filter_map(|change| self.model.refusal(change));
        if let Some(kind) = refusals.next() {
            return self.refused(kind, |image| image.change_bitmaps(&changes));
        }
        let flights = self.flights();
        for name in chosen(turned & !removed).filter(|_| recording) {
            self.announce_recording(name, &flights);
        }
        self.change(
            |model| {
                for change in &changes {
                    model.change(change, &flights);
                }
            },
            |image| image.change_bitmaps(&changes),
        )
    }

    fn announce_recording(&mut self, name: &str, flights: &[Flight]) {
        let models = self.on_disk.iter_mut().chain([&mut self.model]);
        models.for_each(|model| model.announce_recording(name, flights));
    }

    fn merge(&mut self, target: &str, sources: u8) -> Held {
        let sources: Vec<&str> = chosen(sources).collect();
        let names = [&[target], &sources[..]].concat();
        if names.iter().any(|name| self.model.usable(name).is_none()) {
            return self.refused(ErrorKind::NotFound, |image| {
                image.merge_bitmaps(target, &sources)
            });
        }
        if names.iter().any(|name| self.model.is_frozen(name)) {
            return self.refused(ErrorKind::Busy, |image| {
                image.merge_bitmaps(target, &sources)
            });
        }
        let flights = self.flights();
        self.change(
            |model| model.merge(target, &sources, &flights),
            |image| image.merge_bitmaps(target, &sources),
        )
    }

    fn rename(&mut self, from: &str, to: &str) -> Held {
        let call = |image: &Image| image.rename_bitmap(from, to);
        if self.model.usable(from).is_none() {
            return self.refused(ErrorKind::NotFound, call);
        }
        if self.model.is_frozen(from) {
            return self.refused(ErrorKind::Busy, call);
        }
        if from != to && self.model.bitmaps.contains_key(to) {
            return self.refused(ErrorKind::Exists, call);
        }
        self.change(|model| model.rename(from, to), call)
    }

    /// Bits come one after the other here: a crash leaves any of them.
    fn mark(&mut self, name: &str, offset: u64, length_bytes: u64) -> Held {
        let offset_bytes = offset % self.model.size_bytes;
        let length_bytes = length_bytes.min(self.model.size_bytes - offset_bytes);
        let models = self.on_disk.iter_mut().chain([&mut self.model]);
        models.for_each(|model| {
            if let Some(bitmap) = model.usable(name) {
                bitmap.announce(offset_bytes, length_bytes);
            }
        });
        let call = |image: &Image| image.mark_dirty(name, offset_bytes, length_bytes);
        if self.model.usable(name).is_none() {
            return self.refused(ErrorKind::NotFound, call);
        }
        let expectation = self.expect([]);
        let result = self.call(&expectation, |run| run.image.as_ref().map(call))?;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                // Of the text, where it is not known which one the disk has, this says nothing.
                let models = self.on_disk.iter_mut().chain([&mut self.model]);
                models.for_each(|model| model.mark_dirty(name, offset_bytes, length_bytes));
            }
            Err(error) => self.allow(&error)?,
        }
        self.adopt_losses();
        self.explore_now(self.expect([]))
    }

    fn announce(&mut self, offset_bytes: u64, length_bytes: u64) {
        // Where it is not known which text the disk has, a bitmap that records in one of them records in all.
        let models = self.on_disk.iter().chain([&self.model]);
        let recording: BTreeSet<String> =
            models.flat_map(Model::recording_names).cloned().collect();
        for model in self.on_disk.iter_mut().chain([&mut self.model]) {
            for name in &recording {
                if let Some(bitmap) = model.usable(name) {
                    bitmap.announce(offset_bytes, length_bytes);
                }
            }
        }
    }

    fn let_through(&mut self, offset_bytes: u64, length_bytes: u64) {
        let models = self.on_disk.iter_mut().chain([&mut self.model]);
        models.for_each(|model| model.let_through(offset_bytes, length_bytes));
    }

    fn begin(&mut self, offset: u64, length_bytes: u64) -> Held {
        let guest_bytes = self.model.guest_bytes();
        let offset_bytes = offset % guest_bytes;
        let length_bytes = length_bytes.min(guest_bytes - offset_bytes);
        self.announce(offset_bytes, length_bytes);
        let expectation = self.expect([]);
        let begun = self.call(&expectation, |run| {
            run.image
                .as_ref()
                .map(|image| image.begin_write(offset_bytes, length_bytes))
        })?;
        let told = |error| Violation::new("API", format!("{error}"));
        let (ticket, begun) = begun
            .expect("steps are run on an open image")
            .map_err(told)?;
        let mut let_through = begun == Begun::Ready;
        if !let_through {
            let_through = self.wait()?;
        }
        if let_through {
            self.let_through(offset_bytes, length_bytes);
            self.disk.guest_write(&self.data);
        }
        let flight = Flight {
            offset_bytes,
            length_bytes,
            let_through,
        };
        self.flights.push((ticket, flight));
        self.explore_now(self.expect([]))
    }

    /// The engine wants to wait: a bitmap could not record, and is given up. Whether the write is let through.
    fn wait(&mut self) -> Result<bool, Violation> {
        if !self.is_excused {
            return Err(Violation::new(
                "API",
                "a write must wait though no bitmap's file failed",
            ));
        }
        let expectation = self.expect([]);
        let waited = self.call(&expectation, |run| {
            run.image.as_ref().map(Image::wait_write)
        })?;
        let waited = waited.expect("steps are run on an open image");
        self.adopt_losses();
        if waited.is_ok() {
            self.on_disk = vec![self.model.clone()];
        }
        Ok(waited.is_ok())
    }

    pub(super) fn end(&mut self, index: usize) -> Held {
        let (ticket, _) = self.flights.remove(index);
        if let Some(image) = &self.image {
            image.end_write(ticket);
        }
        Ok(())
    }
}
