// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens what a crash left, and holds it against what may be there.

use std::path::Path;
use std::sync::Arc;

use qbm_core::storage::Storage;
use qbm_core::{Activation, Begun, Durability, Image, OpenOptions};

use crate::disk::{SimulatedDisk, World};
use crate::found::{Allowed, Found};
use crate::model::Model;
use crate::outcome::Outcome;
use crate::stats::Stats;
use crate::violation::Violation;

/// The descriptor of every simulated image.
pub const DESCRIPTOR: &str = "/sim/x.qbm";

/// Whether a session is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The image is open: it must be.
    On,
    /// The image is closed: it must not be.
    Off,
    /// It is being opened or closed.
    Either,
}

/// What a crash may leave.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The image is like one of these (I4): before the operation under way, after it.
    pub candidates: Vec<Model>,
    /// Where no session is on record, the image is like this (I3).
    pub sealed: Option<Model>,
    /// Whether a session is on record.
    pub session: Session,
    /// The session's level is `process`: the end of the process costs nothing.
    pub survives_kill: bool,
    /// A bitmap's file failed: bitmaps may be inconsistent.
    pub excused: bool,
    /// While a session is on record, bits may be missing: a failed sync took back what writes had put in the page cache,
    /// which is more than the medium may do (assumption 1).
    pub cache_lost: bool,
}

/// How much is tried with what a crash left.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Further crashes within the recovery.
    pub crashes: u8,
    /// The image is used and closed after its recovery.
    pub lives_on: bool,
}

/// Size of the data image now, as its owner would tell.
pub fn data_bytes(disk: &SimulatedDisk, data: &Path) -> u64 {
    disk.content(data)
        .map_or(0, |content| content.length_bytes())
}

/// Opens the image and activates it; also whether a session was on record.
///
/// # Errors
/// The engine's.
pub fn reopen(
    disk: &SimulatedDisk,
    data: &Path,
    durability: Durability,
    read_only: bool,
) -> qbm_core::Result<(Image, bool)> {
    let activation = Activation {
        read_only,
        durability: Some(durability),
        ..Activation::default()
    };
    open_and_activate(disk, data, activation)
}

/// As [`reopen`], for writing; the caller may vouch for the data image.
///
/// # Errors
/// The engine's.
pub fn reopen_vouching(
    disk: &SimulatedDisk,
    data: &Path,
    durability: Durability,
    vouched: bool,
) -> qbm_core::Result<(Image, bool)> {
    let activation = Activation {
        trust_data: vouched,
        durability: Some(durability),
        ..Activation::default()
    };
    open_and_activate(disk, data, activation)
}

fn open_and_activate(
    disk: &SimulatedDisk,
    data: &Path,
    mut activation: Activation,
) -> qbm_core::Result<(Image, bool)> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = OpenOptions {
        read_only: activation.read_only,
        ..OpenOptions::default()
    };
    let image = Image::open(storage, Path::new(DESCRIPTOR), options)?;
    let in_use = image.info().in_use;
    activation.size_bytes = data_bytes(disk, data);
    image.activate(&activation)?;
    Ok((image, in_use))
}

impl Expectation {
    /// Whether a bitmap may be inconsistent after `outcome`, with or without a session on record (I2).
    fn may_lose(&self, outcome: Outcome, in_use: bool) -> bool {
        self.excused || in_use && (outcome.is_cut() || !self.survives_kill)
    }

    fn check_session(&self, in_use: bool) -> Result<(), Violation> {
        match self.session {
            Session::On if !in_use => Err(Violation::new(
                "I2",
                "no session is on record while the image is open for writing",
            )),
            Session::Off if in_use => Err(Violation::new(
                "I3",
                "a session is on record after a clean close",
            )),
            _ => Ok(()),
        }
    }

