// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection: requests out, replies in, in whatever order they come.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::handshake::go;
use super::wire::{SIMPLE_REPLY_MAGIC, read_u32, read_u64};
use super::{Operation, Request};
use crate::PATIENCE;

/// An open export.
#[derive(Debug)]
pub struct NbdClient {
    stream: UnixStream,
    size_bytes: u64,
    next_cookie: u64,
    in_flight: HashMap<u64, InFlight>,
}

/// What has to be known of a request until its reply comes.
#[derive(Debug)]
struct InFlight {
    operation: Operation,
    length_bytes: u32,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Reply {
    /// What had been asked.
    pub operation: Operation,
    /// 0, or the error's number.
    pub error: u32,
    /// The bytes of a successful read; else empty.
    pub data: Vec<u8>,
}

impl NbdClient {
    /// Opens the export `name` of the server at a UNIX socket.
    ///
    /// # Errors
    /// When there is no such server or export.
    pub fn connect(socket: &Path, name: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)
            .with_context(|| format!("connect to {}", socket.display()))?;
        // A server that is stuck fails the test instead of holding it up.
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let size_bytes = go(&mut stream, name)?;
        Ok(Self {
            stream,
            size_bytes,
            next_cookie: 1,
            in_flight: HashMap::new(),
        })
    }

    /// The export's size.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many requests have no reply yet.
    #[must_use]
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a request without waiting for its reply.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let Request {
            operation,
            length_bytes,
            ..
        } = *request;
        self.in_flight.insert(
            cookie,
            InFlight {
                operation,
                length_bytes,
            },
        );
        Ok(self.stream.write_all(&request.encode(cookie))?)
    }

    /// Waits for the next reply, whichever request it answers.
    ///
    /// # Errors
    /// When the connection is gone or the server breaks the protocol.
    pub fn receive(&mut self) -> Result<Reply> {
        ensure!(
            read_u32(&mut self.stream)? == SIMPLE_REPLY_MAGIC,
            "not an NBD reply"
        );
        let error = read_u32(&mut self.stream)?;
        let cookie = read_u64(&mut self.stream)?;
        let request = self
            .in_flight
            .remove(&cookie)
            .context("a reply to nothing")?;
        let mut data = Vec::new();
        if request.operation == Operation::Read && error == 0 {
            data.resize(request.length_bytes as usize, 0);
            self.stream.read_exact(&mut data)?;
        }
        Ok(Reply {
            operation: request.operation,
            error,
            data,
        })
    }

    /// Writes and waits.
    ///
    /// # Errors
    /// When the server says so or the connection is gone.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let length_bytes = u32::try_from(data.len())?;
        self.complete(Operation::Write, offset, length_bytes, data.to_vec())
            .map(drop)
    }

    /// Reads and waits.
    ///
    /// # Errors
    /// As [`NbdClient::write`].
    pub fn read(&mut self, offset: u64, length_bytes: u32) -> Result<Vec<u8>> {
        self.complete(Operation::Read, offset, length_bytes, Vec::new())
    }

    /// Makes a range zero and waits.
    ///
    /// # Errors
    /// As [`NbdClient::write`].
    pub fn write_zeroes(&mut self, offset: u64, length_bytes: u32) -> Result<()> {
        self.complete(Operation::WriteZeroes, offset, length_bytes, Vec::new())
            .map(drop)
    }

    /// Trims a range and waits.
    ///
    /// # Errors
    /// As [`NbdClient::write`].
    pub fn trim(&mut self, offset: u64, length_bytes: u32) -> Result<()> {
        self.complete(Operation::Trim, offset, length_bytes, Vec::new())
            .map(drop)
    }

    /// Flushes and waits.
    ///
    /// # Errors
    /// As [`NbdClient::write`].
    pub fn flush(&mut self) -> Result<()> {
        self.complete(Operation::Flush, 0, 0, Vec::new()).map(drop)
    }

    fn complete(
        &mut self,
        operation: Operation,
        offset: u64,
        length_bytes: u32,
        data: Vec<u8>,
    ) -> Result<Vec<u8>> {
        ensure!(self.in_flight.is_empty(), "requests are in flight");
        self.send(&Request {
            operation,
            offset,
            length_bytes,
            data,
        })?;
        let reply = self.receive()?;
        ensure!(
            reply.error == 0,
            "{operation:?} at {offset}: error {}",
            reply.error
        );
        Ok(reply.data)
    }
}

/// Requires that the server answered a request with EIO: that it does not answer is another
/// matter.
///
/// # Errors
/// When it did something else.
pub fn require_io_error(result: Result<()>) -> Result<()> {
    match result {
        Ok(()) => bail!("the request should have failed"),
        Err(error) if error.to_string().ends_with(": error 5") => Ok(()),
        Err(error) => Err(error.context("not EIO")),
    }
}
