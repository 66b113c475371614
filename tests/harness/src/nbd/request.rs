// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be asked of an export.

use super::wire::REQUEST_MAGIC;

/// The kind of a request; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Give the bytes.
    Read = 0,
    /// Take these bytes.
    Write = 1,
    /// Make what was written durable.
    Flush = 3,
    /// The bytes are no longer needed.
    Trim = 4,
    /// Make the bytes zero; the server may punch a hole.
    WriteZeroes = 6,
}

impl Operation {
    /// The operation of a number of the protocol's; nothing for those not used here.
    pub(super) fn from_number(number: u16) -> Option<Self> {
        use Operation::{Flush, Read, Trim, Write, WriteZeroes};
        [Read, Write, Flush, Trim, WriteZeroes]
            .into_iter()
            .find(|operation| *operation as u16 == number)
    }
}

/// One request.  Offset and length are in bytes, and need no alignment.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Where.
    pub offset: u64,
    /// How much; 0 for a flush.
    pub length_bytes: u32,
    /// The bytes of a write, `length_bytes` of them; else empty.
    pub data: Vec<u8>,
}

impl Request {
    /// The request as it goes over the wire.
    pub(super) fn encode(&self, cookie: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28 + self.data.len());
        bytes.extend(REQUEST_MAGIC.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend((self.operation as u16).to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        bytes.extend(self.length_bytes.to_be_bytes());
        bytes.extend(&self.data);
        bytes
    }
}
