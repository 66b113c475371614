// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session of another boot: what the page cache held may be lost.

use anyhow::{Context, Result};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

/// Makes an image as a crash leaves it.
fn crashed_image(bench: &Bench) -> Result<()> {
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    daemon.export()?.write(1 << 20, b"kept")?;
    daemon.kill()
}

#[test]
fn the_bitmap_is_inconsistent_and_the_disk_opens() -> Result<()> {
    let bench = Bench::new()?;
    crashed_image(&bench)?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    let session = descriptor.json_mut()["QBM"]["ext-hard-qbm-session"]
        .as_object_mut()
        .context("no session record")?;
    let boot_id = session
        .get_mut("boot-id")
        .context("no boot-id in the session")?;
    *boot_id = json!("00000000-0000-4000-8000-000000000000");
    descriptor.write()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.context("the bitmap is gone")?;
    assert_eq!(bitmap["inconsistent"], true, "{bitmap}");
    assert_eq!(daemon.export()?.read(1 << 20, 4)?, b"kept");
    let log = daemon.quit()?;
    assert!(log.contains("b0"), "nobody was told: {log:?}");
    Ok(())
}

/// The control: the same crash in the same boot costs nothing.
#[test]
fn the_same_boot_costs_nothing() -> Result<()> {
    let bench = Bench::new()?;
    crashed_image(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(backup::require_good_bitmap(&mut daemon.qmp, "b0")?, 65536);
    daemon.quit()?;
    Ok(())
}

/// A record that names no boot proves nothing.
#[test]
fn a_session_without_a_boot_id_is_not_trusted() -> Result<()> {
    let bench = Bench::new()?;
    crashed_image(&bench)?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    descriptor.json_mut()["QBM"]["ext-hard-qbm-session"]["boot-id"] = Value::from("");
    descriptor.write()?;

    let mut daemon = StorageDaemon::start(&bench)?;
    match daemon.add_image("disk.qbm", &json!({})) {
        Ok(()) => {
            let bitmap =
                backup::query_bitmap(&mut daemon.qmp, "b0")?.context("the bitmap is gone")?;
            assert_eq!(bitmap["inconsistent"], true, "{bitmap}");
        }
        // A record that breaks the format may be refused as well, by name.
        Err(error) => assert!(format!("{error:#}").contains("boot-id"), "{error:#}"),
    }
    Ok(())
}
