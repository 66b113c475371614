// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mirror from one qbm image to another, killed anywhere in its life: the bitmaps of both
//! mark whatever changed, and one of the two is the disk.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, Content, PATIENCE, Random, StorageDaemon, Writers, backup, jobs};
use serde_json::json;

const DISK_BYTES: usize = 6 << 20;
const ROUNDS: u64 = 12;

/// When the kill comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    Copying,
    Ready,
    Pivoting,
    Pivoted,
}

/// Waits until the target has something.  The job's progress does not tell: zeroes, which
/// the target has anyway, count there as well.
fn wait_for_copied_data(bench: &Bench) -> Result<()> {
    let target = bench.descriptor("target")?.data_file()?;
    let deadline = Instant::now() + PATIENCE;
    while fs::read(&target)?.iter().all(|byte| *byte == 0) {
        ensure!(Instant::now() < deadline, "nothing is copied");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Mirrors `source` to `target` under load, dies, and gives what was written.
fn mirror_and_die(bench: &Bench, moment: Moment, random: &mut Random) -> Result<Content> {
    let mut daemon = StorageDaemon::start(bench)?;
    backup::open_target(&mut daemon.qmp, "disk", "qbm", "source")?;
    backup::open_target(&mut daemon.qmp, "target", "qbm", "target")?;
    daemon.export()?;
    let content = vec![0; DISK_BYTES];
    let writers = Writers::start(daemon.nbd_socket(), &content, random.draw())?;
    writers.wait_for_more(60)?;
    let copy_mode = ["background", "write-blocking"][usize::from(random.one_in(2))];
    let mut job = json!({
        "device": "disk", "target": "target", "sync": "full", "copy-mode": copy_mode,
    });
    if moment == Moment::Copying {
        job["speed"] = json!(1 << 20);
    }
    jobs::start(&mut daemon.qmp, "blockdev-mirror", &job)?;
    if moment == Moment::Copying {
        wait_for_copied_data(bench)?;
    } else {
        jobs::wait_ready(&mut daemon.qmp)?;
    }
    writers.wait_for_more(random.between(1, 60))?;
    if moment == Moment::Pivoting {
        let job = json!({ "device": jobs::JOB });
        daemon.qmp.start("block-job-complete", job)?;
        writers.wait_for_more(random.below(4))?;
    }
    if moment == Moment::Pivoted {
        jobs::complete(&mut daemon.qmp)?;
        writers.wait_for_more(random.between(1, 60))?;
    }
    daemon.kill()?;
    writers.join()
}

fn round(moment: Moment, random: &mut Random) -> Result<()> {
    let bench = Bench::new()?;
    for (name, granularity) in [("source", "4k"), ("target", "64k")] {
        let size = DISK_BYTES.to_string();
        bench.image_with_bitmap(name, &size, granularity)?;
    }
    bench.sparse("before", DISK_BYTES as u64, &[])?;
    let content = mirror_and_die(&bench, moment, random)?;

    let mut disks = Vec::new();
    for name in ["source", "target"] {
        let descriptor = bench.descriptor(name)?;
        let disk = descriptor.data_file()?;
        let verdict = judge(&bench.path("before"), &disk, &descriptor.bitmap("b0")?)?;
        verdict.require_complete().context(name)?;
        ensure!(verdict.changed_count > 0, "{name}: nothing happened");
        let mut daemon = StorageDaemon::with_image(&bench, name)?;
        let marked_bytes = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        ensure!(marked_bytes > 0, "{name}: the bitmap is empty");
        daemon.quit()?;
        disks.push(fs::canonicalize(disk)?);
    }
    let source = content.require(&disks[0]);
    let target = content.require(&disks[1]);
    match moment {
        Moment::Copying | Moment::Ready => source,
        // Either of them was the disk in that instant.
        Moment::Pivoting => source.or(target),
        Moment::Pivoted => target,
    }
}

#[test]
fn a_kill_at_any_time_loses_nothing() -> Result<()> {
    let mut random = Random::new(20);
    for number in 0..ROUNDS {
        let moments = [
            Moment::Copying,
            Moment::Ready,
            Moment::Pivoting,
            Moment::Pivoted,
        ];
        let moment = moments[usize::try_from(number % 4)?];
        round(moment, &mut random).with_context(|| format!("round {number}: {moment:?}"))?;
    }
    Ok(())
}
