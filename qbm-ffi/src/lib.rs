// SPDX-License-Identifier: MIT OR Apache-2.0
//! libqbm: `qbm-core` for C.
//!
//! Every entry does three things: check and convert its arguments, call the core where a panic is caught (`call`), convert the
//! result. All `unsafe` of the project is in this crate. The header is generated; see `cbindgen.toml`.
//!
//! | module | entries |
//! | --- | --- |
//! | `version` | version, probing |
//! | `create`, `open`, `image` | making, opening, activating, describing, closing an image |
//! | `defaults` | what the descriptor stores for those who give nothing |
//! | `bitmaps` | listing, adding, removing bitmaps |
//! | `changes` | whether bitmaps record, names, all bits at once |
//! | `user_data` | what a bitmap's user keeps with it |
//! | `extents` | what is dirty: counts, extents, bits |
//! | `copy` | incremental copy: freeze, checkpoint, commit, abort |
//! | `check`, `report`, `finding` | checking and repairing |
//! | `data` | reading and writing the data image |
//! | `writes` | before and after guest data moves, for block drivers |
//! | `resize` | before and after the data image is resized, for block drivers |
#![warn(unsafe_op_in_unsafe_fn)]
#![allow(
    clippy::missing_safety_doc,
    reason = "what callers owe is the same everywhere and stands at the top of the header"
)]

mod args;
mod call;
mod error;
#[cfg(target_pointer_width = "64")]
mod layout;
mod panic_hook;
mod process;
mod storage;
mod structure;
#[cfg(feature = "test-hooks")]
mod test_hooks;

// The header has them in this order.
mod version;

mod image;

mod create;

mod open;

mod defaults;

mod bitmaps;

mod changes;

mod several;

mod user_data;

mod extents;

mod copy;

mod check;

mod finding;

mod report;

mod data;

mod writes;

mod resize;

pub use bitmaps::*;
pub use changes::*;
pub use check::*;
pub use copy::*;
pub use create::*;
pub use data::*;
pub use defaults::*;
pub use error::*;
pub use extents::*;
pub use finding::*;
pub use image::*;
pub use open::*;
pub use report::*;
pub use resize::*;
pub use several::*;
#[cfg(feature = "test-hooks")]
pub use test_hooks::*;
pub use user_data::*;
pub use version::*;
pub use writes::*;
