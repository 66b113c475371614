// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another file takes the place of the data image while a guest uses it: the bitmaps
//! describe the new one, and must not be taken for those of the old one later.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::{Bench, NBD_EXPORT, StorageDaemon, backup};
use serde_json::{Value, json};

fn file_node(name: &str) -> Value {
    json!({ "driver": "file", "node-name": name, "filename": format!("{name}.raw") })
}

/// Opens `disk.qbm` over `one.raw` and writes granule 1. The guest's data goes through
/// a node that can be led elsewhere.
fn opened(bench: &Bench) -> Result<StorageDaemon> {
    bench.sparse("one.raw", 1 << 20, &[])?;
    bench.sparse("two.raw", 1 << 20, &[(65536, b"before")])?;
    bench.img("create -q -f qbm -o data_file=one.raw disk.qbm")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    let mut daemon = StorageDaemon::start(bench)?;
    for name in ["one", "two"] {
        daemon.qmp.execute("blockdev-add", file_node(name))?;
    }
    daemon.qmp.execute("blockdev-add", data_node("one"))?;
    daemon.add_image("disk.qbm", &json!({ "data-file": "data" }))?;
    // Files that were written at the same tick of the clock cannot be told apart.
    sleep(Duration::from_millis(50));
    daemon.export()?.write(65536, b"before")?;
    Ok(daemon)
}

fn data_node(file: &str) -> Value {
    json!({ "driver": "raw", "node-name": "data", "file": file })
}

/// Leads the data image to `two.raw`, which has the same content, and writes granule 5.
fn switched(daemon: &mut StorageDaemon) -> Result<()> {
    daemon
        .qmp
        .execute("blockdev-reopen", json!({ "options": [data_node("two")] }))?;
    sleep(Duration::from_millis(50));
    NbdClient::connect(daemon.nbd_socket(), NBD_EXPORT)?.write(5 * 65536, b"after")
}

fn require_bitmap(bench: &Bench, options: &Value, inconsistent: bool) -> Result<()> {
    let mut daemon = StorageDaemon::with_image_options(bench, "disk.qbm", options)?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.unwrap_or_default();
    assert_eq!(bitmap["inconsistent"] == true, inconsistent, "{bitmap}");
    daemon.quit()?;
    Ok(())
}

fn by_the_new_file() -> Value {
    json!({ "data-file": { "driver": "file", "filename": "two.raw" } })
}

#[test]
fn the_new_file_is_sealed() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    switched(&mut daemon)?;
    daemon.quit()?;
    let bits = bench.descriptor("disk.qbm")?.bitmap("b0")?.granules();
    assert_eq!(bits, [1, 5]);
    assert_eq!(&bench.read("two.raw")?[5 * 65536..][..5], b"after");
    require_bitmap(&bench, &by_the_new_file(), false)
}

#[test]
fn the_old_file_is_not_taken_for_it() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    switched(&mut daemon)?;
    daemon.quit()?;
    require_bitmap(&bench, &json!({}), true)
}

/// A change of a bitmap is when the driver notices; from then on the old file may go.
#[test]
fn the_old_file_may_go() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    switched(&mut daemon)?;
    let bitmap = json!({ "node": "disk", "name": "b0" });
    daemon.qmp.execute("block-dirty-bitmap-clear", bitmap)?;
    daemon.qmp.execute("query-jobs", json!({}))?;
    std::fs::remove_file(bench.path("one.raw"))?;
    NbdClient::connect(daemon.nbd_socket(), NBD_EXPORT)?.write(7 * 65536, b"later")?;
    daemon.quit()?;
    let bits = bench.descriptor("disk.qbm")?.bitmap("b0")?.granules();
    assert_eq!(bits, [7]);
    require_bitmap(&bench, &by_the_new_file(), false)
}
