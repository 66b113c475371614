// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was explored.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::disk::{Failure, Operation};
use crate::outcome::Outcome;

/// Counters that threads share.
#[derive(Debug, Default)]
pub struct Stats {
    sequences: AtomicU64,
    kills: AtomicU64,
    cuts: AtomicU64,
    second_crashes: AtomicU64,
    faults: AtomicU64,
    failed: Mutex<BTreeSet<(Operation, Failure)>>,
}

impl Stats {
    pub(crate) fn sequence(&self) {
        self.sequences.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn crash_point(&self, outcome: Outcome) {
        let counter = if outcome.is_cut() {
            &self.cuts
        } else {
            &self.kills
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn second_crash(&self) {
        self.second_crashes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fault(&self, operation: Operation, failure: Failure) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert((operation, failure));
    }

    /// Sequences run, each without a fault and with several.
    pub fn sequences(&self) -> u64 {
        self.sequences.load(Ordering::Relaxed)
    }

    /// States that were opened and judged, each after another crash.
    pub fn crash_points(&self) -> u64 {
        self.kills.load(Ordering::Relaxed) + self.cuts.load(Ordering::Relaxed)
    }

    /// Runs in which an operation was made to fail, and did.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Operations that failed at least once.
    pub fn operations_failed(&self) -> BTreeSet<Operation> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().map(|(operation, _)| *operation).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} sequences, {} crash points ({} kills, {} power cuts; {} within a recovery), {} faults in {} of {} operations",
            self.sequences(),
            self.crash_points(),
            self.kills.load(Ordering::Relaxed),
            self.cuts.load(Ordering::Relaxed),
            self.second_crashes.load(Ordering::Relaxed),
            self.faults(),
            self.operations_failed().len(),
            Operation::ALL.len(),
        )
    }
}
