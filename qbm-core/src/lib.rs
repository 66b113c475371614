// SPDX-License-Identifier: MIT OR Apache-2.0
//! Persistent dirty bitmaps for any disk image.
//!
//! A QBM image is a JSON descriptor that ties one data image to any number of bitmap files. This crate reads and writes
//! the descriptor and the bitmap files, and keeps the bitmaps right while the disk is written: it is asked before a
//! write and told after it. Guest data passes through [`DataImage`] only, for programs that are not QEMU.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`image`] | an image: create, open, activate, bitmaps, freeze, resize, close |
//! | `data` | a raw data image, read and written with every write recorded |
//! | `tracking` | recording writes before the data moves; writes in flight |
//! | `descriptor` | the JSON text: parse, write, replace atomically |
//! | `bits` | bits in memory, byte ranges to bits |
//! | [`storage`] | the seam to files and host |
//! | [`check`] | what is wrong with an image, and mending it |
//! | [`caps`] | limits of the format |
//!
//! The invariants I1 to I7 that comments name are listed in ARCHITECTURE.md.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

mod bits;
pub mod caps;
pub mod check;
mod data;
mod descriptor;
mod error;
pub mod image;
mod sabotage;
pub mod storage;
mod tracking;

pub use data::DataImage;
pub use descriptor::{Durability, PersistBitmaps, probe};
pub use error::{Error, ErrorKind, Result, quoted};
pub use image::{
    Activation, BitmapChange, BitmapInfo, CreateOptions, Created, DataPath, Defaults, Extent,
    Image, ImageInfo, OpenOptions,
};
pub use tracking::{Begun, Ticket};
