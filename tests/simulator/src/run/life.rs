// SPDX-License-Identifier: MIT OR Apache-2.0
//! How an image comes into being, is closed and opened, and what a sequence does after a crash.

use std::path::{Path, PathBuf};

use qbm_core::{Activation, CreateOptions, Durability, Image};

use super::{Held, Run};
use crate::found::{Allowed, Found};
use crate::judge::{DESCRIPTOR, Expectation, Session, data_bytes, reopen, reopen_vouching};
use crate::model::Model;
use crate::outcome::Outcome;
use crate::step::{Foreign, ResizeEnd, Setup};
use crate::violation::Violation;

/// Files of somebody else, under names that the engine thinks of first.
const CROWD: [&str; 3] = ["/sim/x.qbm.new", "/sim/x.qbm.b0.bitmap", "/sim/x.qbm.raw"];

/// The data image of a sequence.
pub(super) fn data_path(setup: &Setup) -> PathBuf {
    let path = match (setup.adopted, setup.crowded) {
        (true, _) => "/sim/disk.img",
        (false, true) => "/sim/x.qbm.1.raw",
        (false, false) => "/sim/x.qbm.raw",
    };
    path.into()
}

fn durability(is_process: bool) -> Durability {
    if is_process {
        Durability::Process
    } else {
        Durability::Close
    }
}

fn unexpected(error: &qbm_core::Error) -> Violation {
    Violation::new("I5", error.to_string())
}

