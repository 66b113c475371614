// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps that were there before they could be stored, or are in use meanwhile.

use anyhow::Result;
use qbm_testkit::bitmaps;
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::json;

use crate::{KIB, MIB, add_plain, create, is_persistent, stored};

#[test]
fn a_bitmap_of_a_read_only_node_is_stored_once_it_is_writable() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let options = json!({
        "read-only": true,
        "file": {
            "driver": "file", "node-name": "descriptor", "filename": "disk.qbm",
            "auto-read-only": true,
        },
    });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
    add_plain(&mut daemon.qmp, "early")?;
    assert!(!is_persistent(&mut daemon.qmp, "early")?);
    assert!(stored(&bench)?.is_empty());

    let node = json!({
        "driver": "qbm", "node-name": "disk", "read-only": false,
        "discard": "unmap", "file": "descriptor",
    });
    daemon
        .qmp
        .execute("blockdev-reopen", json!({ "options": [node] }))?;
    assert!(is_persistent(&mut daemon.qmp, "early")?);
    assert_eq!(stored(&bench)?, ["early"]);
    daemon.export()?.write(MIB, b"one")?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "early")?;
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("early")?;
    assert!(bitmap.is_set(16), "{:?}", bitmap.granules());
    Ok(())
}

/// A transient bitmap that is exported when it could become persistent does so afterwards.
#[test]
fn a_bitmap_in_use_is_stored_when_it_is_given_back() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    add_plain(&mut daemon.qmp, "busy")?;
    daemon.export()?.write(MIB, b"one")?;
    let export = json!({
        "type": "nbd", "id": "reading", "node-name": "disk", "name": "reading",
        "writable": true, "bitmaps": ["busy"],
    });
    daemon.qmp.execute("block-export-add", export)?;
    let amend = json!({
        "job-id": "amend", "node-name": "disk",
        "options": { "driver": "qbm", "persist-bitmaps": "all" },
    });
    daemon.qmp.execute("x-blockdev-amend", amend)?;
    daemon
        .qmp
        .event("JOB_STATUS_CHANGE", |data| data["status"] == "concluded")?;
    assert!(!is_persistent(&mut daemon.qmp, "busy")?);

    daemon.unexport("reading")?;
    assert!(is_persistent(&mut daemon.qmp, "busy")?);
    assert_eq!(stored(&bench)?, ["busy"]);
    bitmaps::require_settled(&bench, &mut daemon.qmp, "busy")?;
    daemon.quit()?;
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("busy")?.granules(),
        [16]
    );
    Ok(())
}

/// An incremental backup of a bitmap that nobody marked, across a shutdown.
#[test]
fn a_backup_goes_on_after_a_shutdown() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    bench.sparse("copy.raw", 64 * MIB, &[])?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    let actions = [
        bitmaps::bitmap_action("add", "daily"),
        backup::full_backup_action("copy"),
    ];
    bitmaps::transaction(&mut daemon.qmp, &actions)?;
    backup::wait(&mut daemon.qmp)?;
    daemon.export()?.write(MIB, b"one")?;
    daemon.quit()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    assert_eq!(
        backup::incremental(&mut daemon.qmp, "daily", "copy")?,
        64 * KIB
    );
    assert!(is_persistent(&mut daemon.qmp, "daily")?);
    daemon.quit()?;
    assert!(
        bench
            .descriptor("disk.qbm")?
            .bitmap("daily")?
            .granules()
            .is_empty()
    );
    assert_eq!(bench.read("copy.raw")?, bench.read("disk.qbm.raw")?);
    Ok(())
}
