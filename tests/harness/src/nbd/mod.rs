// SPDX-License-Identifier: MIT OR Apache-2.0
//! NBD, as much of it as tests need: fixed newstyle and simple replies.
//!
//! The client loads an export with many requests in flight.  The server stands in for
//! a data image, and lets a test look at the moment in which a request arrives.

mod client;
mod handshake;
mod request;
mod server;
mod wire;

pub use client::{NbdClient, Reply, require_io_error};
pub use request::{Operation, Request};
pub use server::NbdServer;
