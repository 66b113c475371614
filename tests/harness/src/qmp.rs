// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QMP client: one JSON object a line over a UNIX socket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::{PATIENCE, Process};

/// A connection to a QEMU monitor, ready for commands.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    /// Bytes that came in and are not yet a whole line.
    received: Vec<u8>,
    /// Events that came in while something else was waited for, oldest first.
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects to the monitor of `process` at `path` as soon as it listens, and
    /// negotiates.
    ///
    /// # Errors
    /// When the process ends first, or nothing listens in time.
    pub fn connect(path: &Path, process: &mut Process) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            // Which error it is while the other side starts up does not matter.
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("connect to {}", path.display()));
                }
                Err(_) => process.require_running()?,
            }
            sleep(Duration::from_millis(2));
        };
        Self::negotiate(stream, process)
    }

    /// Makes a connection for the monitor of a program that is yet to be started, which
    /// gets the second socket as its standard input: `fd=0` of a chardev.
    ///
    /// So nobody listens.  QEMU 7.2 may lose a client that connects to a listening monitor
    /// while that is being set up, or greet it twice.
    ///
    /// # Errors
    /// When the system has no sockets left.
    pub fn pair() -> Result<(UnixStream, Stdio)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((ours, Stdio::from(OwnedFd::from(theirs))))
    }

    /// Begins to talk to `process` over a connection that is there.
    ///
    /// # Errors
    /// When the process ends first, or does not answer in time.
    pub fn negotiate(stream: UnixStream, process: &mut Process) -> Result<Self> {
        let mut qmp = Self {
            stream,
            received: Vec::new(),
            events: VecDeque::new(),
        };
        // What happens while the connection is being made may be told first.
        let greeting = match qmp.reply() {
            Ok(greeting) => greeting,
            Err(error) => {
                // A program that refuses its command line closes the socket, and ends then.
                for _ in 0..500 {
                    process.require_running()?;
                    sleep(Duration::from_millis(2));
                }
                return Err(error);
            }
        };
        ensure!(
            greeting.get("QMP").is_some(),
            "not a QMP greeting: {greeting}"
        );
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command that must succeed; gives its result.
    ///
    /// # Errors
    /// When it fails; the message holds the command and QEMU's words.
    // A literal is what callers have; a reference would only add noise to them.
    #[allow(clippy::needless_pass_by_value)]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let reply = self.exchange(command, &arguments)?;
        match reply.get("return") {
            Some(result) => Ok(result.clone()),
            None => bail!("{command} {arguments}: {}", reply["error"]["desc"]),
        }
    }

    /// Sends a command and does not wait for what comes of it.
    ///
    /// # Errors
    /// When the connection is gone.
    #[allow(clippy::needless_pass_by_value)]
    pub fn start(&mut self, command: &str, arguments: Value) -> Result<()> {
        self.send(&json!({ "execute": command, "arguments": arguments }))
    }

    /// Waits for the reply to a command that was [started](Self::start).
    ///
    /// # Errors
    /// When the connection ends before it comes.
    pub fn reply(&mut self) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            if message.get("event").is_none() {
                return Ok(message);
            }
            self.events.push_back(message);
        }
    }

    /// Runs a command that must fail; gives QEMU's words.
    ///
    /// # Errors
    /// When it succeeds.
    #[allow(clippy::needless_pass_by_value)]
    pub fn refuses(&mut self, command: &str, arguments: Value) -> Result<String> {
        let reply = self.exchange(command, &arguments)?;
        match reply["error"]["desc"].as_str() {
            Some(words) => Ok(words.to_owned()),
            None => bail!("{command} {arguments}: should have failed"),
        }
    }

    /// Waits for an event of the name given that `wanted` accepts; others stay queued.
    ///
    /// # Errors
    /// When none comes in time or the connection ends.
    pub fn event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.wait_for(name, |event| {
            event["event"] == name && wanted(&event["data"])
        })
    }

    /// Waits for the first event of one of these names; others stay queued.
    ///
    /// # Errors
    /// As [`Qmp::event`].
    pub fn event_of(&mut self, names: &[&str]) -> Result<Value> {
        self.wait_for(&names.join(" or "), |event| {
            names.iter().any(|&name| event["event"] == name)
        })
    }

    fn wait_for(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(position) = self.events.iter().position(&matches) {
            return self.events.remove(position).context("the event is gone");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self
                .receive(deadline)
                .with_context(|| format!("wait for {what}"))?;
            if matches(&message) {
                return Ok(message);
            }
            self.events.push_back(message);
        }
    }

    /// The events that came and that nobody waited for.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    /// Asks QEMU to end; the reply may be lost, since the end comes with it.
    ///
    /// # Errors
    /// When the command cannot be sent.
    pub fn quit(&mut self) -> Result<()> {
        self.send(&json!({ "execute": "quit" }))
    }

    fn exchange(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.send(&json!({ "execute": command, "arguments": arguments }))
            .with_context(|| format!("send {command}"))?;
        self.reply()
            .with_context(|| format!("wait for the reply to {command} {arguments}"))
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        Ok(self.stream.write_all(format!("{message}\n").as_bytes())?)
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "QMP: no answer in time");
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("QMP: the other side is gone"),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("QMP"),
            }
        }
    }
}
