// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done to an image, one step after the other, and how such sequences are made.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Names of bitmaps; a step names one by its number. Two of them give the same file name.
pub const NAMES: [&str; 4] = ["b0", "daily", "a/b:é", "a.b.."];
/// Granularities; a step names one by its number.
pub const GRANULARITIES: [u64; 4] = [512, 4096, 65536, 1 << 20];
/// Guest writes that may be in flight at once.
pub const FLIGHTS: usize = 3;

/// One step. Whatever cannot be done in the image's state is tried all the same, and must be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A guest write from begin to end: offset (modulo the size), length.
    Write(u64, u64),
    /// The first half of one; it stays in flight.
    Begin(u64, u64),
    /// The end of the oldest write in flight.
    End,
    /// Name, granularity, recording, all dirty.
    Add(usize, usize, bool, bool),
    /// Name.
    Remove(usize),
    /// Name, on or off.
    Record(usize, bool),
    /// At once, by names as bits of numbers: remove these, turn those that are left of these on or off, add those that are
    /// left of these, with this granularity.
    Several(u8, u8, bool, u8, usize),
    /// Name: the bitmap is given up.
    GiveUp(usize),
    /// Name: its bits go.
    Clear(usize),
    /// Target, sources as bits of a number.
    Merge(usize, u8),
    /// From name to name.
    Rename(usize, usize),
    /// Name, granularity.
    Granularity(usize, usize),
    /// Name, offset (modulo the size), length.
    Mark(usize, u64, u64),
    /// Name, bytes of user data; none.
    UserData(usize, Option<usize>),
    /// Name, seed of the bits: all of them are added, laid out as in the bitmap file.
    MergeBits(usize, u64),
    /// Name, seed of the bits or none for zeros: all of them are replaced. Only while no write is in flight.
    StoreBits(usize, Option<u64>),
    /// Name.
    Freeze(usize),
    /// Name, offset (beyond the size: all): what was frozen before it is copied.
    Checkpoint(usize, u64),
    /// Name.
    Commit(usize),
    /// Name.
    Abort(usize),
    /// New size in sectors, and whether the data image follows.
    Resize(u64, bool),
    /// The first half of one, and whether the data image follows at once.
    BeginResize(u64, bool),
    /// The second half.
    EndResize(ResizeEnd),
    /// A clean close and a new begin with durability process, or close.
    Reopen(bool),
    /// A clean close, and a new begin without another open.
    Reactivate,
    /// A clean close; somebody else changes a file; a new begin, and whether the caller vouches for the change.
    Foreign(Foreign, bool),
    /// The process ends; another one goes on.
    Kill,
    /// The power goes; the host starts again.
    Cut(u64),
}

/// The size at which a resize ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeEnd {
    /// What was announced.
    Announced,
    /// That before.
    Old,
    /// So many sectors.
    Other(u64),
}

/// What somebody does to an image's files while it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// The data image is written, at the same size.
    Written,
    /// The data image is cut or grown to so many sectors.
    Resized(u64),
    /// A bit in every bitmap file is another.
    Flipped,
}

/// What a sequence begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Size of the image in sectors.
    pub sectors: u64,
    /// The first session's durability is process, not close.
    pub process: bool,
    /// The data image was there before.
    pub adopted: bool,
    /// Somebody else's files have the names that come to mind first.
    pub crowded: bool,
}

/// A whole sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// What it begins with.
    pub setup: Setup,
    /// What is done.
    pub steps: Vec<Step>,
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0_u64..64).prop_map(|granule| granule * 65536)
    ]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![
        5 => 1_u64..5000,
        2 => 5000_u64..200_000,
        1 => Just(0),
        1 => Just(1 << 40),
    ]
}

fn sectors() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 1_u64..300,
        4 => (1_u64..40).prop_map(|sixteenths| sixteenths * 128),
        // More than a chunk of bits at the smallest granularity.
        1 => 32_000_u64..40_000,
    ]
}

fn name() -> impl Strategy<Value = usize> {
    0..NAMES.len()
}

fn granularity() -> impl Strategy<Value = usize> {
    0..GRANULARITIES.len()
}

fn several() -> impl Strategy<Value = Step> {
    // Few at a time, or seldom could all be done.
    let names = || prop_oneof![0_u8..3, 0_u8..16];
    let numbers = (names(), names(), any::<bool>(), names(), granularity());
    numbers.prop_map(|(removed, turned, on, added, granularity)| {
        Step::Several(removed, turned, on, added, granularity)
    })
}

fn user_data() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![
        1 => Just(None),
        4 => (0_usize..100).prop_map(Some),
        // The descriptor grows by pages.
        1 => (3000_usize..9000).prop_map(Some),
    ]
}

