// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filters that come and go by blockdev-reopen while guests write: no write is lost, none goes
//! unmarked.

use std::fs;

use anyhow::{Context, Result};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, Writers, backup};
use serde_json::{Value, json};

const DISK_BYTES: usize = 6 << 20;

/// Where a filter is put: the node whose child is exchanged, what it is, and what its child is
/// without the filter.
struct Place {
    parent: fn(&str) -> Value,
    child: &'static str,
}

const ABOVE: Place = Place {
    parent: |child| json!({ "driver": "raw", "node-name": "top", "file": child }),
    child: "disk",
};

const BELOW: Place = Place {
    parent: |child| json!({ "driver": "raw", "node-name": "data", "file": child }),
    child: "data-file",
};

const DESCRIPTOR: Place = Place {
    parent: |child| {
        json!({
            "driver": "qbm", "node-name": "disk", "discard": "unmap", "file": child,
            "data-file": "data",
        })
    },
    child: "descriptor",
};

/// A chain of nodes, each of which can get a filter below it.
fn open(bench: &Bench) -> Result<StorageDaemon> {
    bench.image_with_bitmap("disk.qbm", &DISK_BYTES.to_string(), "4k")?;
    bench.sparse("before", DISK_BYTES as u64, &[])?;
    let mut daemon = StorageDaemon::start(bench)?;
    let group = json!({ "qom-type": "throttle-group", "id": "group", "limits": {} });
    daemon.qmp.execute("object-add", group)?;
    for (node, file) in [("data-file", "disk.qbm.raw"), ("descriptor", "disk.qbm")] {
        let file = json!({
            "driver": "file", "node-name": node, "filename": file, "discard": "unmap",
        });
        daemon.qmp.execute("blockdev-add", file)?;
    }
    for place in [BELOW, DESCRIPTOR, ABOVE] {
        let node = (place.parent)(place.child);
        daemon.qmp.execute("blockdev-add", node)?;
    }
    daemon.export_node("top")?;
    Ok(daemon)
}

fn reopen(daemon: &mut StorageDaemon, place: &Place, child: &str) -> Result<()> {
    let options = json!({ "options": [(place.parent)(child)] });
    daemon.qmp.execute("blockdev-reopen", options).map(drop)
}

fn come_and_go(place: &Place, filter: &Value, killed: bool) -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = open(&bench)?;
    let writers = Writers::start(daemon.nbd_socket(), &vec![0; DISK_BYTES], 11)?;
    for _ in 0..3 {
        writers.wait_for_more(20)?;
        let mut filter = filter.clone();
        filter["node-name"] = json!("filter");
        let key = if filter["driver"] == "blkdebug" {
            "image"
        } else {
            "file"
        };
        filter[key] = json!(place.child);
        daemon.qmp.execute("blockdev-add", filter)?;
        reopen(&mut daemon, place, "filter")?;
        writers.wait_for_more(20)?;
        reopen(&mut daemon, place, place.child)?;
        backup::close_target(&mut daemon.qmp, "filter")?;
    }
    writers.wait_for_more(20)?;
    let written = writers.end_with(daemon, killed)?;
    let descriptor = bench.descriptor("disk.qbm")?;
    let data = fs::canonicalize(descriptor.data_file()?)?;
    written.require(&data)?;
    judge(&bench.path("before"), &data, &descriptor.bitmap("b0")?)?.require_complete()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit()?;
    Ok(())
}

fn every_filter(place: &Place) -> Result<()> {
    for filter in [
        json!({ "driver": "throttle", "throttle-group": "group" }),
        json!({ "driver": "copy-on-read" }),
        json!({ "driver": "blkdebug" }),
    ] {
        for killed in [false, true] {
            come_and_go(place, &filter, killed)
                .with_context(|| format!("{filter}, killed {killed}"))?;
        }
    }
    Ok(())
}

#[test]
fn above_qbm() -> Result<()> {
    every_filter(&ABOVE)
}

#[test]
fn between_qbm_and_its_data_image() -> Result<()> {
    every_filter(&BELOW)
}

#[test]
fn below_the_descriptor() -> Result<()> {
    every_filter(&DESCRIPTOR)
}
