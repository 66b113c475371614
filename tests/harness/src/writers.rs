// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that know what their disk must hold.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::load::is_cut;
use crate::nbd::NbdClient;
use crate::{NBD_EXPORT, PATIENCE, Random, StorageDaemon};

/// Each has its own part of the disk, and one request out at a time.
const WRITERS_COUNT: usize = 3;
const LONGEST_WRITE_BYTES: u64 = 96 * 1024;

/// Threads that write to an export until they are stopped or the server dies.
#[derive(Debug)]
pub struct Writers {
    threads: Vec<JoinHandle<Result<Content>>>,
    stop: Arc<AtomicBool>,
    answered_count: Arc<AtomicU64>,
}

/// What a disk must hold.
#[derive(Debug, Default)]
pub struct Content {
    bytes: Vec<u8>,
    /// What was being written when the server died: old, new or in part.
    uncertain: Vec<Range<usize>>,
}

impl Writers {
    /// Starts writing to the export `disk` of the server at a UNIX socket, which holds
    /// `content`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn start(socket: &Path, content: &[u8], seed: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered_count = Arc::new(AtomicU64::new(0));
        let part_bytes = content.len().div_ceil(WRITERS_COUNT);
        let mut threads = Vec::new();
        for (index, part) in content.chunks(part_bytes).enumerate() {
            let mut writer = Writer {
                client: NbdClient::connect(socket, NBD_EXPORT)?,
                random: Random::new(seed ^ (index as u64) << 32),
                offset: (index * part_bytes) as u64,
                bytes: part.to_vec(),
            };
            let (stop, counter) = (Arc::clone(&stop), Arc::clone(&answered_count));
            threads.push(thread::spawn(move || writer.run(&stop, &counter)));
        }
        Ok(Self {
            threads,
            stop,
            answered_count,
        })
    }

    /// Waits until `count` more requests were answered than by now.
    ///
    /// # Errors
    /// When a writer ends before that, or all are stuck.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let goal = self.answered_count.load(Ordering::Relaxed) + count;
        while self.answered_count.load(Ordering::Relaxed) < goal {
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            ensure!(!ended, "a writer ended early");
            ensure!(Instant::now() < deadline, "the writers are stuck");
            sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Lets the requests that are out finish; gives what the disk holds.
    ///
    /// # Errors
    /// When a request failed.
    pub fn stop(self) -> Result<Content> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits for the end that comes with the server's.
    ///
    /// # Errors
    /// When a request had failed before.
    pub fn join(self) -> Result<Content> {
        let mut whole = Content::default();
        for thread in self.threads {
            let part = thread.join().map_err(|_| anyhow!("a writer panicked"))??;
            let start = whole.bytes.len();
            let shifted = part.uncertain.iter();
            whole
                .uncertain
                .extend(shifted.map(|range| start + range.start..start + range.end));
            whole.bytes.extend(part.bytes);
        }
        Ok(whole)
    }

    /// Ends the daemon that serves them: kills it in the midst of it, or lets the requests
    /// that are out finish first.
    ///
    /// # Errors
    /// When a request failed before, or the daemon does not end.
    pub fn end_with(self, daemon: StorageDaemon, kill: bool) -> Result<Content> {
        if kill {
            daemon.kill()?;
            return self.join();
        }
        let written = self.stop()?;
        daemon.quit()?;
        Ok(written)
    }
}

impl Content {
    /// The bytes, to go on from; a disk of which something is uncertain has to be read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Requires that a raw image holds this.
    ///
    /// # Errors
    /// When it does not; the message says where first.
    pub fn require(&self, disk: &Path) -> Result<()> {
        let found = fs::read(disk).with_context(|| format!("read {}", disk.display()))?;
        ensure!(
            found.len() == self.bytes.len(),
            "{}: {} bytes instead of {}",
            disk.display(),
            found.len(),
            self.bytes.len()
        );
        let mut wanted = self.bytes.clone();
        for range in &self.uncertain {
            wanted[range.clone()].copy_from_slice(&found[range.clone()]);
        }
        let first = wanted.iter().zip(&found).position(|(a, b)| a != b);
        ensure!(
            first.is_none(),
            "{}: not what was written, first at {first:?}",
            disk.display()
        );
        Ok(())
    }
}

struct Writer {
    client: NbdClient,
    random: Random,
    /// Where this writer's part of the disk begins.
    offset: u64,
    bytes: Vec<u8>,
}

impl Writer {
    fn run(&mut self, stop: &AtomicBool, counter: &AtomicU64) -> Result<Content> {
        let mut uncertain = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let range = self.any_range();
            match self.write(&range) {
                Ok(()) => counter.fetch_add(1, Ordering::Relaxed),
                Err(error) if is_cut(&error) => {
                    uncertain.push(range);
                    break;
                }
                Err(error) => return Err(error),
            };
        }
        Ok(Content {
            bytes: std::mem::take(&mut self.bytes),
            uncertain,
        })
    }

    fn any_range(&mut self) -> Range<usize> {
        let size_bytes = self.bytes.len() as u64;
        let unit_bytes = if self.random.one_in(8) { 512 } else { 4096 };
        let longest = LONGEST_WRITE_BYTES.min(size_bytes) / unit_bytes;
        let length_bytes = self.random.between(1, longest + 1) * unit_bytes;
        let start = self
            .random
            .below((size_bytes - length_bytes) / unit_bytes + 1)
            * unit_bytes;
        let range = start..start + length_bytes;
        usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0)
    }

    fn write(&mut self, range: &Range<usize>) -> Result<()> {
        let offset = self.offset + range.start as u64;
        let length_bytes = u32::try_from(range.len())?;
        let data = match self.random.below(10) {
            // What a trim leaves is not promised, so it goes to what is zero already.
            0 if self.bytes[range.clone()].iter().all(|&byte| byte == 0) => {
                self.client.trim(offset, length_bytes)?;
                return Ok(());
            }
            0..=2 => {
                self.client.write_zeroes(offset, length_bytes)?;
                vec![0; range.len()]
            }
            _ => {
                let data = self.random.bytes(range.len());
                self.client.write(offset, &data)?;
                data
            }
        };
        self.bytes[range.clone()].copy_from_slice(&data);
        Ok(())
    }
}
