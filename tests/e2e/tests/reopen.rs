// SPDX-License-Identifier: MIT OR Apache-2.0
//! `blockdev-reopen` between reading and writing.

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot, StorageDaemon, backup};
use serde_json::json;

/// Reopens node `disk`, naming only what names it: the data image is not mentioned.
fn reopen(daemon: &mut StorageDaemon, read_only: bool) -> Result<()> {
    let node = json!({
        "driver": "qbm", "node-name": "disk", "read-only": read_only,
        "discard": "unmap", "file": "descriptor",
    });
    daemon
        .qmp
        .execute("blockdev-reopen", json!({ "options": [node] }))?;
    Ok(())
}

fn descriptor_read_only(read_only: bool) -> serde_json::Value {
    json!({
        "driver": "file", "node-name": "descriptor", "filename": "disk.qbm",
        "read-only": read_only, "auto-read-only": true,
    })
}

#[test]
fn from_reading_to_writing_and_killed() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let before = Snapshot::of(bench.directory())?;
    let options = json!({ "read-only": true, "file": descriptor_read_only(false) });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
    before.require_untouched()?;
    assert_eq!(bench.descriptor("disk.qbm")?.session(), None);

    reopen(&mut daemon, false)?;
    assert!(bench.descriptor("disk.qbm")?.session().is_some());
    daemon.export()?.write(1 << 20, b"written")?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?,
        64 * 1024
    );
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    Ok(())
}

#[test]
fn from_writing_to_reading_leaves_exact_bits() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let mut client = daemon.export()?;
    client.write(1 << 20, b"written")?;
    drop(client);
    daemon.unexport("export")?;
    reopen(&mut daemon, true)?;

    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.session(), None);
    assert_eq!(descriptor.bitmap("b0")?.granules(), [16]);
    // A kill has nothing to spoil now.
    let before = Snapshot::of(bench.directory())?;
    daemon.kill()?;
    before.require_untouched()
}

#[test]
fn to_and_fro() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    for _ in 0..5 {
        reopen(&mut daemon, true)?;
        reopen(&mut daemon, false)?;
    }
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.session(), None);
    Ok(())
}
