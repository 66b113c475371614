// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that writes all the time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{Guest, PATIENCE};

const BLOCK_BYTES: u64 = 4096;
/// How far the shell's `$RANDOM` reaches.
const BLOCKS_MAX: u64 = 1 << 15;

impl Guest {
    /// Begins to write blocks here and there of a disk, on each processor, each block on the
    /// disk before the next, and waits until some are written.
    ///
    /// # Errors
    /// When the guest has no such disk, or cannot write to it.
    pub fn start_writing(&mut self, disk: &str) -> Result<()> {
        let sectors: u64 = number(&self.run(&format!("cat /sys/block/{disk}/size"))?)?;
        let blocks = sectors * 512 / BLOCK_BYTES;
        ensure!(blocks <= BLOCKS_MAX, "{disk} is too large: {blocks} blocks");
        let processors = number(&self.run("grep -c ^processor /proc/cpuinfo")?)?;
        for processor in 0..processors {
            let write = format!(
                "taskset -c {processor} dd if=/dev/urandom of=/dev/{disk} bs={BLOCK_BYTES} count=1 \
                 conv=notrunc,fsync seek=$((RANDOM % {blocks})) 2>/said.{processor}"
            );
            self.run(&format!(
                "(while :; do if {write}; then echo >>/written.{processor}; else \
                 cat /said.{processor} >>/failed; fi; done) >/dev/null 2>&1 &"
            ))?;
        }
        self.wait_for_more_written(20)
    }

    /// Waits until so many more blocks are written.
    ///
    /// # Errors
    /// When a write failed, or none ends.
    pub fn wait_for_more_written(&mut self, count: u64) -> Result<()> {
        let goal = self.written_count()? + count;
        let deadline = Instant::now() + PATIENCE;
        while self.written_count()? < goal {
            ensure!(Instant::now() < deadline, "the guest does not write");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn written_count(&mut self) -> Result<u64> {
        let failed = self.run("cat /failed 2>/dev/null || true")?;
        ensure!(failed.is_empty(), "the guest could not write: {failed}");
        number(&self.run("cat /written.* 2>/dev/null | wc -c")?)
    }
}

fn number(printed: &str) -> Result<u64> {
    printed
        .trim()
        .parse()
        .with_context(|| format!("no number: {printed:?}"))
}
