// SPDX-License-Identifier: MIT OR Apache-2.0
//! QBM end to end.
//!
//! The scenarios are the files under `tests/`, one each.  Here is what they share
//! with the two programs that a person runs: the [`demo`]nstration, and the
//! [`crash`] run that kills QEMU again and again and looks for a lost block.

pub mod crash;
pub mod demo;
mod text;

pub use text::{percent, size};
