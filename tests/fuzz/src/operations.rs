// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any sequence of operations, crashes and foreign changes on an image, beside a model of it.

mod bitmaps;
mod model;
mod run;

use arbitrary::{Arbitrary, Unstructured};

use crate::budget;

/// How many steps of an input are looked at.
const STEPS_MAX: usize = 64;

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Range {
    offset: u32,
    length: u32,
}

#[derive(Arbitrary, Debug)]
struct Input {
    sectors: u16,
    close: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Write(Range),
    Begin(Range),
    End,
    Add {
        bitmap: u8,
        granularity: u8,
    },
    Remove(u8),
    SetRecording(u8, bool),
    SetInconsistent(u8),
    ClearStored(u8),
    Clear(u8),
    Merge {
        target: u8,
        sources: [u8; 2],
    },
    Rename {
        from: u8,
        to: u8,
    },
    SetGranularity {
        bitmap: u8,
        granularity: u8,
    },
    MarkDirty(u8, Range),
    SetUserData(u8, u16),
    Resize {
        sectors: u16,
        moved: bool,
    },
    Look,
    Close {
        close: bool,
        meanwhile: Meanwhile,
    },
    Crash {
        close: bool,
        rebooted: bool,
        meanwhile: Meanwhile,
    },
}

/// What becomes of the data image while QBM does not have it open.
#[derive(Arbitrary, Debug, Clone, Copy)]
struct Meanwhile {
    foreign: Foreign,
    /// Somebody vouches for the data image at the next open.
    trust_data: bool,
}

#[derive(Arbitrary, Debug, Clone, Copy, PartialEq, Eq)]
enum Foreign {
    Nothing,
    Write,
    Resize(u16),
}

/// One input of the target.
///
/// # Panics
/// An invariant does not hold.
pub fn run(input: &[u8]) {
    if let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) {
        budget::show(&input);
        budget::within(|| run::run(&input));
    }
}