impl Run<'_> {
    pub(super) fn create(&mut self, setup: &Setup) -> Held {
        if setup.crowded {
            for path in CROWD {
                self.disk
                    .put_precious(Path::new(path), 5000, b"somebody else's");
            }
        }
        let size_bytes = self.model.size_bytes;
        if setup.adopted {
            self.disk
                .put_precious(&self.data, size_bytes, b"a guest's disk");
        }
        let options = CreateOptions {
            size_bytes,
            data_file: setup.adopted.then(|| "disk.img".to_owned()),
            data_format: "raw".into(),
            durability: None,
            persist_bitmaps: None,
            no_lock: false,
            exclusive: false,
        };
        let mut result = Image::create(&self.disk, Path::new(DESCRIPTOR), &options);
        self.take_hits();
        if let Err(error) = &result {
            self.allow(error)?;
            self.disk.heal();
            result = Image::create(&self.disk, Path::new(DESCRIPTOR), &options);
        }
        let created = result.map_err(|error| unexpected(&error))?;
        if created.data_file != self.data {
            // A fault may have left the first choice behind.
            self.allow(&qbm_core::Error::invalid("the data image has another name"))?;
            self.data = created.data_file;
        }
        if !setup.adopted {
            self.disk.make_precious(&self.data);
        }
        self.on_disk = vec![self.model.clone()];
        self.explore_now(self.expect_closed(&self.model.clone()))?;
        self.open(true)
    }

    /// The image is closed and exactly like this (I3).
    fn expect_closed(&self, exact: &Model) -> Expectation {
        Expectation {
            candidates: vec![exact.clone()],
            sealed: Some(exact.clone()),
            session: Session::Off,
            survives_kill: true,
            excused: self.is_excused,
            cache_lost: false,
        }
    }

    /// The image is being opened: it may or may not have a session.
    fn expect_opening(&self) -> Expectation {
        Expectation {
            session: Session::Either,
            ..self.expect([])
        }
    }

    /// Opens the image, which is like one of the models on disk. A fault that keeps it from opening ends here.
    fn open(&mut self, with_open: bool) -> Held {
        let mut expectation = self.expect_opening();
        let level = durability(self.is_process);
        let result = self.call(&expectation, |run| match &run.image {
            Some(image) if !with_open => {
                let activation = Activation {
                    size_bytes: data_bytes(&run.disk, &run.data),
                    read_only: false,
                    durability: Some(level),
                    ..Activation::default()
                };
                image.activate(&activation).map(|()| None)
            }
            _ => reopen_vouching(&run.disk, &run.data, level, run.vouched)
                .map(|(image, _)| Some(image)),
        })?;
        let result = result.or_else(|error| {
            self.allow(&error)?;
            self.disk.heal();
            self.image = None;
            // Its session may be on record; of level `close`, that costs the bitmaps.
            self.is_excused |= !self.is_process;
            let reopened = reopen(&self.disk, &self.data, level, false);
            reopened
                .map(|(image, _)| Some(image))
                .map_err(|error| unexpected(&error))
        });
        if let Some(image) = result? {
            self.image = Some(image);
        }
        expectation.excused |= self.is_excused;
        self.adopt(&expectation, expectation.excused)?;
        self.explore_now(self.expect([]))
    }

    /// What was found in memory is the truth from now on, if it is one of the candidates.
    fn adopt(&mut self, expectation: &Expectation, may_be_lost: bool) -> Held {
        let image = self.image.as_ref().expect("just opened");
        let found = Found::in_image(image)?;
        let allowed = Allowed {
            lost: may_be_lost,
            lacking: expectation.cache_lost,
        };
        let size_bytes = data_bytes(&self.disk, &self.data);
        let compared = expectation
            .candidates
            .iter()
            .map(|candidate| found.compare(&candidate.at_size(size_bytes), allowed));
        let failures: Vec<Violation> = compared.filter_map(Result::err).collect();
        if failures.len() == expectation.candidates.len() {
            let first = failures.into_iter().next();
            return Err(first
                .expect("there is a candidate")
                .within("in the reopened image"));
        }
        self.model = found.to_model();
        self.on_disk = vec![self.model.clone()];
        self.cache_lost = false;
        self.tail_from = None;
        Ok(())
    }

    /// The caller ends its writes and flushes the data image, then closes.
    fn close(&mut self) -> Held {
        self.end_resize(ResizeEnd::Announced)?;
        while !self.flights.is_empty() {
            let (ticket, _) = self.flights.remove(0);
            if let Some(image) = &self.image {
                image.end_write(ticket);
            }
        }
        self.disk.guest_flush(&self.data);
        self.compare_memory()?;
        let image = self.image.as_ref().expect("steps are run on an open image");
        let mut exact = Found::in_image(image)?.to_model();
        // A close ends a freeze, and keeps all; memory has shown the frozen view only.
        for (name, bitmap) in &mut exact.bitmaps {
            if self.model.is_frozen(name) && !bitmap.inconsistent {
                bitmap.clone_from(&self.model.bitmaps[name]);
                bitmap.frozen = None;
            }
        }
        let expectation = Expectation {
            sealed: Some(exact.clone()),
            session: Session::Either,
            ..self.expect([exact.clone()])
        };
        self.is_closing = true;
        let result = self.call(&expectation, |run| {
            run.image.as_ref().map(Image::inactivate)
        })?;
        self.is_closing = false;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                self.on_disk = vec![exact.clone()];
                self.explore_now(self.expect_closed(&exact))
            }
            Err(error) => {
                self.allow(&error)?;
                if !self.on_disk.contains(&exact) {
                    self.on_disk.push(exact);
                }
                // The session may stay on record; of level `close`, that costs the bitmaps.
                self.is_excused |= !self.is_process;
                let after = self.expect_opening();
                self.explore_now(after)
            }
        }
    }

    /// A look without writing finds what is there, and leaves it.
    fn look(&mut self) -> Held {
        let expectation = self.expect_opening();
        let before = self.disk.world();
        let level = durability(self.is_process);
        let image = match reopen(&self.disk, &self.data, level, true) {
            Ok((image, _)) => image,
            Err(error) => {
                self.take_hits();
                return self.allow(&error);
            }
        };
        self.take_hits();
        if !before.is_same(&self.disk.world()) {
            return Err(Violation::new(
                "API",
                "a read-only activation wrote something",
            ));
        }
        let found = Found::in_image(&image)?;
        let size_bytes = data_bytes(&self.disk, &self.data);
        let allowed = Allowed {
            lost: self.is_excused,
            lacking: self.cache_lost,
        };
        let is_one = expectation.candidates.iter().any(|candidate| {
            found
                .compare(&candidate.at_size(size_bytes), allowed)
                .is_ok()
        });
        if is_one || self.is_faulty {
            return Ok(());
        }
        Err(Violation::new(
            "I4",
            "a read-only activation sees something else",
        ))
    }

    /// A file changes behind the engine's back (I2).
    pub(super) fn foreign(&mut self, how: Foreign, vouched: bool) -> Held {
        self.close()?;
        self.image = None;
        let before_bytes = data_bytes(&self.disk, &self.data);
        match how {
            // A session that a failed close left makes it the crash's business what is in the files.
            Foreign::Flipped if self.is_faulty => {}
            Foreign::Flipped => self.flip_all(),
            Foreign::Written => self.disk.guest_write(&self.data),
            Foreign::Resized(sectors) => self.disk.guest_resize(&self.data, sectors * 512),
        }
        self.disk.guest_flush(&self.data);
        let after_bytes = data_bytes(&self.disk, &self.data);
        // Growth is taken at its word: the tail is dirty.
        let costs = after_bytes <= before_bytes;
        let vouched_for = vouched && how != Foreign::Flipped;
        let mut on_disk = Vec::new();
        for model in std::mem::take(&mut self.on_disk) {
            let mut given_up = model.clone();
            given_up.give_up_all();
            // Where nobody vouches, or has not yet.
            if costs {
                on_disk.push(given_up);
            }
            // A close that failed left a session; what was written then counts as written by it.
            if !costs || vouched_for || self.is_faulty {
                on_disk.push(model);
            }
        }
        self.on_disk = on_disk;
        self.explore_now(self.expect_opening())?;
        self.vouched = vouched;
        self.open(true)?;
        self.vouched = false;
        Ok(())
    }

    fn flip_all(&self) {
        for path in self.disk.paths() {
            if path.extension().is_some_and(|suffix| suffix == "bitmap") {
                self.disk.flip(&path);
            }
        }
    }

    pub(super) fn reopen_after_close(&mut self, is_process: bool, with_open: bool) -> Held {
        self.close()?;
        if with_open {
            self.image = None;
            self.look()?;
        }
        self.is_process = is_process;
        self.open(with_open)
    }

    /// A crash that the sequence goes on after.
    pub(super) fn crash(&mut self, outcome: Outcome) -> Held {
        let was_process = self.is_process;
        self.image = None;
        self.flights.clear();
        self.disk.restart(outcome.apply(&self.disk.world()));
        let mut expectation = self.expect_opening();
        // The image was open; what that costs, it costs now.
        expectation.excused |= outcome.is_cut() || !was_process;
        self.is_process = true;
        let (image, _) = match reopen(&self.disk, &self.data, Durability::Process, false) {
            Ok(opened) => opened,
            Err(error) => {
                self.take_hits();
                self.allow(&error)?;
                self.disk.heal();
                reopen(&self.disk, &self.data, Durability::Process, false)
                    .map_err(|error| unexpected(&error))?
            }
        };
        self.take_hits();
        self.image = Some(image);
        self.adopt(&expectation, expectation.excused || self.is_excused)?;
        self.explore_now(self.expect([]))
    }

    /// The fault is over: the image opens, holds what it must, closes and is exact.
    pub(super) fn finish(&mut self) -> Held {
        self.disk.heal();
        self.close()?;
        self.image = None;
        self.look()?;
        self.is_process = true;
        self.open(true)?;
        self.is_faulty = false;
        self.is_excused = false;
        self.close()
    }
}
