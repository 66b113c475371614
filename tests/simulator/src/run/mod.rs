// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a sequence against an image and the model, and explores every place on the way.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `mod.rs` | calls of the engine: what may be found during one, and after it |
//! | `steps.rs` | what each step does |
//! | `bits.rs` | bits of a whole bitmap, stored and merged |
//! | `copy.rs` | incremental copies: freeze, checkpoint, commit, abort |
//! | `resize.rs` | resizes, with other steps between begin and end |
//! | `life.rs` | create, close, reopen, crashes that the sequence goes on after |

mod bits;
mod copy;
mod life;
mod resize;
mod steps;

use std::path::PathBuf;

use qbm_core::{Image, Ticket};

use crate::disk::{Fault, Operation, Place, SimulatedDisk};
use crate::found::{Allowed, Found};
use crate::judge::{Depth, Expectation, Session, judge};
use crate::model::{Flight, Model};
use crate::outcome::Outcome;
use crate::stats::Stats;
use crate::step::Sequence;
use crate::violation::Violation;

/// How much of a sequence is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Random power cuts at each place, besides the particular ones.
    pub cuts: usize,
    /// One in so many crashes is followed by another within the recovery.
    pub second_one_in: u64,
    /// One in so many recovered images is used, closed and opened again.
    pub lives_one_in: u64,
}

/// Result of a step.
type Held = Result<(), Violation>;

/// A running sequence.
struct Run<'a> {
    disk: SimulatedDisk,
    data: PathBuf,
    image: Option<Image>,
    /// What memory says.
    model: Model,
    /// What the descriptor on disk may say: more than one after a change that failed.
    on_disk: Vec<Model>,
    /// The session's level is `process`.
    is_process: bool,
    flights: Vec<(Ticket, Flight)>,
    /// The fault has struck.
    is_faulty: bool,
    /// It struck a bitmap's file.
    is_excused: bool,
    /// The image is being closed.
    is_closing: bool,
    /// A sync of a bitmap's file failed at the close and dropped pages: a file says less than it was told.
    cache_lost: bool,
    /// A resize could not be ended on disk: until it is, a crash makes the tail from there on dirty.
    tail_from: Option<u64>,
    /// Whoever opens the image vouches for the data image.
    vouched: bool,
    /// Without a fault: everything is explored. With one: only what comes after it has struck.
    fault: Option<Fault>,
    effort: Effort,
    only: Option<String>,
    random: fastrand::Rng,
    stats: &'a Stats,
}

/// Runs `sequence`. `only`: explores nothing but the crash of that label.
///
/// Returns the operations of the seam that it took.
///
/// # Errors
/// The first promise that does not hold.
pub fn run(
    sequence: &Sequence,
    fault: Option<Fault>,
    effort: Effort,
    seed: u64,
    only: Option<&str>,
    stats: &Stats,
) -> Result<Vec<Operation>, Violation> {
    let disk = SimulatedDisk::default();
    disk.count_kinds();
    if let Some(fault) = fault {
        disk.inject(fault);
    }
    if only.is_some() {
        disk.start_trace();
    }
    let mut run = Run {
        data: life::data_path(&sequence.setup),
        disk: disk.clone(),
        image: None,
        model: Model::new(sequence.setup.sectors * 512),
        on_disk: Vec::new(),
        is_process: sequence.setup.process,
        flights: Vec::new(),
        is_faulty: false,
        is_excused: false,
        is_closing: false,
        cache_lost: false,
        tail_from: None,
        vouched: false,
        fault,
        effort,
        only: only.map(str::to_owned),
        random: fastrand::Rng::with_seed(seed),
        stats,
    };
    let result = run.all(sequence);
    if only.is_some() {
        for line in disk.take_trace() {
            println!("{line}");
        }
    }
    result.map(|()| disk.take_kinds())
}

