// SPDX-License-Identifier: MIT OR Apache-2.0
//! libqbm: `qbm-core` for C.
//!
//! Every entry does three things: check and convert its arguments, call the core where a panic is caught (`call`), convert the
//! result. All `unsafe` of the project is in this crate. The header is generated; see `cbindgen.toml`.
//!
//! | module | entries |
//! | --- | --- |
//! | `version` | version, probing |
//! | `create`, `open` | making, opening, activating, closing an image |
//! | `bitmaps` | listing, adding, removing bitmaps; their bits |
//! | `writes` | before and after guest data moves |
//! | `resize` | before and after the data image is resized |
#![warn(unsafe_op_in_unsafe_fn)]
#![allow(
    clippy::missing_safety_doc,
    reason = "what callers owe is the same everywhere and stands at the top of the header"
)]

mod args;
mod bitmaps;
mod call;
mod create;
mod error;
mod image;
#[cfg(target_pointer_width = "64")]
mod layout;
mod open;
mod resize;
mod version;
mod writes;

pub use bitmaps::*;
pub use create::*;
pub use error::*;
pub use image::*;
pub use open::*;
pub use resize::*;
pub use version::*;
pub use writes::*;
