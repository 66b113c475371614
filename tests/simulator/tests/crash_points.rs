// SPDX-License-Identifier: MIT OR Apache-2.0
//! The budget that every test run spends: seeds that are always the same, and one that is new.

use std::time::{SystemTime, UNIX_EPOCH};

use qbm_simulator::Stats;
use qbm_simulator::campaign::campaign;
use qbm_simulator::disk::Operation;

/// Crash points of the seeds that are always the same.
const SAME: u64 = 120_000;
/// Crash points in all.
const ALL: u64 = 160_000;
/// What every run must reach.
const AT_LEAST: u64 = 100_000;

#[test]
fn no_crash_breaks_a_promise() {
    let stats = Stats::default();
    let fresh = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let fresh = (fresh.as_nanos() as u64) >> 16 | 1 << 40;
    for (seed, crash_points) in [(1, SAME), (fresh, ALL)] {
        println!("seeds from {seed} on");
        if let Err(finding) = campaign(seed, crash_points, &stats) {
            println!("{stats}");
            panic!("{finding}");
        }
    }
    println!("{stats}");
    assert!(stats.crash_points() >= AT_LEAST, "{stats}");
    // Nothing in the engine lists a directory to use an image.
    let used = Operation::ALL
        .iter()
        .filter(|operation| **operation != Operation::List);
    let failed = stats.operations_failed();
    let missed: Vec<_> = used
        .filter(|operation| !failed.contains(operation))
        .collect();
    assert!(missed.is_empty(), "never made to fail: {missed:?}");
}
