// SPDX-License-Identifier: MIT OR Apache-2.0
//! Under an export of the storage daemon: what is exported is a node that can be led
//! elsewhere with `blockdev-reopen`.

use anyhow::{Result, ensure};
use qbm_testkit::image_server::{ImageServer, Server};
use qbm_testkit::load::Load;
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup, hot_switch};
use serde_json::{Value, json};

const DISK_BYTES: u64 = 24 << 20;

fn exported_node(file: &str) -> Value {
    json!({ "driver": "raw", "node-name": "exported", "file": file, "discard": "unmap" })
}

fn disk_raw() -> Value {
    json!({ "driver": "file", "filename": "disk.raw" })
}

/// `disk.raw`, which `old` gives access to, as node `old` under load.
fn loaded(bench: &Bench, mut old: Value, iothread: bool) -> Result<(StorageDaemon, Load)> {
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    let mut daemon = StorageDaemon::start(bench)?;
    old["node-name"] = json!("old");
    old["discard"] = json!("unmap");
    daemon.qmp.execute("blockdev-add", old)?;
    daemon.qmp.execute("blockdev-add", exported_node("old"))?;
    daemon.listen()?;
    let mut export = json!({
        "type": "nbd", "id": "export", "node-name": "exported", "name": "disk",
        "writable": true,
    });
    if iothread {
        let io0 = json!({ "qom-type": "iothread", "id": "io0" });
        daemon.qmp.execute("object-add", io0)?;
        export["iothread"] = json!("io0");
        // QEMU 10.0 may hang in blockdev-add over an export that it could move.
        export["fixed-iothread"] = json!(true);
    }
    daemon.qmp.execute("block-export-add", export)?;
    let client = NbdClient::connect(daemon.nbd_socket(), "disk")?;
    let load = Load::start(client, 16, 11);
    load.wait_for(100)?;
    Ok((daemon, load))
}

fn lead_export_to(daemon: &mut StorageDaemon, node: &str) -> Result<()> {
    let options = json!({ "options": [exported_node(node)] });
    daemon.qmp.execute("blockdev-reopen", options).map(drop)
}

fn switched(bench: &Bench, old: Value, iothread: bool) -> Result<()> {
    let (mut daemon, load) = loaded(bench, old.clone(), iothread)?;
    hot_switch::create_over(&mut daemon.qmp, "old", DISK_BYTES)?;
    if iothread {
        hot_switch::move_descriptor_to(&mut daemon.qmp, "io0")?;
    }
    hot_switch::open_over(&mut daemon.qmp, "old")?;
    load.wait_for_more(100)?;
    lead_export_to(&mut daemon, "disk")?;
    load.wait_for_more(100)?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    backup::full(&mut daemon.qmp, "b0", 4096, "copy")?;
    load.wait_for_more(200)?;
    daemon.kill()?;
    load.join()?;

    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    let verdict = judge(&bench.path("copy.raw"), &bench.path("disk.raw"), &bitmap)?;
    ensure!(verdict.changed_count > 10, "nothing changed: {verdict:?}");
    verdict.require_complete()?;
    let options = json!({ "data-file": old });
    let mut daemon = StorageDaemon::with_image_options(bench, "disk.qbm", &options)?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit().map(drop)
}

#[test]
fn an_export() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    switched(&bench, disk_raw(), false)
}

#[test]
fn an_export_in_an_iothread() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-add over a node in an iothread", (9, 0))? {
        return Ok(());
    }
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    switched(&bench, disk_raw(), true)
}

#[test]
fn an_export_of_what_another_server_exports() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    let server = ImageServer::start(&bench, Server::QemuNbd, "disk.raw")?;
    switched(&bench, server.node(), false)
}