fn foreign() -> impl Strategy<Value = Foreign> {
    prop_oneof![
        Just(Foreign::Written),
        Just(Foreign::Flipped),
        sectors().prop_map(Foreign::Resized)
    ]
}

fn resize_end() -> impl Strategy<Value = ResizeEnd> {
    prop_oneof![
        3 => Just(ResizeEnd::Announced),
        1 => Just(ResizeEnd::Old),
        2 => sectors().prop_map(ResizeEnd::Other),
    ]
}

fn exchange() -> impl Strategy<Value = Step> {
    let seed = prop::option::weighted(0.7, any::<u64>());
    prop_oneof![
        (name(), any::<u64>()).prop_map(|(name, seed)| Step::MergeBits(name, seed)),
        (name(), seed).prop_map(|(name, seed)| Step::StoreBits(name, seed)),
    ]
}

/// Incremental copies: of few bitmaps, or their steps would seldom meet.
fn copy() -> impl Strategy<Value = Step> {
    let name = || 0_usize..2;
    let offset = prop_oneof![
        0_u64..200_000,
        (0_u64..64).prop_map(|granule| granule * 65536)
    ];
    prop_oneof![
        4 => name().prop_map(Step::Freeze),
        2 => (name(), offset).prop_map(|(name, offset)| Step::Checkpoint(name, offset)),
        2 => name().prop_map(Step::Commit),
        1 => name().prop_map(Step::Abort),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let add = (
        name(),
        granularity(),
        any::<bool>(),
        prop::bool::weighted(0.2),
    );
    prop_oneof![
        6 => (offset(), length()).prop_map(|(offset, length)| Step::Write(offset, length)),
        2 => (offset(), length()).prop_map(|(offset, length)| Step::Begin(offset, length)),
        2 => Just(Step::End),
        4 => add.prop_map(|(name, granularity, off, dirty)| Step::Add(name, granularity, !off, dirty)),
        2 => name().prop_map(Step::Remove),
        2 => (name(), any::<bool>()).prop_map(|(name, on)| Step::Record(name, on)),
        3 => several(),
        1 => name().prop_map(Step::GiveUp),
        3 => name().prop_map(Step::Clear),
        3 => (name(), 0_u8..16).prop_map(|(name, sources)| Step::Merge(name, sources)),
        2 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (name(), granularity()).prop_map(|(name, new)| Step::Granularity(name, new)),
        2 => (name(), offset(), length()).prop_map(|(name, offset, length)| Step::Mark(name, offset, length)),
        2 => (name(), user_data()).prop_map(|(name, length)| Step::UserData(name, length)),
        2 => (sectors(), prop::bool::weighted(0.8)).prop_map(|(size, done)| Step::Resize(size, done)),
        2 => exchange(),
        5 => copy(),
        3 => (sectors(), any::<bool>()).prop_map(|(size, early)| Step::BeginResize(size, early)),
        2 => resize_end().prop_map(Step::EndResize),
        2 => prop::bool::weighted(0.8).prop_map(Step::Reopen),
        1 => Just(Step::Reactivate),
        1 => (foreign(), any::<bool>()).prop_map(|(how, vouched)| Step::Foreign(how, vouched)),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Cut),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let flags = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
    (sectors(), flags).prop_map(|(sectors, (process, adopted, crowded))| Setup {
        sectors,
        process,
        adopted,
        crowded,
    })
}

/// A whole incremental copy, with a write before it, one in flight when it begins, and one during it.
fn whole_copy() -> impl Strategy<Value = Vec<Step>> {
    let write = || (offset(), length());
    // A commit that failed may be on the disk: the abort after it has something to take back.
    let end = prop_oneof![
        Just(vec![Step::Commit(0), Step::Abort(0)]),
        Just(vec![Step::Abort(0)]),
        Just(vec![Step::Kill]),
    ];
    let inputs = (
        granularity(),
        write(),
        write(),
        write(),
        0_u64..200_000,
        end,
    );
    inputs.prop_map(|(granularity, before, in_flight, during, copied, end)| {
        let copy = vec![
            Step::Add(0, granularity, true, false),
            Step::Write(before.0, before.1),
            Step::Begin(in_flight.0, in_flight.1),
            Step::Freeze(0),
            Step::End,
            Step::Write(during.0, during.1),
            Step::Checkpoint(0, copied),
        ];
        [copy, end].concat()
    })
}

/// Sequences of at most `steps_max` steps, where a whole incremental copy counts as one.
pub fn sequence(steps_max: usize) -> impl Strategy<Value = Sequence> {
    let steps = prop_oneof![30 => step().prop_map(|step| vec![step]), 1 => whole_copy()];
    let steps = prop::collection::vec(steps, 1..=steps_max);
    (setup(), steps).prop_map(|(setup, steps)| Sequence {
        setup,
        steps: steps.concat(),
    })
}
