// SPDX-License-Identifier: MIT OR Apache-2.0
//! The main job on real input: a raw disk, a Linux guest, backups, a crash, a restore.
//!
//! Everything that is shown is also checked: the first thing that is not as it should
//! be ends the demonstration with an error.

mod boot;
mod files;
mod session;
mod step1_adopt;
mod step2_full;
mod step3_incremental;
mod step4_crash;
mod step5_restore;
mod transcript;

use anyhow::Result;
use qbm_testkit::Bench;

use transcript::Transcript;

/// The disk's size.
const DISK_BYTES: u64 = 1 << 30;
/// The bitmap that the backups go by.
const BITMAP: &str = "daily";
/// What one bit of it covers: as much as a cluster of the backups' format, so that no
/// block is copied for the sake of its neighbour.
const GRANULARITY_BYTES: u64 = 64 * 1024;

/// Runs the demonstration, printing a transcript.
///
/// # Errors
/// When something is not as it should be.
pub fn run() -> Result<()> {
    let bench = Bench::new()?;
    let mut transcript = Transcript::begin(&bench);
    step1_adopt::run(&mut transcript)?;
    let written_first = step2_full::run(&mut transcript)?;
    step3_incremental::run(&mut transcript, &written_first)?;
    let written_last = step4_crash::run(&mut transcript)?;
    step5_restore::run(&mut transcript, &[written_first, written_last])?;
    transcript.end();
    Ok(())
}
