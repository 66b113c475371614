// SPDX-License-Identifier: MIT OR Apache-2.0
//! The destination has an image of its own: a job copies the data, the stream carries the
//! bitmaps.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, GRANULE, found, recording};
use qbm_testkit::{Bench, Machine, migration, oracle};
use serde_json::json;

use crate::{Pair, what_stays, write};

const CAPABILITIES: &[&str] = &["dirty-bitmaps"];

/// An image of the source with a bitmap, and an empty one of the destination.
fn pair(format: &str) -> Result<Pair> {
    let bench = Bench::new()?;
    qbm_testkit::life::image(&bench, format, "one")?;
    bench.img(["create", "-q", "-f", format, "two", "64M"])?;
    Pair::over(bench, format, ["one", "two"], CAPABILITIES)
}

/// Has the source's disk copied to the destination's, until they are the same.
fn mirror(pair: &mut Pair) -> Result<()> {
    let socket = pair.bench.path(".mirror");
    let address = json!({ "type": "unix", "path": socket });
    let listen = json!({ "addr": { "type": "unix", "data": { "path": socket } } });
    let export = json!({ "type": "nbd", "id": "mirror", "node-name": "disk", "writable": true });
    let destination = &mut pair.destination.qmp;
    destination.execute("nbd-server-start", listen)?;
    destination.execute("block-export-add", export)?;
    let copy = json!({ "driver": "nbd", "node-name": "copy", "server": address, "export": "disk" });
    let job = json!({ "job-id": "mirror", "device": "disk", "target": "copy", "sync": "full",
        "filter-node-name": "top" });
    pair.source.qmp.execute("blockdev-add", copy)?;
    pair.source.qmp.execute("blockdev-mirror", job)?;
    let ready = |data: &serde_json::Value| data["device"] == "mirror";
    pair.source.qmp.event("BLOCK_JOB_READY", ready).map(drop)
}

/// Writes as a guest does, where the job sees it.
fn write_through(source: &mut Machine, granule: u64) -> Result<()> {
    migration::write(&mut source.qmp, "top", 7, granule * GRANULE, 4096)
}

/// Ends the copying, with both the same.
fn end_mirror(source: &mut Machine) -> Result<()> {
    let job = json!({ "device": "mirror" });
    source.qmp.execute("block-job-cancel", job)?;
    let ended = |data: &serde_json::Value| data["device"] == "mirror";
    source.qmp.event("BLOCK_JOB_COMPLETED", ended).map(drop)
}

fn migrated(pair: &mut Pair) -> Result<()> {
    write(&mut pair.source, 0)?;
    mirror(pair)?;
    write_through(&mut pair.source, 5)?;
    pair.start()?;
    write_through(&mut pair.source, 10)?;
    end_mirror(&mut pair.source)?;
    pair.complete()?;
    write(&mut pair.destination, 20)
}

#[test]
fn the_bitmap_is_where_the_disk_is() -> Result<()> {
    for format in FORMATS {
        let mut pair = pair(format)?;
        migrated(&mut pair)?;
        pair.source.quit()?;
        pair.destination.quit()?;
        let bench = pair.bench;
        let left = found(&bench, format, "one")?;
        assert_eq!(left, what_stays(format, "b0"), "{format}");
        assert_eq!(
            found(&bench, format, "two")?,
            [recording("b0", 4)],
            "{format}"
        );
        if format == "qbm" {
            bench.sparse("before", 64 << 20, &[])?;
            let bitmap = bench.descriptor("two")?.bitmap("b0")?;
            let (before, disk) = (bench.path("before"), bench.path("two.raw"));
            let verdict = oracle::judge(&before, &disk, &bitmap)?;
            verdict.require_complete()?;
            assert_eq!(verdict.changed_count, 4);
        }
    }
    Ok(())
}

/// With qcow2 the bitmap would be gone.
#[test]
fn the_destination_is_killed() -> Result<()> {
    let mut pair = pair("qbm")?;
    migrated(&mut pair)?;
    pair.destination.kill()?;
    pair.source.quit()?;
    assert_eq!(found(&pair.bench, "qbm", "one")?, []);
    assert_eq!(found(&pair.bench, "qbm", "two")?, [recording("b0", 4)]);
    Ok(())
}

/// A bitmap that has not arrived is not stored as if it had.
#[test]
fn the_destination_is_killed_before() -> Result<()> {
    let mut pair = pair("qbm")?;
    write(&mut pair.source, 0)?;
    mirror(&mut pair)?;
    pair.start()?;
    pair.destination.kill()?;
    assert_eq!(found(&pair.bench, "qbm", "two")?, []);
    Ok(())
}
