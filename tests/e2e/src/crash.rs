// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kills QEMU under load, again and again, and looks for a block that was lost.
//!
//! One image goes through all rounds.  Two bitmaps record: `daily` is cleared by
//! incremental backups into `copy.raw`, `always` never is.  After each kill, the bits
//! in the files are held against what really changed, and the next round must find
//! both bitmaps consistent.

use anyhow::{Context, Result, ensure};
use qbm_testkit::load::{Completed, Load};
use qbm_testkit::oracle::{Verdict, judge, require_same};
use qbm_testkit::{Bench, Random, StorageDaemon, backup};

use crate::size;

/// Small enough to compare quickly, and no multiple of either granularity.
const DISK_BYTES: u64 = (48 << 20) + 512;
/// The bitmap that backups clear, and what one bit of it covers.
const DAILY: (&str, u64) = ("daily", 64 * 1024);
/// The bitmap that is never cleared.
const ALWAYS: (&str, u64) = ("always", 4096);
const REQUESTS_IN_FLIGHT: usize = 16;

/// What all rounds together came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Rounds, each ended by a kill.
    pub rounds_count: u32,
    /// Incremental backups between them, each compared with the disk.
    pub backups_count: u32,
    /// Requests that were answered.
    pub requests_count: u64,
    /// Blocks of `daily` that changed, summed over the kills.
    pub changed_count: u64,
    /// Blocks of `daily` that were marked though unchanged, summed over the kills.
    pub over_reported_count: u64,
}

/// Runs `rounds` rounds from a seed, telling `say` of each.
///
/// # Errors
/// When a bitmap misses a block or is not consistent, or QEMU misbehaves.
pub fn run(rounds: u32, seed: u64, mut say: impl FnMut(&str)) -> Result<Summary> {
    let bench = Bench::new()?;
    let mut random = Random::new(seed);
    let mut summary = Summary::default();
    prepare(&bench)?;
    for round in 1..=rounds {
        let line = run_round(&bench, &mut random, &mut summary)
            .with_context(|| format!("round {round} of seed {seed}"))?;
        say(&format!("round {round:3}: {line}"));
    }
    Ok(summary)
}

/// Makes the image, its bitmaps, and the copies they count from.
fn prepare(bench: &Bench) -> Result<()> {
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    for (name, granularity_bytes) in [DAILY, ALWAYS] {
        bench.img(&format!(
            "bitmap --add -g {granularity_bytes} -f qbm disk.qbm {name}"
        ))?;
    }
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    bench.sparse("beginning.raw", DISK_BYTES, &[])
}

fn run_round(bench: &Bench, random: &mut Random, summary: &mut Summary) -> Result<String> {
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    for (name, _) in [DAILY, ALWAYS] {
        backup::require_good_bitmap(&mut daemon.qmp, name)?;
    }
    let backed_up = random.one_in(3);
    if backed_up {
        back_up(bench, &mut daemon)?;
        summary.backups_count += 1;
    }

    let load = Load::start(daemon.export()?, REQUESTS_IN_FLIGHT, random.draw());
    load.wait_for(random.between(1, 400))?;
    daemon.kill()?;
    let completed = load.join()?;

    let verdict = inspect(bench)?;
    summary.rounds_count += 1;
    summary.requests_count += completed.answered_count();
    summary.changed_count += verdict.changed_count;
    summary.over_reported_count += verdict.over_reported_count;
    Ok(describe(backed_up, &completed, &verdict))
}

/// Brings `copy.raw` up to the disk by what `daily` marks.
fn back_up(bench: &Bench, daemon: &mut StorageDaemon) -> Result<()> {
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    backup::incremental(&mut daemon.qmp, DAILY.0, "copy")?;
    backup::close_target(&mut daemon.qmp, "copy")?;
    let disk = bench.descriptor("disk.qbm")?.data_file()?;
    require_same(&bench.path("copy.raw"), &disk).context("the incremental backup")
}

/// Holds both bitmaps, as their files are, against the disk; gives `daily`'s verdict.
fn inspect(bench: &Bench) -> Result<Verdict> {
    let descriptor = bench.descriptor("disk.qbm")?;
    ensure!(
        descriptor.session().is_some(),
        "the kill left no session record"
    );
    let disk = descriptor.data_file()?;
    let judge_one = |name: &str, earlier: &str| -> Result<Verdict> {
        let bitmap = descriptor.bitmap(name)?;
        let verdict = judge(&bench.path(earlier), &disk, &bitmap)?;
        verdict
            .require_complete()
            .with_context(|| format!("bitmap {name:?}"))?;
        Ok(verdict)
    };
    judge_one(ALWAYS.0, "beginning.raw")?;
    judge_one(DAILY.0, "copy.raw")
}

fn describe(backed_up: bool, completed: &Completed, verdict: &Verdict) -> String {
    format!(
        "{}killed after {} writes, {} zeroes, {} trims, {} flushes, {} in flight; \
         of {} blocks {} changed, {} marked, {} over-reported, {} missed",
        if backed_up { "backed up, then " } else { "" },
        completed.writes_count,
        completed.zeroes_count,
        completed.trims_count,
        completed.flushes_count,
        completed.cut_off_count,
        verdict.blocks_count,
        verdict.changed_count,
        verdict.marked_count,
        verdict.over_reported_count,
        verdict.missed.len(),
    )
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} kills, {} requests, {} incremental backups equal to the disk\n\
             blocks of {} that changed: {}; missed: 0; over-reported: {}\n\
             both bitmaps were consistent after every kill",
            self.rounds_count,
            self.requests_count,
            self.backups_count,
            size(DAILY.1),
            self.changed_count,
            self.over_reported_count,
        )
    }
}