    fn check(
        &self,
        found: &Found,
        in_use: bool,
        may_be_lost: bool,
        size_bytes: u64,
    ) -> Result<(), Violation> {
        let sealed = self.sealed.as_ref().filter(|_| !in_use);
        let candidates = match sealed {
            Some(sealed) => std::slice::from_ref(sealed),
            None => &self.candidates,
        };
        let allowed = Allowed {
            lost: may_be_lost,
            lacking: self.cache_lost && in_use,
        };
        let mut first = None;
        for candidate in candidates {
            match found.compare(&candidate.at_size(size_bytes), allowed) {
                Ok(()) => return Ok(()),
                // The one that got furthest tells most.
                Err(violation) if violation.context.is_empty() => {
                    first.get_or_insert(violation);
                }
                Err(violation) => first = Some(violation),
            }
        }
        Err(first.unwrap_or_else(|| Violation::new("API", "nothing is expected")))
    }
}

/// Judges the image in `world`, which `outcome` left.
///
/// # Errors
/// The first promise that does not hold.
pub fn judge(
    world: World,
    data: &Path,
    outcome: Outcome,
    expectation: &Expectation,
    depth: Depth,
    random: &mut fastrand::Rng,
    stats: &Stats,
) -> Result<(), Violation> {
    stats.crash_point(outcome);
    let disk = SimulatedDisk::of(world);
    if depth.crashes > 0 {
        disk.watch();
    }
    let opens =
        |error: qbm_core::Error| Violation::new("I5", format!("the image does not open: {error}"));
    let (image, in_use) = reopen(&disk, data, Durability::Process, false).map_err(opens)?;
    expectation.check_session(in_use)?;
    let may_be_lost = expectation.may_lose(outcome, in_use);
    let found = Found::in_image(&image)?;
    let size_bytes = data_bytes(&disk, data);
    expectation.check(&found, in_use, may_be_lost, size_bytes)?;
    if let Some(broken) = disk.broken() {
        return Err(Violation::new("I6", broken));
    }
    if depth.crashes > 0 {
        let mut places = disk.take_places();
        let chosen = random.usize(0..=places.len());
        let (label, world) = if chosen < places.len() {
            let place = places.swap_remove(chosen);
            (
                format!("{:?} {}", place.operation, place.path.display()),
                place.world,
            )
        } else {
            ("its end".to_owned(), disk.world())
        };
        let again = Outcome::any(random);
        let expectation = Expectation {
            session: Session::Either,
            survives_kill: true,
            excused: may_be_lost,
            ..expectation.clone()
        };
        let depth = Depth {
            crashes: depth.crashes - 1,
            ..depth
        };
        stats.second_crash();
        let world = again.apply(&world);
        judge(world, data, again, &expectation, depth, random, stats).map_err(|violation| {
            violation.within(format!("after {again:?} within recovery, at {label}"))
        })?;
    }
    if depth.lives_on {
        live_on(&disk, image, data, &found, random)?;
    }
    Ok(())
}

/// A recovered image is as good as any: it records, closes and opens again.
fn live_on(
    disk: &SimulatedDisk,
    image: Image,
    data: &Path,
    found: &Found,
    random: &mut fastrand::Rng,
) -> Result<(), Violation> {
    let told = |error: qbm_core::Error| {
        Violation::new("I5", error.to_string()).within("using the image after its recovery")
    };
    let mut model = found.to_model();
    let offset_bytes = random.u64(0..model.size_bytes);
    let (ticket, begun) = image.begin_write(offset_bytes, 1).map_err(told)?;
    if begun != Begun::Ready {
        return Err(Violation::new(
            "API",
            "a write must wait though nothing failed",
        ));
    }
    model.let_through(offset_bytes, 1);
    disk.guest_write(data);
    image.end_write(ticket);
    disk.guest_flush(data);
    image.inactivate().map_err(told)?;
    drop(image);
    let (image, in_use) = reopen(disk, data, Durability::Process, false).map_err(told)?;
    if in_use {
        return Err(Violation::new(
            "I3",
            "a session is on record after a clean close",
        ));
    }
    Found::in_image(&image)?
        .compare(&model, Allowed::NOTHING)
        .map_err(|violation| violation.within("after recovery, a write and a clean close"))
}
