// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two incremental backups at once under load, killed, cancelled or completed in the
//! middle of it.
//!
//! Each job brings a copy of the disk up to date, in place.  At any time its bitmap must
//! mark every block in which copy and disk differ; in the end they must not differ.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps;
use qbm_testkit::load::Load;
use qbm_testkit::oracle::{judge, require_same};
use qbm_testkit::{Bench, Random, StorageDaemon, backup};
use serde_json::{Value, json};

const DISK_BYTES: u64 = 24 << 20;
const ROUNDS: u32 = 40;
const SEED: u64 = 257;

/// Bitmaps with their granularities; each has a copy of its name.
const BITMAPS: [(&str, u64); 2] = [("fine", 4096), ("coarse", 65536)];

#[derive(Debug, Default)]
struct Happened {
    kills_count: u32,
    completions_count: u32,
    cancellations_count: u32,
}

fn job(name: &str, random: &mut Random) -> Value {
    let mut job = json!({
        "job-id": name, "device": "disk", "target": name, "bitmap": name,
        "sync": "incremental", "auto-finalize": false,
        "x-perf": { "max-workers": random.between(1, 8), "max-chunk": 65536 },
    });
    if random.one_in(2) {
        job["sync"] = json!("bitmap");
        // never: the bitmap stays as it is, and the copy gets better.
        job["bitmap-mode"] = json!(["on-success", "always", "never"][random.below(3) as usize]);
    }
    if random.one_in(2) {
        job["speed"] = json!(1 << 20);
    }
    job
}

fn round(bench: &Bench, random: &mut Random, happened: &mut Happened) -> Result<()> {
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    for (name, _) in BITMAPS {
        backup::require_good_bitmap(&mut daemon.qmp, name)?;
    }
    for (name, _) in BITMAPS {
        backup::open_target(&mut daemon.qmp, name, "raw", &format!("{name}.raw"))?;
    }
    let load = Load::start(daemon.export()?, 8, random.draw());
    load.wait_for(50)?;
    let actions = BITMAPS.map(|(name, _)| bitmaps::action("blockdev-backup", job(name, random)));
    let completion = ["individual", "grouped"][random.below(2) as usize];
    let arguments = json!({
        "actions": actions, "properties": { "completion-mode": completion },
    });
    daemon.qmp.execute("transaction", arguments)?;
    if let Err(stuck) = load.wait_for_more(random.below(200)) {
        let failed = load.join().err().unwrap_or(stuck);
        return Err(failed.context(daemon.stderr()));
    }
    if random.one_in(3) {
        // It may have ended.
        let _ = daemon
            .qmp
            .execute("job-cancel", json!({ "id": BITMAPS[0].0 }));
    }
    if random.one_in(2) {
        sleep(Duration::from_micros(random.below(30_000)));
        happened.kills_count += 1;
        daemon.kill()?;
        load.join()?;
        return Ok(());
    }
    for (name, _) in BITMAPS {
        // It may be over.
        let fast = json!({ "device": name, "speed": 0 });
        let _ = daemon.qmp.execute("block-job-set-speed", fast);
    }
    // One after the other: QEMU can abort when two jobs of a node end in one instant.
    for (name, _) in BITMAPS {
        let waiting_or_gone = |data: &Value| {
            data["id"] == name && (data["status"] == "pending" || data["status"] == "null")
        };
        let state = daemon.qmp.event("JOB_STATUS_CHANGE", waiting_or_gone)?;
        if state["data"]["status"] == "null" {
            continue;
        }
        daemon.qmp.start("job-finalize", json!({ "id": name }))?;
        if random.one_in(4) {
            sleep(Duration::from_micros(random.below(3000)));
            happened.kills_count += 1;
            daemon.kill()?;
            load.join()?;
            return Ok(());
        }
        // Of jobs that are grouped, the first was finalized with the second.
        daemon.qmp.reply()?;
        daemon.qmp.event("JOB_STATUS_CHANGE", |data| {
            data["id"] == name && data["status"] == "null"
        })?;
    }
    for (name, _) in BITMAPS {
        backup::require_good_bitmap(&mut daemon.qmp, name)?;
    }
    if random.one_in(2) {
        happened.kills_count += 1;
        daemon.kill()?;
        load.join()?;
        return Ok(());
    }
    load.stop()?;
    count_ends(&mut daemon, happened);
    daemon.quit().map(drop)
}

/// Looks at the events of the jobs' ends; all of them have come.
fn count_ends(daemon: &mut StorageDaemon, happened: &mut Happened) {
    for event in daemon.qmp.take_events() {
        match event["event"].as_str() {
            Some("BLOCK_JOB_CANCELLED") => happened.cancellations_count += 1,
            Some("BLOCK_JOB_COMPLETED") => happened.completions_count += 1,
            _ => {}
        }
    }
}

/// Whatever differs between disk and copy is marked.
fn require_complete(bench: &Bench) -> Result<()> {
    // It puts in order what a kill left half done.
    StorageDaemon::with_image(bench, "disk.qbm")?.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    for (name, _) in BITMAPS {
        let copy = bench.path(&format!("{name}.raw"));
        judge(&copy, &descriptor.data_file()?, &descriptor.bitmap(name)?)?
            .require_complete()
            .with_context(|| format!("bitmap {name:?}"))?;
    }
    Ok(())
}

#[test]
fn a_copy_and_its_bitmap_are_the_disk() -> Result<()> {
    let bench = Bench::new()?;
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    for (name, granularity_bytes) in BITMAPS {
        bench.img(&format!(
            "bitmap --add -g {granularity_bytes} -f qbm disk.qbm {name}"
        ))?;
        bench.sparse(&format!("{name}.raw"), DISK_BYTES, &[])?;
    }
    let mut random = Random::new(SEED);
    let mut happened = Happened::default();
    for number in 0..ROUNDS {
        round(&bench, &mut random, &mut happened)
            .and_then(|()| require_complete(&bench))
            .with_context(|| format!("round {number} of seed {SEED}"))?;
    }
    println!("{happened:?}");
    ensure!(
        happened.kills_count > 5 && happened.completions_count > 2,
        "too little happened: {happened:?}"
    );

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    for (name, _) in BITMAPS {
        backup::open_target(&mut daemon.qmp, name, "raw", &format!("{name}.raw"))?;
        backup::incremental(&mut daemon.qmp, name, name)?;
    }
    daemon.quit()?;
    let disk = bench.descriptor("disk.qbm")?.data_file()?;
    for (name, _) in BITMAPS {
        require_same(&bench.path(&format!("{name}.raw")), &disk)?;
        let bitmap = bench.descriptor("disk.qbm")?.bitmap(name)?;
        assert_eq!(bitmap.set_count(), 0, "{name}");
    }
    Ok(())
}
