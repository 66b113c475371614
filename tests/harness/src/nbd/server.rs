// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk in memory, served over a UNIX socket, that shows each request to the test
//! before it is carried out.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::wire::{
    HANDSHAKE_FLAGS, INFO_EXPORT, OPTION_GO, OPTION_MAGIC, OPTION_REPLY_MAGIC, REPLY_ACK,
    REPLY_INFO, REPLY_UNSUPPORTED, REQUEST_MAGIC, SERVER_MAGIC, SIMPLE_REPLY_MAGIC, read_u16,
    read_u32, read_u64,
};
use super::{Operation, Request};

/// Has flags; flush, trim and writing zeroes can be asked for.
const EXPORT_FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6;
const DISCONNECT: u16 = 2;
/// The error number of a request that makes no sense, the same on every system.
const EINVAL: u32 = 22;

/// A running server of one disk, for one client after another.
///
/// Its thread lives as long as the test's process: there is nothing to clean up.
#[derive(Debug)]
pub struct NbdServer {
    socket: PathBuf,
}

impl NbdServer {
    /// Serves a disk of `size_bytes` zeroes at `socket`, under any export name.  `see` is
    /// called with each request when it has arrived and nothing has come of it yet.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(
        socket: &Path,
        size_bytes: usize,
        mut see: impl FnMut(&Request) + Send + 'static,
    ) -> Result<Self> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("listen at {}", socket.display()))?;
        thread::spawn(move || {
            let mut disk = vec![0; size_bytes];
            for stream in listener.incoming().flatten() {
                // A client that goes away is no failure; what it misses, it will say.
                let _ = serve(stream, &mut disk, &mut see);
            }
        });
        Ok(Self {
            socket: socket.to_owned(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn serve(mut stream: UnixStream, disk: &mut [u8], see: &mut impl FnMut(&Request)) -> Result<()> {
    negotiate(&mut stream, disk.len() as u64)?;
    loop {
        ensure!(
            read_u32(&mut stream)? == REQUEST_MAGIC,
            "not an NBD request"
        );
        let _flags = read_u16(&mut stream)?;
        let number = read_u16(&mut stream)?;
        let cookie = read_u64(&mut stream)?;
        let offset = read_u64(&mut stream)?;
        let length_bytes = read_u32(&mut stream)?;
        if number == DISCONNECT {
            return Ok(());
        }
        let operation = Operation::from_number(number).context("an unknown request")?;
        let mut data = Vec::new();
        if operation == Operation::Write {
            data.resize(length_bytes as usize, 0);
            stream.read_exact(&mut data)?;
        }
        let request = Request {
            operation,
            offset,
            length_bytes,
            data,
        };
        see(&request);
        let answer = carry_out(&request, disk);
        let mut reply = Vec::new();
        reply.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
        reply.extend(if answer.is_some() { 0 } else { EINVAL }.to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        reply.extend(answer.unwrap_or_default());
        stream.write_all(&reply)?;
    }
}

/// Gives the bytes of a read, else none; nothing when the request is out of bounds.
fn carry_out(request: &Request, disk: &mut [u8]) -> Option<Vec<u8>> {
    let start = usize::try_from(request.offset).ok()?;
    let range = disk.get_mut(start..start.checked_add(request.length_bytes as usize)?)?;
    match request.operation {
        Operation::Read => return Some(range.to_vec()),
        Operation::Write => range.copy_from_slice(&request.data),
        Operation::WriteZeroes | Operation::Trim => range.fill(0),
        Operation::Flush => {}
    }
    Some(Vec::new())
}

fn negotiate(stream: &mut UnixStream, size_bytes: u64) -> Result<()> {
    let mut greeting = Vec::new();
    greeting.extend(SERVER_MAGIC.to_be_bytes());
    greeting.extend(OPTION_MAGIC.to_be_bytes());
    greeting.extend(HANDSHAKE_FLAGS.to_be_bytes());
    stream.write_all(&greeting)?;
    let _client_flags = read_u32(stream)?;
    loop {
        ensure!(read_u64(stream)? == OPTION_MAGIC, "not an NBD option");
        let option = read_u32(stream)?;
        let mut data = vec![0; read_u32(stream)? as usize];
        stream.read_exact(&mut data)?;
        if option == OPTION_GO {
            let mut export = Vec::new();
            export.extend(INFO_EXPORT.to_be_bytes());
            export.extend(size_bytes.to_be_bytes());
            export.extend(EXPORT_FLAGS.to_be_bytes());
            reply_to_option(stream, option, REPLY_INFO, &export)?;
            return reply_to_option(stream, option, REPLY_ACK, &[]);
        }
        // Structured replies, block status: the client goes on without.
        reply_to_option(stream, option, REPLY_UNSUPPORTED, &[])?;
    }
}

fn reply_to_option(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> Result<()> {
    let mut reply = Vec::new();
    reply.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(u32::try_from(data.len())?.to_be_bytes());
    reply.extend(data);
    Ok(stream.write_all(&reply)?)
}
