// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the fuzz targets do with an input. Everything goes through qbm-core's public interface, over files in memory.

pub mod bitmap_file;
mod budget;
pub mod descriptor;
mod disk;
mod image;
pub mod operations;
mod runs;
