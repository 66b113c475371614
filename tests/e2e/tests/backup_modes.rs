// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of the bitmap of a backup job, for each kind of job and of end: what it is
//! with qcow2, in memory and on disk, and after a SIGKILL.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, require_settled};
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Success,
    Cancel,
    /// The target fails at 1 MiB, the job ends there.
    TargetError,
}

/// Node `disk` with bitmap `b0`, dirty at 0, 1 MiB and 2 MiB; node `target`.
fn prepare(bench: &Bench, format: &str, end: End) -> Result<StorageDaemon> {
    let image = format!("disk.{format}");
    // sync=top asks what is allocated: in an image without backing file, all of it.
    let options = match format {
        "qcow2" => "preallocation=metadata",
        _ => "preallocation=off",
    };
    bench.img(["create", "-q", "-f", format, "-o", options, &image, "64M"])?;
    bench.sparse("target.raw", 64 << 20, &[])?;
    let mut daemon = StorageDaemon::start(bench)?;
    let disk = json!({
        "driver": format, "node-name": "disk", "file": { "driver": "file", "filename": image },
    });
    daemon.qmp.execute("blockdev-add", disk)?;
    let mut file = json!({ "driver": "file", "filename": "target.raw" });
    if end == End::TargetError {
        file = json!({
            "driver": "blkdebug", "image": file,
            "inject-error": [{ "event": "none", "iotype": "write", "sector": 2048, "errno": 5 }],
        });
    }
    let target = json!({ "driver": "raw", "node-name": "target", "file": file });
    daemon.qmp.execute("blockdev-add", target)?;
    bitmaps::add(&mut daemon.qmp, "b0", 65536)?;
    Ok(daemon)
}

/// The bitmaps in memory, and the checksum of `b0`.
fn state(daemon: &mut StorageDaemon) -> Result<Value> {
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    Ok(json!([
        list,
        bitmaps::checksum(&mut daemon.qmp, "disk", "b0")?
    ]))
}

/// Runs a job to its end with writes while it runs; gives the states on the way.
fn run(bench: &Bench, format: &str, job: &Value, end: End) -> Result<(StorageDaemon, Vec<Value>)> {
    let mut daemon = prepare(bench, format, end)?;
    let mut client = daemon.export()?;
    for offset in [0, MIB, 2 * MIB] {
        client.write(offset, &[1; 65536])?;
    }
    let mut states = vec![state(&mut daemon)?];
    daemon.qmp.start("blockdev-backup", job.clone())?;
    let reply = daemon.qmp.reply()?;
    if let Some(error) = reply.get("error") {
        states.push(error["desc"].clone());
        return Ok((daemon, states));
    }
    let mut list = bitmaps::list(&mut daemon.qmp, "disk")?;
    // What the job has copied by now, bitmaps of its own tell, which have no name.
    list.retain(|bitmap| bitmap.get("name").is_some());
    states.push(list.into());
    // Copied already, or by this write; and one that the job knows nothing of.
    client.write(0, &[2; 100])?;
    client.write(3 * MIB, &[2; 100])?;
    daemon.qmp.execute(
        "block-job-set-speed",
        json!({ "device": "job", "speed": 0 }),
    )?;
    let endless = job["sync"] == "none";
    if end != End::TargetError && !endless {
        let pending = |data: &Value| data["status"] == "pending";
        daemon.qmp.event("JOB_STATUS_CHANGE", pending)?;
    }
    match end {
        End::Cancel => daemon.qmp.execute("job-cancel", json!({ "id": "job" }))?,
        End::Success => daemon.qmp.execute("job-finalize", json!({ "id": "job" }))?,
        End::TargetError => json!({}),
    };
    let gone = |data: &Value| data["id"] == "job" && data["status"] == "null";
    daemon.qmp.event("JOB_STATUS_CHANGE", gone)?;
    states.push(state(&mut daemon)?);
    client.write(4 * MIB, &[2; 100])?;
    states.push(state(&mut daemon)?);
    Ok((daemon, states))
}

/// The same with both formats; then kills QEMU over the qbm image and looks again.
fn same_as_qcow2(job: &Value, end: End) -> Result<Vec<Value>> {
    let (of_qcow2, of_qbm) = (Bench::new()?, Bench::new()?);
    let (_, expected) = run(&of_qcow2, "qcow2", job, end).context("qcow2")?;
    let (mut daemon, states) = run(&of_qbm, "qbm", job, end).context("qbm")?;
    ensure!(states == expected, "qcow2: {expected:#?}\nqbm: {states:#?}");
    require_settled(&of_qbm, &mut daemon.qmp, "b0")?;
    let before = state(&mut daemon)?;
    daemon.kill()?;
    let mut daemon = StorageDaemon::with_image(&of_qbm, "disk.qbm")?;
    ensure!(state(&mut daemon)? == before, "after a kill");
    Ok(states)
}

