// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many sequences on several threads, until enough was explored; what fails is made small.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Failure, Fault, Lasting, Operation};
use crate::run::{Effort, run};
use crate::stats::Stats;
use crate::step::{Sequence, sequence};
use crate::violation::Violation;

/// Longest sequence.
const STEPS_MAX: usize = 14;
/// Faults tried with each sequence.
const FAULTS: usize = 8;
/// Smaller sequences tried when one fails.
const SHRINKS_MAX: u32 = 300;

/// Runs of a smaller sequence before it is taken to hold.
const ATTEMPTS: u32 = 2;

/// What is run without a fault.
const FULL: Effort = Effort {
    cuts: 2,
    second_one_in: 6,
    lives_one_in: 12,
};
/// What is run with one.
const AFTER_FAULT: Effort = Effort {
    cuts: 1,
    second_one_in: 12,
    lives_one_in: 12,
};

/// One run of one sequence, to the last crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is done.
    pub sequence: Sequence,
    /// What fails.
    pub fault: Option<Fault>,
    /// Chooses what each crash leaves.
    pub seed: u64,
}

/// A case that fails, as small as it could be made.
#[derive(Debug)]
pub struct Finding {
    /// The seed that it was found with.
    pub seed: u64,
    /// The case.
    pub case: Case,
    /// What it violates.
    pub violation: Violation,
}

impl Case {
    /// Runs it; `only`: nothing is explored but the crash of that label, and every operation is printed.
    ///
    /// # Errors
    /// The first promise that does not hold; a panic of the engine is one.
    pub fn run(&self, only: Option<&str>, stats: &Stats) -> Result<Vec<Operation>, Violation> {
        let effort = match self.fault {
            None => FULL,
            Some(_) => AFTER_FAULT,
        };
        let call = || run(&self.sequence, self.fault, effort, self.seed, only, stats);
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Violation::new(
                "API",
                format!("panic: {}", text.unwrap_or_default()),
            ))
        })
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.violation)?;
        writeln!(
            formatter,
            "found with seed {}; {} steps:",
            self.seed,
            self.case.sequence.steps.len()
        )?;
        writeln!(formatter, "    {:?}", self.case.sequence)?;
        write!(
            formatter,
            "replay: cargo run -p qbm-simulator -- --seed {} --sequence '{}'",
            self.case.seed,
            json(&self.case.sequence),
        )?;
        if let Some(fault) = &self.case.fault {
            write!(formatter, " --fault '{}'", json(fault))?;
        }
        Ok(())
    }
}

/// The sequence of a seed, as a tree that can be made smaller.
fn tree(seed: u64) -> impl ValueTree<Value = Sequence> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    sequence(STEPS_MAX)
        .new_tree(&mut runner)
        .expect("nothing is filtered")
}

/// Any operation of any kind: every kind comes up as often as every other, though there are many more of some.
fn fault(operations: &[Operation], random: &mut fastrand::Rng) -> Fault {
    let kinds: Vec<Operation> = operations
        .iter()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let kind = kinds[random.usize(0..kinds.len())];
    let of_kind: Vec<usize> = (0..operations.len())
        .filter(|at| operations[*at] == kind)
        .collect();
    Fault {
        at: of_kind[random.usize(0..of_kind.len())] as u64 + 1,
        failure: Failure::ALL[random.usize(0..Failure::ALL.len())],
        lasting: [Lasting::Once, Lasting::Once, Lasting::Kind, Lasting::All][random.usize(0..4)],
    }
}

/// Runs the sequence of `seed`, without a fault and with several.
///
/// # Errors
/// A case that fails, made small.
pub fn explore(seed: u64, stats: &Stats) -> Result<(), Box<Finding>> {
    let mut tree = tree(seed);
    let mut case = Case {
        sequence: tree.current(),
        fault: None,
        seed,
    };
    stats.sequence();
    let operations = match case.run(None, stats) {
        Ok(operations) => operations,
        Err(violation) => return Err(shrink(&mut tree, case, violation)),
    };
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..FAULTS {
        case.fault = Some(fault(&operations, &mut random));
        if let Err(violation) = case.run(None, stats) {
            return Err(shrink(&mut tree, case, violation));
        }
    }
    Ok(())
}

/// Looks for a smaller sequence that violates the same promise.
fn shrink(
    tree: &mut impl ValueTree<Value = Sequence>,
    first: Case,
    violation: Violation,
) -> Box<Finding> {
    let stats = Stats::default();
    let mut best = (first.clone(), violation);
    let mut is_smaller = tree.simplify();
    let mut tries = 0;
    while is_smaller && tries < SHRINKS_MAX {
        tries += 1;
        let mut case = Case {
            sequence: tree.current(),
            ..first.clone()
        };
        let failed = fails_alike(&mut case, best.1.invariant, &stats);
        is_smaller = match failed {
            Some(violation) => {
                best = (case, violation);
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    Box::new(Finding {
        seed: first.seed,
        case: best.0,
        violation: best.1,
    })
}

/// Fewer steps are fewer operations: the fault is looked for at other places too.
fn fails_alike(case: &mut Case, invariant: &str, stats: &Stats) -> Option<Violation> {
    let attempt = |case: &Case| {
        case.run(None, stats)
            .err()
            .filter(|violation| violation.invariant == invariant)
    };
    // What a crash leaves is chosen anew in another sequence: the same choice may not come up at once.
    for _ in 0..ATTEMPTS {
        if let Some(violation) = attempt(case) {
            return Some(violation);
        }
        case.seed = case.seed.wrapping_add(1);
    }
    let fault = case.fault?;
    for at in fault.at.saturating_sub(12).max(1)..fault.at {
        case.fault = Some(Fault { at, ..fault });
        if let Some(violation) = attempt(case) {
            return Some(violation);
        }
    }
    None
}

/// Explores the seeds from `seed` on with all processors, until `crash_points` were judged.
///
/// # Errors
/// A case that fails, made small.
pub fn campaign(seed: u64, crash_points: u64, stats: &Stats) -> Result<(), Box<Finding>> {
    let next = AtomicU64::new(seed);
    let is_over = AtomicBool::new(false);
    let finding = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && stats.crash_points() < crash_points {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(found) = explore(seed, stats) {
                        is_over.store(true, Ordering::Relaxed);
                        finding.lock().expect("not poisoned").get_or_insert(found);
                    }
                }
            });
        }
    });
    finding
        .into_inner()
        .expect("not poisoned")
        .map_or(Ok(()), Err)
}
