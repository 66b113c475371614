// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds QBM's promises against every crash.
//!
//! A random sequence of calls is run against a simulated disk and a model. Before each operation of the storage seam takes
//! effect, within each write, and after each call the host is stopped in several ways; what is left is opened and judged.
//! Then operations are made to fail, and the same is done after each.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`disk`] | a disk in memory that loses what a real one may lose, and fails when told to |
//! | [`granules`], [`model`] | what must be true, and where over-reporting is allowed |
//! | [`step`] | sequences, and how they are made |
//! | [`mod@run`] | runs one, call by call, and explores every place on the way |
//! | [`outcome`] | kills and power cuts |
//! | [`found`], [`judge`] | opens what a crash left and compares it, also after a second crash within the recovery |
//! | [`campaign`] | many sequences on all processors; what fails is made small |
//!
//! # What the medium does
//!
//! The numbers are those of ARCHITECTURE.md, "What the medium must do".
//!
//! 1. A kill keeps the page cache: all that was written, and a prefix of a write that was under way. The one exception is
//!    a failed sync that drops dirty pages: while the session of the close that saw it is on record, bits may be missing.
//! 2. What a sync returned for survives a power cut. Of everything else any part does: each write, each change of length
//!    and each change of a directory on its own, so in any order. A failed sync drops dirty pages, or leaves them in the
//!    cache as if clean; some of them have arrived, and no later sync brings the others.
//! 3. Of a torn write each byte is old or new (a prefix, a suffix, sectors, single bytes), and the file may reach as far
//!    as the whole write would have made it.
//! 4. The boot id is another after a power cut.
//!
//! # What is judged
//!
//! - I1: a bitmap that says it is consistent has every granule of every write that was let through.
//! - I2: a bitmap is inconsistent where it must be, stays so, and is so nowhere else: after a kill at level `process` and
//!   after a clean close nothing is lost, unless an operation on a bitmap's own file failed.
//! - I3: after a clean close no session is on record and the bits are exactly those in memory; everywhere else no granule
//!   is dirty that neither the old nor the new state allows ([`model`] says where over-reporting is).
//! - I4: names, granularities, recording, user data and size are those before the call under way, or those after it.
//! - I5: the image opens, and works.
//! - I6: no write, change of length or removal ever hits the data image or a file of somebody else.
//! - API: answers are what the interface says, and nothing is refused without a reason.
//!
//! # Running it
//!
//! ```text
//! cargo test -p qbm-simulator                                   # the budget of every test run
//! cargo run -p qbm-simulator -- --seed 7 --crash-points 5000000 # more
//! tests/sabotage.sh                                             # does it notice what it should?
//! ```
//!
//! A failure prints the smallest sequence that was found and the command that runs it again. With `--crash LABEL`, the
//! label being printed too, it stops at that crash alone and prints every operation of the seam up to there.
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
