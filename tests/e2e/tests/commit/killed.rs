// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commits under load, killed anywhere in their life: the base's bitmap lacks nothing.

use std::fs;

use anyhow::{Context, Result, ensure};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, Content, Random, StorageDaemon, Writers, backup, jobs};
use serde_json::json;

use crate::{DISK_BYTES, snapshot, with_base};

/// When the kill comes, if one does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Killed {
    Never,
    Committing,
    Ready,
    Pivoted,
    LayerBelow,
}

/// A commit of the layer below the active one, killed in the middle.
fn layer_below_and_die(bench: &Bench, random: &mut Random) -> Result<Content> {
    let mut daemon = with_base(bench, "qbm")?;
    daemon.export()?;
    let content = vec![0; DISK_BYTES];
    let writers = Writers::start(daemon.nbd_socket(), &content, random.draw())?;
    for (node, overlay) in [("disk", "mid"), ("mid", "top")] {
        writers.wait_for_more(40)?;
        snapshot(bench, &mut daemon, node, overlay)?;
    }
    let speed = if random.one_in(2) { 1 << 20 } else { 0 };
    let job = json!({ "device": "top", "top-node": "mid", "speed": speed });
    jobs::start(&mut daemon.qmp, "block-commit", &job)?;
    writers.wait_for_more(random.between(1, 30))?;
    daemon.kill()?;
    writers.join()
}

/// A commit of the active layer under load; gives what was written.
fn commit_under_load(bench: &Bench, killed: Killed, random: &mut Random) -> Result<Content> {
    if killed == Killed::LayerBelow {
        return layer_below_and_die(bench, random);
    }
    let mut daemon = with_base(bench, "qbm")?;
    daemon.export()?;
    let content = vec![0; DISK_BYTES];
    let writers = Writers::start(daemon.nbd_socket(), &content, random.draw())?;
    writers.wait_for_more(30)?;
    snapshot(bench, &mut daemon, "disk", "top")?;
    writers.wait_for_more(60)?;
    let mut job = json!({ "device": "top" });
    if killed == Killed::Committing {
        job["speed"] = json!(1 << 20);
    }
    jobs::start(&mut daemon.qmp, "block-commit", &job)?;
    writers.wait_for_more(random.between(1, 40))?;
    if killed != Killed::Committing {
        jobs::wait_ready(&mut daemon.qmp)?;
        writers.wait_for_more(random.between(1, 40))?;
    }
    if matches!(killed, Killed::Never | Killed::Pivoted) {
        jobs::complete(&mut daemon.qmp)?;
        writers.wait_for_more(random.between(1, 40))?;
    }
    if killed == Killed::Never {
        let content = writers.stop()?;
        daemon.quit()?;
        return Ok(content);
    }
    daemon.kill()?;
    writers.join()
}

fn round(killed: Killed, random: &mut Random) -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("before", DISK_BYTES as u64, &[])?;
    let content = commit_under_load(&bench, killed, random)?;
    let descriptor = bench.descriptor("base")?;
    let data = fs::canonicalize(descriptor.data_file()?)?;
    let verdict = judge(&bench.path("before"), &data, &descriptor.bitmap("b0")?)?;
    verdict.require_complete()?;
    ensure!(verdict.changed_count > 0, "nothing happened");
    // Before, the disk is a qcow2 image, which may lose what was not flushed.
    if matches!(killed, Killed::Never | Killed::Pivoted) {
        content.require(&data)?;
    }
    let mut daemon = StorageDaemon::with_image(&bench, "base")?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit()?;
    Ok(())
}

#[test]
fn under_load_and_killed() -> Result<()> {
    let mut random = Random::new(30);
    for killed in [
        Killed::Never,
        Killed::Committing,
        Killed::Ready,
        Killed::Pivoted,
        Killed::LayerBelow,
        Killed::Committing,
        Killed::Pivoted,
        Killed::LayerBelow,
    ] {
        round(killed, &mut random).with_context(|| format!("killed: {killed:?}"))?;
    }
    Ok(())
}
