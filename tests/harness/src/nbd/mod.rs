// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small NBD client: fixed newstyle, simple replies, many requests in flight.

mod client;
mod handshake;
mod request;

pub use client::{NbdClient, Reply};
pub use request::{Operation, Request};
