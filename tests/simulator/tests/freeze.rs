// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental copies that a random sequence seldom makes: every crash in them, and every operation failing once.

use qbm_simulator::campaign::Case;
use qbm_simulator::disk::{Failure, Fault, Lasting, Operation};
use qbm_simulator::step::ResizeEnd;
use qbm_simulator::{Sequence, Setup, Stats, Step};

/// Every crash in the sequence, without a fault. Returns the operations that it takes.
fn crash(process: bool, steps: &[Step], stats: &Stats) -> (Case, Vec<Operation>) {
    let case = Case {
        sequence: Sequence {
            setup: Setup {
                sectors: 1000,
                process,
                adopted: false,
                crowded: false,
            },
            steps: steps.to_vec(),
        },
        fault: None,
        seed: 1,
    };
    match case.run(None, stats) {
        Ok(operations) => (case, operations),
        Err(violation) => panic!("{violation}\n{:?}", case.sequence),
    }
}

/// As [`crash`], and again with each of the operations failing that change a file or make a change durable.
fn crash_and_fail(steps: &[Step]) {
    let stats = Stats::default();
    let (mut case, operations) = crash(true, steps, &stats);
    for (at, operation) in (1..).zip(operations) {
        let failures: &[Failure] = match operation {
            Operation::WriteAt => &[Failure::Eio, Failure::Short],
            Operation::SyncData => &[Failure::Eio, Failure::MarksClean],
            Operation::CreateNew
            | Operation::SetLength
            | Operation::SyncDirectory
            | Operation::Remove => &[Failure::Eio],
            _ => continue,
        };
        for failure in failures {
            case.fault = Some(Fault {
                at,
                failure: *failure,
                lasting: Lasting::Once,
            });
            if let Err(violation) = case.run(None, &stats) {
                panic!("{violation}\n{:?}, fault {:?}", case.sequence, case.fault);
            }
        }
    }
    assert!(stats.faults() > 0);
}

const GRANULE: u64 = 4096;

fn write(granule: u64) -> Step {
    Step::Write(granule * GRANULE, 1)
}

/// Bitmap 0, of 4 KiB to a bit.
fn add(recording: bool) -> Step {
    Step::Add(0, 1, recording, false)
}

#[test]
fn a_copy_in_steps() {
    let steps = [
        add(true),
        write(1),
        write(40),
        Step::Begin(60 * GRANULE, 1),
        Step::Freeze(0),
        write(1),
        Step::Begin(90 * GRANULE, 1),
        Step::End,
        Step::Checkpoint(0, 30 * GRANULE + 1),
        write(41),
        Step::End,
        Step::Commit(0),
        write(70),
    ];
    crash_and_fail(&steps);
    crash(false, &steps, &Stats::default());
}

#[test]
fn a_commit_that_is_taken_back() {
    crash_and_fail(&[
        add(true),
        write(1),
        Step::Freeze(0),
        write(2),
        Step::Commit(0),
        // After a commit that failed this is no error; after one that did not it must be refused.
        Step::Abort(0),
        write(3),
    ]);
}

#[test]
fn two_copies_beside_each_other() {
    crash_and_fail(&[
        add(true),
        Step::Add(1, 0, true, true),
        write(1),
        Step::Freeze(1),
        Step::Freeze(0),
        write(2),
        Step::Commit(1),
        Step::UserData(0, Some(9)),
        Step::Abort(0),
    ]);
}

#[test]
fn one_that_does_not_record() {
    crash_and_fail(&[
        add(false),
        Step::Mark(0, 5 * GRANULE, 1),
        write(1),
        Step::Freeze(0),
        Step::Mark(0, 9 * GRANULE, 1),
        Step::MergeBits(0, 3),
        Step::Checkpoint(0, 4 * GRANULE),
        Step::Commit(0),
    ]);
}

#[test]
fn a_disk_that_grows_and_shrinks() {
    for (sectors, early) in [(1500, true), (1500, false), (300, false)] {
        crash_and_fail(&[
            add(true),
            write(1),
            write(100),
            Step::Freeze(0),
            Step::BeginResize(sectors, early),
            Step::Checkpoint(0, u64::MAX),
            Step::EndResize(ResizeEnd::Announced),
            write(30),
            Step::Commit(0),
        ]);
    }
}

#[test]
fn a_close_or_the_end_of_the_bitmap() {
    for end in [Step::Reopen(true), Step::Reactivate, Step::GiveUp(0)] {
        crash_and_fail(&[
            add(true),
            write(1),
            Step::Freeze(0),
            write(2),
            Step::Checkpoint(0, GRANULE),
            end,
            Step::Freeze(0),
            Step::Commit(0),
        ]);
    }
}
