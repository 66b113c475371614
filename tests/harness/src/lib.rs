// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QBM's end-to-end tests are made of.
//!
//! A test takes a [`Bench`] (a directory of its own and a QEMU), runs QEMU's
//! tools in it, starts a [`StorageDaemon`] or boots a [`Guest`], talks to them
//! over [`qmp`] and [`nbd`], and judges the result with the [`oracle`], which
//! reads descriptor and bitmap files by the format's text and shares no code
//! with QBM itself.
//!
//! Everything returns [`anyhow::Result`]; an error says what was run and what it
//! printed, so that a test's failure can be read without running it again.

pub mod backup;
mod bench;
pub mod bitmap_file;
pub mod bitmaps;
mod daemon;
mod descriptor;
mod environment;
pub mod faults;
mod fuse_mount;
mod guest;
mod guest_writing;
pub mod hot_switch;
pub mod image_server;
pub mod jobs;
pub mod life;
pub mod load;
mod loop_device;
mod machine;
pub mod migration;
pub mod nbd;
pub mod oracle;
mod process;
pub mod qmp;
mod random;
mod snapshot;
mod tool;
mod writers;

pub use bench::Bench;
pub use daemon::{NBD_EXPORT, StorageDaemon};
pub use descriptor::Descriptor;
pub use environment::{GuestFiles, Qemu};
pub use fuse_mount::FuseMount;
pub use guest::Guest;
pub use loop_device::LoopDevice;
pub use machine::Machine;
pub use process::{PATIENCE, Process};
pub use random::Random;
pub use snapshot::Snapshot;
pub use tool::{Args, Output};
pub use writers::{Content, Writers};
