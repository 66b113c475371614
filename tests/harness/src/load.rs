// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random load on an export: writes, zeroes, trims, flushes, many in flight.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::nbd::{NbdClient, Operation, Request};
use crate::{PATIENCE, Random};

/// The requests that got their reply, by kind.
#[derive(Debug, Default, Clone, Copy)]
pub struct Completed {
    /// Writes.
    pub writes_count: u64,
    /// Writes of zeroes.
    pub zeroes_count: u64,
    /// Trims.
    pub trims_count: u64,
    /// Flushes.
    pub flushes_count: u64,
    /// Requests that were out when the connection was cut.
    pub cut_off_count: u64,
}

/// A thread that loads an export until it is stopped or the server dies.
#[derive(Debug)]
pub struct Load {
    thread: JoinHandle<Result<Completed>>,
    completed_count: Arc<AtomicU64>,
    stop: Arc<AtomicU64>,
}

impl Load {
    /// Starts loading with `depth` requests in flight.
    #[must_use]
    pub fn start(client: NbdClient, depth: usize, seed: u64) -> Self {
        Self::start_in_units(client, depth, seed, 1)
    }

    /// As [`Load::start`], with whole sectors only: block devices refuse trims of less.
    #[must_use]
    pub fn start_by_sector(client: NbdClient, depth: usize, seed: u64) -> Self {
        Self::start_in_units(client, depth, seed, 512)
    }

    fn start_in_units(client: NbdClient, depth: usize, seed: u64, smallest_bytes: u64) -> Self {
        let completed_count = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicU64::new(0));
        let (counter, stopped) = (Arc::clone(&completed_count), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let next = |random: &mut Random, size_bytes| {
                random_request(random, size_bytes, smallest_bytes)
            };
            run(client, depth, seed, next, &counter, &stopped)
        });
        Self {
            thread,
            completed_count,
            stop,
        }
    }

    /// Waits until `count` more requests were answered than by now.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let answered = self.completed_count.load(Ordering::Relaxed);
        self.wait_for(answered.saturating_add(count))
    }

    /// Waits until `count` requests were answered.
    ///
    /// # Errors
    /// When the load ends before that, or is stuck.
    pub fn wait_for(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.completed_count.load(Ordering::Relaxed) < count {
            ensure!(!self.thread.is_finished(), "the load ended early");
            ensure!(Instant::now() < deadline, "the load is stuck");
            sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Lets the requests in flight finish and ends the load.
    ///
    /// # Errors
    /// When a request failed.
    pub fn stop(self) -> Result<Completed> {
        self.stop.store(1, Ordering::Relaxed);
        self.join()
    }

    /// Waits for the end that comes with the server's.
    ///
    /// # Errors
    /// When a request had failed before.
    pub fn join(self) -> Result<Completed> {
        self.thread
            .join()
            .map_err(|_| anyhow!("the load panicked"))?
    }
}

fn run(
    mut client: NbdClient,
    depth: usize,
    seed: u64,
    next: impl Fn(&mut Random, u64) -> Request,
    counter: &AtomicU64,
    stop: &AtomicU64,
) -> Result<Completed> {
    let mut random = Random::new(seed);
    let mut completed = Completed::default();
    let size_bytes = client.size_bytes();
    loop {
        let stopping = stop.load(Ordering::Relaxed) != 0;
        if stopping && client.in_flight_count() == 0 {
            return Ok(completed);
        }
        let step = if !stopping && client.in_flight_count() < depth {
            client.send(&next(&mut random, size_bytes))
        } else {
            client.receive().and_then(|reply| {
                ensure!(
                    reply.error == 0,
                    "{:?}: error {}",
                    reply.operation,
                    reply.error
                );
                completed.count(reply.operation);
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        };
        match step {
            Ok(()) => {}
            Err(error) if is_cut(&error) => {
                completed.cut_off_count = client.in_flight_count() as u64;
                return Ok(completed);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Completed {
    /// All requests that were answered.
    #[must_use]
    pub fn answered_count(&self) -> u64 {
        self.writes_count + self.zeroes_count + self.trims_count + self.flushes_count
    }

    fn count(&mut self, operation: Operation) {
        match operation {
            Operation::Write => self.writes_count += 1,
            Operation::WriteZeroes => self.zeroes_count += 1,
            Operation::Trim => self.trims_count += 1,
            Operation::Flush => self.flushes_count += 1,
            Operation::Read => {}
        }
    }
}

/// Whether the server died, as opposed to having said something wrong.
pub(crate) fn is_cut(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
    )
}

fn random_request(random: &mut Random, size_bytes: u64, smallest_bytes: u64) -> Request {
    let operation = match random.below(20) {
        0 => Operation::Flush,
        1..=3 => Operation::Trim,
        4..=6 => Operation::WriteZeroes,
        _ => Operation::Write,
    };
    if operation == Operation::Flush {
        return Request {
            operation,
            offset: 0,
            length_bytes: 0,
            data: Vec::new(),
        };
    }
    // Guests send whole sectors; the odd byte is for rounding.
    let unit_bytes = match random.below(8) {
        0 => smallest_bytes,
        1..=3 => 512,
        _ => 4096,
    };
    let longest_bytes = (128 * 1024).min(size_bytes);
    let length_bytes = random.between(1, longest_bytes / unit_bytes + 1) * unit_bytes;
    // Half of it goes to one tenth of the disk: blocks get written twice, and in
    // flight together.
    let reach_bytes = if random.one_in(2) {
        size_bytes / 10
    } else {
        size_bytes
    };
    let room_bytes = reach_bytes.max(length_bytes).min(size_bytes) - length_bytes;
    let offset = random.below(room_bytes / unit_bytes + 1) * unit_bytes;
    let data = if operation == Operation::Write {
        random.bytes(usize::try_from(length_bytes).unwrap_or(0))
    } else {
        Vec::new()
    };
    let length_bytes = u32::try_from(length_bytes).unwrap_or(0);
    Request {
        operation,
        offset,
        length_bytes,
        data,
    }
}
