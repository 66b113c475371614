// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds QBM's promises against every crash.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod disk;
pub mod found;
pub mod granules;
pub mod judge;
pub mod model;
pub mod outcome;
pub mod run;
pub mod stats;
pub mod step;
pub mod violation;

pub use stats::Stats;
pub use step::{Sequence, Setup, Step};
pub use violation::Violation;
