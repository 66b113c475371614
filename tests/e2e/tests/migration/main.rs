// SPDX-License-Identifier: MIT OR Apache-2.0
//! Live migration: every bitmap is where the disk is written, and has every write.

use anyhow::Result;
use qbm_testkit::life::{Found, blockdev, image, inconsistent};
use qbm_testkit::{Bench, Machine, migration};

mod back;
mod cancelled;
mod ends;
mod exported;
mod guest;
mod incoming;
mod mapping;
mod postcopy;
mod separate;
mod shared;

/// Two machines about to migrate, with the capabilities given.
struct Pair {
    bench: Bench,
    source: Machine,
    destination: Machine,
}

impl Pair {
    /// Both have the same image.
    fn shared(format: &str, capabilities: &[&str]) -> Result<Self> {
        let bench = Bench::new()?;
        image(&bench, format, "disk")?;
        Self::over(bench, format, ["disk", "disk"], capabilities)
    }

    /// The source has one image and the destination another.
    fn over(
        bench: Bench,
        format: &str,
        [source, destination]: [&str; 2],
        capabilities: &[&str],
    ) -> Result<Self> {
        let mut source = Machine::start(&bench, &blockdev(format, source))?;
        let args = blockdev(format, destination) + " -incoming defer";
        let mut destination = Machine::start(&bench, &args)?;
        for machine in [&mut source, &mut destination] {
            migration::enable(&mut machine.qmp, capabilities)?;
        }
        Ok(Self {
            bench,
            source,
            destination,
        })
    }

    /// The machine that has the disk now is the next source.
    fn next(self, format: &str, capabilities: &[&str]) -> Result<Self> {
        self.source.quit()?;
        let args = blockdev(format, "disk") + " -incoming defer";
        let mut destination = Machine::start(&self.bench, &args)?;
        migration::enable(&mut destination.qmp, capabilities)?;
        Ok(Self {
            bench: self.bench,
            source: self.destination,
            destination,
        })
    }

    /// Migrates as far as the source still has the disk.
    fn start(&mut self) -> Result<()> {
        migration::listen(&mut self.destination.qmp, &self.bench)?;
        migration::start(&mut self.source.qmp, &self.bench)
    }

    /// Goes on from there.
    fn complete(&mut self) -> Result<()> {
        migration::complete(&mut self.source.qmp, &mut self.destination.qmp)
    }
}

/// Writes to the first sectors of a granule.
fn write(machine: &mut Machine, granule: u64) -> Result<()> {
    let offset = granule * qbm_testkit::life::GRANULE;
    migration::write(&mut machine.qmp, "disk", 7, offset, 4096)
}

/// What is left of a bitmap that went elsewhere: qcow2 keeps one that cannot be used.
fn what_stays(format: &str, name: &str) -> Vec<Found> {
    if format == "qcow2" {
        vec![inconsistent(name)]
    } else {
        Vec::new()
    }
}
