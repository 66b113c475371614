// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filters above and below a qbm node, each under load and killed: what is written is there
//! and marked.

use std::fs;

use anyhow::{Context, Result};
use qbm_testkit::nbd::{NbdClient, require_io_error};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, Writers, backup, bitmaps};
use serde_json::{Value, json};

const DISK_BYTES: usize = 6 << 20;

/// Filters, as options that lack the node they filter.
fn filters() -> Vec<Value> {
    vec![
        json!({ "driver": "throttle", "throttle-group": "group" }),
        json!({ "driver": "copy-on-read" }),
        json!({ "driver": "blkdebug", "image": null, "max-transfer": 16384 }),
        json!({ "driver": "preallocate", "prealloc-size": 1 << 20 }),
        json!({ "driver": "blklogwrites", "log": {
            "driver": "file", "filename": "log.raw",
        }}),
        json!({ "driver": "raw" }),
        json!({ "driver": "raw", "offset": 0, "size": DISK_BYTES }),
    ]
}

/// Puts `filter` over `node`, under the name given.
fn over(filter: &Value, node: &Value, name: &str) -> Value {
    let mut filter = filter.clone();
    let key = if filter.get("image").is_some() {
        "image"
    } else {
        "file"
    };
    filter[key] = node.clone();
    filter["node-name"] = json!(name);
    filter["discard"] = json!("unmap");
    filter
}

fn daemon_with_group(bench: &Bench) -> Result<StorageDaemon> {
    let mut daemon = StorageDaemon::start(bench)?;
    let group = json!({
        "qom-type": "throttle-group", "id": "group", "limits": { "iops-total": 100_000 },
    });
    daemon.qmp.execute("object-add", group)?;
    Ok(daemon)
}

/// Opens the image with the filter above it, below it, or below its descriptor.
fn open(daemon: &mut StorageDaemon, filter: &Value, place: &str) -> Result<()> {
    let file = |name: &str| json!({ "driver": "file", "filename": name, "discard": "unmap" });
    let mut disk = json!({
        "driver": "qbm", "node-name": "disk", "discard": "unmap", "file": file("disk.qbm"),
    });
    if place == "below" {
        disk["data-file"] = over(filter, &file("disk.qbm.raw"), "filter");
    }
    if place == "descriptor" {
        disk["file"] = over(filter, &file("disk.qbm"), "filter");
    }
    daemon.qmp.execute("blockdev-add", disk)?;
    if place == "above" {
        let filter = over(filter, &json!("disk"), "filter");
        daemon.qmp.execute("blockdev-add", filter)?;
    }
    let node = if place == "above" { "filter" } else { "disk" };
    daemon.export_node(node)
}

fn through(filter: &Value, place: &str) -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", &DISK_BYTES.to_string(), "4k")?;
    bench.sparse("before", DISK_BYTES as u64, &[])?;
    bench.write("log.raw", "")?;
    let mut content = vec![0; DISK_BYTES];
    for killed in [true, false] {
        let mut daemon = daemon_with_group(&bench)?;
        open(&mut daemon, filter, place)?;
        let bitmap = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        assert_eq!(bitmap == 0, killed, "{bitmap}");
        let writers = Writers::start(daemon.nbd_socket(), &content, 7)?;
        writers.wait_for_more(100)?;
        let written = writers.end_with(daemon, killed)?;
        let descriptor = bench.descriptor("disk.qbm")?;
        let data = fs::canonicalize(descriptor.data_file()?)?;
        written.require(&data)?;
        let bits = descriptor.bitmap("b0")?;
        judge(&bench.path("before"), &data, &bits)?.require_complete()?;
        content = fs::read(&data)?;
    }
    assert_eq!(bench.descriptor("disk.qbm")?.session(), None);
    Ok(())
}

#[test]
fn above() -> Result<()> {
    for filter in filters() {
        through(&filter, "above").with_context(|| filter.to_string())?;
    }
    Ok(())
}

#[test]
fn between_qbm_and_its_data_image() -> Result<()> {
    for filter in filters() {
        through(&filter, "below").with_context(|| filter.to_string())?;
    }
    Ok(())
}

#[test]
fn below_the_descriptor() -> Result<()> {
    for filter in [
        json!({ "driver": "throttle", "throttle-group": "group" }),
        json!({ "driver": "copy-on-read" }),
        json!({ "driver": "raw" }),
    ] {
        through(&filter, "descriptor").with_context(|| filter.to_string())?;
    }
    Ok(())
}

/// Bitmaps belong to the qbm node: QEMU says of one for a filter what it says with qcow2.
#[test]
fn a_bitmap_for_a_filter() -> Result<()> {
    let said = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        bench.img(["create", "-q", "-f", format, "disk", "6M"])?;
        let mut daemon = daemon_with_group(&bench)?;
        backup::open_target(&mut daemon.qmp, "disk", format, "disk")?;
        let mut said = Vec::new();
        for (index, filter) in filters().iter().take(2).enumerate() {
            let name = format!("filter{index}");
            let node = over(filter, &json!("disk"), &name);
            daemon.qmp.execute("blockdev-add", node)?;
            let add = json!({ "node": name, "name": "b0", "persistent": true });
            said.push(daemon.qmp.refuses("block-dirty-bitmap-add", add)?);
            assert!(bitmaps::list(&mut daemon.qmp, "disk")?.is_empty());
        }
        daemon.quit()?;
        Ok(said)
    };
    assert_eq!(said("qbm")?, said("qcow2")?);
    Ok(())
}

/// copy-on-read reads into nothing: there is no backing file, so nothing is marked.
#[test]
fn reading_through_copy_on_read_marks_nothing() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "6M", "64k")?;
    let mut daemon = daemon_with_group(&bench)?;
    open(&mut daemon, &json!({ "driver": "copy-on-read" }), "above")?;
    let mut guest = NbdClient::connect(daemon.nbd_socket(), "disk")?;
    guest.read(0, 1 << 20)?;
    drop(guest);
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.set_count(), 0);
    Ok(())
}

/// Errors that a filter above makes do not reach the image, and those from below reach the
/// guest.
#[test]
fn errors_above_and_below() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "6M", "64k")?;
    let filter = json!({
        "driver": "blkdebug", "image": null,
        "inject-error": [{ "event": "none", "iotype": "write", "errno": 5, "once": true }],
    });
    for (place, marked) in [("above", &[8][..]), ("below", &[4, 8][..])] {
        bench.img("bitmap --clear -f qbm disk.qbm b0")?;
        let mut daemon = daemon_with_group(&bench)?;
        open(&mut daemon, &filter, place)?;
        let mut guest = NbdClient::connect(daemon.nbd_socket(), "disk")?;
        require_io_error(guest.write(4 * 65536, &[1; 512]))?;
        guest.write(8 * 65536, &[1; 512])?;
        drop(guest);
        daemon.quit()?;
        let bits = bench.descriptor("disk.qbm")?.bitmap("b0")?;
        assert_eq!(bits.granules(), marked, "{place}");
    }
    Ok(())
}
