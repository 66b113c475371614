// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data images of every kind: bitmaps over each are exact after a clean close and miss
//! nothing after SIGKILL, and what can be noticed of a change behind QBM's back is.

mod blkdebug;
mod common;
mod encrypted;
mod local;
mod nbd;
mod reconnect;
