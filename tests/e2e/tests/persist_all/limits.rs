// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cannot be stored stays in memory, with one warning.

use anyhow::{Result, ensure};
use qbm_testkit::bitmaps::{self, on_disk};
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::{Map, Value, json};

use crate::{add_plain, create, is_persistent, query, stored};

/// How often `name` is in a warning that it stays in memory.
fn warnings_count(daemon: &StorageDaemon, name: &str) -> usize {
    let stderr = daemon.stderr();
    let warning = format!("Bitmap '{name}' of node 'disk' is not stored in the image");
    stderr.matches(&warning).count()
}

#[test]
fn a_granularity_that_is_too_small() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm -o persist_bitmaps=all disk.qbm 4T")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let mut fine = on_disk("fine");
    fine["granularity"] = json!(512);
    daemon.qmp.execute("block-dirty-bitmap-add", fine)?;
    assert_eq!(warnings_count(&daemon, "fine"), 1, "{}", daemon.stderr());
    ensure!(daemon.stderr().contains("512"), "{}", daemon.stderr());
    assert!(!is_persistent(&mut daemon.qmp, "fine")?);

    // It works as it would in any image.
    daemon.export()?.write(1 << 40, &[1; 512])?;
    assert_eq!(query(&mut daemon.qmp, "fine")?["count"], 512);
    for verb in ["disable", "enable", "clear"] {
        bitmaps::run(&mut daemon.qmp, verb, "fine")?;
    }
    assert_eq!(warnings_count(&daemon, "fine"), 1, "{}", daemon.stderr());
    assert!(stored(&bench)?.is_empty());
    bitmaps::run(&mut daemon.qmp, "remove", "fine")?;
    daemon.quit()?;
    Ok(())
}

/// The image has as many as it can; then one is removed.
#[test]
fn one_bitmap_too_many() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    let lost: Map<String, Value> = (0..4096)
        .map(|number| (format!("lost{number}"), json!({})))
        .collect();
    descriptor.json_mut()["QBM"]["ext-soft-qbm-inconsistent"] = Value::Object(lost);
    descriptor.write()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    add_plain(&mut daemon.qmp, "late")?;
    assert_eq!(warnings_count(&daemon, "late"), 1, "{}", daemon.stderr());
    assert!(!is_persistent(&mut daemon.qmp, "late")?);
    bitmaps::run(&mut daemon.qmp, "remove", "lost7")?;
    // Whatever changes it next has it stored.
    bitmaps::run(&mut daemon.qmp, "disable", "late")?;
    assert!(is_persistent(&mut daemon.qmp, "late")?);
    assert_eq!(stored(&bench)?, ["late"]);
    daemon.quit()?;
    Ok(())
}

/// Another user of the data image may write there: a bitmap would miss it. When that user is
/// gone, everything counts as dirty.
#[test]
fn somebody_else_writes_to_the_data_image() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let data = json!({
        "driver": "raw", "node-name": "data",
        "file": { "driver": "file", "filename": "disk.qbm.raw" },
    });
    daemon.qmp.execute("blockdev-add", data)?;
    daemon.listen()?;
    let export = json!({
        "type": "nbd", "id": "past", "node-name": "data", "name": "past", "writable": true,
    });
    daemon.qmp.execute("block-export-add", export)?;
    daemon.add_image("disk.qbm", &json!({ "data-file": "data" }))?;

    add_plain(&mut daemon.qmp, "beside")?;
    assert_eq!(warnings_count(&daemon, "beside"), 1, "{}", daemon.stderr());
    assert!(!is_persistent(&mut daemon.qmp, "beside")?);
    assert!(stored(&bench)?.is_empty());
    NbdClient::connect(daemon.nbd_socket(), "past")?.write(1 << 20, b"missed")?;
    daemon.unexport("past")?;

    bitmaps::run(&mut daemon.qmp, "enable", "beside")?;
    assert!(is_persistent(&mut daemon.qmp, "beside")?);
    assert_eq!(query(&mut daemon.qmp, "beside")?["count"], 64 << 20);
    daemon.quit()?;
    assert_eq!(stored(&bench)?, ["beside"]);
    Ok(())
}
