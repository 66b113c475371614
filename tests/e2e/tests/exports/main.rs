// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage daemon's exports other than NBD: what is written through them is marked.

mod fuse;
mod vhost_user_blk;
