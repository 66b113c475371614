// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits in memory and in files.

mod checksum;
mod chunk;
mod granules;
mod map;
mod table;

pub(crate) use chunk::{CHUNK_BITS, CHUNK_BYTES, Chunk};
pub(crate) use granules::{BitRange, Granularity};
pub(crate) use map::BitMap;