fn job(sync: &str) -> Value {
    json!({
        "job-id": "job", "device": "disk", "target": "target", "sync": sync,
        "auto-finalize": false, "speed": 65536,
        // One piece after the other: how far a job comes is the same each time.
        "x-perf": { "max-workers": 1, "max-chunk": 65536, "use-copy-range": false },
    })
}

fn every_mode(end: End) -> Result<()> {
    let mut refused_count = 0;
    for sync in ["full", "top", "incremental", "bitmap", "none"] {
        for mode in ["on-success", "always", "never"] {
            let mut job = job(sync);
            job["bitmap"] = json!("b0");
            job["bitmap-mode"] = json!(mode);
            let states = same_as_qcow2(&job, end)
                .with_context(|| format!("sync {sync}, bitmap-mode {mode}, {end:?}"))?;
            refused_count += u32::from(states.last().is_some_and(Value::is_string));
        }
    }
    // incremental means on-success, none takes no bitmap; full and top have no use for never.
    ensure!(refused_count < 9, "{refused_count} of 15 were refused");
    Ok(())
}

#[test]
fn jobs_that_succeed() -> Result<()> {
    every_mode(End::Success)
}

#[test]
fn jobs_that_are_cancelled() -> Result<()> {
    every_mode(End::Cancel)
}

#[test]
fn jobs_whose_target_fails() -> Result<()> {
    every_mode(End::TargetError)
}

/// Bitmaps that no job has record beside it.
#[test]
fn jobs_without_a_bitmap() -> Result<()> {
    for (sync, end) in [
        ("full", End::Success),
        ("top", End::Success),
        ("full", End::Cancel),
        ("full", End::TargetError),
        ("none", End::Cancel),
    ] {
        same_as_qcow2(&job(sync), end).with_context(|| format!("sync {sync}, {end:?}"))?;
    }
    Ok(())
}

#[test]
fn a_job_with_larger_clusters_than_the_bitmap() -> Result<()> {
    for end in [End::Success, End::Cancel] {
        let mut job = job("bitmap");
        job["bitmap"] = json!("b0");
        job["bitmap-mode"] = json!("always");
        job["x-perf"]["min-cluster-size"] = json!(1 << 20);
        job["x-perf"]["max-chunk"] = json!(1 << 20);
        same_as_qcow2(&job, end).with_context(|| format!("{end:?}"))?;
    }
    Ok(())
}

/// The data image cannot be read at 1 MiB: the job fails, and the bitmap keeps its bits.
#[test]
fn a_job_whose_source_fails() -> Result<()> {
    for (mode, expected) in [("on-success", 4), ("never", 4), ("always", 4)] {
        let bench = Bench::new()?;
        bench.img("create -q -f qbm disk.qbm 64M")?;
        bench.sparse("target.raw", 64 << 20, &[])?;
        let data = json!({
            "driver": "raw",
            "file": {
                "driver": "blkdebug", "image": { "driver": "file", "filename": "disk.qbm.raw" },
                "inject-error": [{ "event": "none", "iotype": "read", "sector": 2048, "errno": 5 }],
            },
        });
        let options = json!({ "data-file": data });
        let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
        bitmaps::add(&mut daemon.qmp, "b0", 65536)?;
        let mut client = daemon.export()?;
        for offset in [MIB, 2 * MIB, 3 * MIB, 4 * MIB] {
            client.write(offset, &[1; 65536])?;
        }
        let target = json!({
            "driver": "raw", "node-name": "target",
            "file": { "driver": "file", "filename": "target.raw" },
        });
        daemon.qmp.execute("blockdev-add", target)?;
        let mut job = job("bitmap");
        job["bitmap"] = json!("b0");
        job["bitmap-mode"] = json!(mode);
        job["speed"] = json!(0);
        daemon.qmp.execute("blockdev-backup", job)?;
        let ended = daemon.qmp.event("BLOCK_JOB_COMPLETED", |_| true)?;
        ensure!(ended["data"].get("error").is_some(), "{ended}");
        require_settled(&bench, &mut daemon.qmp, "b0")?;
        daemon.kill()?;
        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        let count = &bitmaps::list(&mut daemon.qmp, "disk")?[0]["count"];
        assert_eq!(count, &json!(expected * 65536), "bitmap-mode {mode}");
    }
    Ok(())
}