impl Run<'_> {
    fn all(&mut self, sequence: &Sequence) -> Held {
        self.create(&sequence.setup)
            .map_err(|violation| violation.within("while it is created"))?;
        for (index, step) in sequence.steps.iter().enumerate() {
            self.step(step)
                .and_then(|()| self.compare_memory())
                .map_err(|violation| violation.within(format!("in step {index}: {step:?}")))?;
        }
        self.finish()
            .map_err(|violation| violation.within("when the sequence was over"))
    }

    fn flights(&self) -> Vec<Flight> {
        self.flights.iter().map(|(_, flight)| *flight).collect()
    }

    /// While the image is open: what is on disk is one of the known models, or one of `more`.
    fn expect(&self, more: impl IntoIterator<Item = Model>) -> Expectation {
        let mut candidates: Vec<Model> = Vec::new();
        for mut model in self.on_disk.iter().cloned().chain(more) {
            if let Some(tail_from) = self.tail_from {
                model.announce(tail_from, u64::MAX);
            }
            if !candidates.contains(&model) {
                candidates.push(model);
            }
        }
        Expectation {
            candidates,
            sealed: None,
            session: Session::On,
            survives_kill: self.is_process,
            excused: self.is_excused,
            cache_lost: self.cache_lost,
        }
    }

    /// Calls the engine, then explores every place within the call.
    fn call<T>(
        &mut self,
        expectation: &Expectation,
        call: impl FnOnce(&Self) -> T,
    ) -> Result<T, Violation> {
        self.disk.watch();
        let result = call(self);
        let places = self.disk.take_places();
        // A fault in this call excuses what this call left.
        self.take_hits();
        let mut expectation = expectation.clone();
        expectation.excused |= self.is_excused;
        expectation.cache_lost |= self.cache_lost;
        for place in &places {
            self.explore(place, &expectation)?;
        }
        if let Some(broken) = self.disk.broken() {
            return Err(Violation::new("I6", broken));
        }
        Ok(result)
    }

    fn take_hits(&mut self) {
        for hit in self.disk.take_hits() {
            if !self.is_faulty
                && let Some(fault) = self.fault
            {
                self.stats.fault(hit.operation, fault.failure);
            }
            self.is_faulty = true;
            let is_bitmap = hit
                .path
                .extension()
                .is_some_and(|suffix| suffix == "bitmap");
            self.is_excused |= is_bitmap;
            self.cache_lost |= is_bitmap && self.is_closing && hit.operation == Operation::SyncData;
        }
    }

    /// An error without a fault is one too many.
    fn allow(&self, error: &qbm_core::Error) -> Held {
        if self.is_faulty {
            return Ok(());
        }
        Err(Violation::new(
            "API",
            format!("refused without a reason: {error}"),
        ))
    }

    /// A change of the bitmaps that must succeed, `apply` in the model.
    fn change(
        &mut self,
        apply: impl Fn(&mut Model),
        call: impl FnOnce(&Image) -> qbm_core::Result<()>,
    ) -> Held {
        let after = |model: &Model| {
            let mut model = model.clone();
            apply(&mut model);
            model
        };
        let new = after(&self.model);
        let mut on_disk: Vec<Model> = self.on_disk.iter().map(after).collect();
        let expectation = self.expect(on_disk.clone());
        let result = self.call(&expectation, |run| run.image.as_ref().map(call))?;
        match result.expect("steps are run on an open image") {
            Ok(()) => {
                if new != self.model {
                    on_disk = vec![new.clone()];
                }
                self.model = new;
                self.on_disk = on_disk;
            }
            Err(error) => {
                self.allow(&error)?;
                self.failed(new, on_disk);
            }
        }
        self.adopt_losses();
        self.explore_now(self.expect([]))
    }

    /// After a change that failed, the disk may hold either; the caller was told that it holds the old.
    fn failed(&mut self, new: Model, on_disk: Vec<Model>) {
        for mut model in on_disk.into_iter().chain([new]) {
            for (name, bitmap) in &mut model.bitmaps {
                bitmap.phantom = !self.model.bitmaps.contains_key(name);
            }
            if !self.on_disk.contains(&model) {
                self.on_disk.push(model);
            }
        }
    }

    /// Bitmaps that a fault made inconsistent are so from now on.
    fn adopt_losses(&mut self) {
        let Some(image) = self.image.as_ref().filter(|_| self.is_excused) else {
            return;
        };
        for info in image.bitmaps() {
            let bitmap = self.model.bitmaps.get_mut(&info.name);
            if let Some(bitmap) = bitmap.filter(|_| info.inconsistent) {
                bitmap.give_up();
            }
        }
    }

    fn compare_memory(&self) -> Held {
        let Some(image) = &self.image else {
            return Ok(());
        };
        let allowed = Allowed {
            lost: self.is_excused,
            lacking: false,
        };
        Found::in_resized(image, self.model.extent_bytes())?
            .compare(&self.model.without_tail().as_read(), allowed)
            .map_err(|violation| violation.within("in memory"))?;
        for info in image.bitmaps() {
            if info.frozen != self.model.is_frozen(&info.name) && !info.inconsistent {
                let text = format!("bitmap {:?}: frozen is {}", info.name, info.frozen);
                return Err(Violation::new("API", text));
            }
        }
        Ok(())
    }

    /// Explores the host as it is now.
    fn explore_now(&mut self, expectation: Expectation) -> Held {
        let place = Place {
            number: self.disk.operations_count(),
            part: 9,
            operation: Operation::Id,
            path: "after the call".into(),
            world: self.disk.world(),
        };
        self.explore(&place, &expectation)
    }

    fn explore(&mut self, place: &Place, expectation: &Expectation) -> Held {
        if self.fault.is_some() && !self.is_faulty {
            return Ok(());
        }
        let outcomes = Outcome::at(&place.world, self.effort.cuts, &mut self.random);
        for outcome in outcomes {
            let mut random = self.random.fork();
            let label = format!("{}.{}/{outcome:?}", place.number, place.part);
            if self.only.as_ref().is_some_and(|only| *only != label) {
                continue;
            }
            let depth = Depth {
                crashes: u8::from(random.u64(0..self.effort.second_one_in) == 0),
                lives_on: random.u64(0..self.effort.lives_one_in) == 0,
            };
            let world = outcome.apply(&place.world);
            judge(
                world,
                &self.data,
                outcome,
                expectation,
                depth,
                &mut random,
                self.stats,
            )
            .map_err(|violation| {
                let operation = format!("{:?} {}", place.operation, place.path.display());
                violation.within(format!(
                    "after {outcome:?} at operation {}, {operation} (--crash '{label}')",
                    place.number
                ))
            })?;
        }
        Ok(())
    }
}
