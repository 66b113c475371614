// SPDX-License-Identifier: MIT OR Apache-2.0
//! `durability=close`: bits are written at a clean close only, and a crash costs them.

use anyhow::{Context, Result};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::json;

fn image(bench: &Bench) -> Result<()> {
    bench.img("create -q -f qbm -o durability=close disk.qbm 64M")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    Ok(())
}

#[test]
fn a_clean_stop_keeps_the_exact_bits() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let mut client = daemon.export()?;
    client.write(1 << 20, b"one")?;
    client.trim(8 << 20, 65536)?;
    drop(client);
    daemon.quit()?;

    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(),
        [16, 128]
    );
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?,
        2 * 65536
    );
    Ok(())
}

#[test]
fn a_kill_makes_the_bitmap_inconsistent_and_the_disk_opens() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    daemon.export()?.write(1 << 20, b"kept")?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.context("the bitmap is gone")?;
    assert_eq!(bitmap["inconsistent"], true, "{bitmap}");
    assert_eq!(daemon.export()?.read(1 << 20, 4)?, b"kept");
    // Usable for nothing but removal.
    let clear = json!({ "node": "disk", "name": "b0" });
    let refusal = daemon
        .qmp
        .refuses("block-dirty-bitmap-clear", clear.clone())?;
    assert!(refusal.contains("'b0' is inconsistent"), "{refusal}");
    daemon.quit()?;
    // A reader that knows nothing of us does not find it.
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.context("the bitmap is gone")?;
    assert_eq!(bitmap["inconsistent"], true, "{bitmap}");
    daemon.qmp.execute("block-dirty-bitmap-remove", clear)?;
    daemon.quit()?;
    let bitmaps = &bench.info("disk.qbm")?["format-specific"]["data"]["bitmaps"];
    assert!(bitmaps.as_array().is_none_or(Vec::is_empty), "{bitmaps}");
    Ok(())
}

#[test]
fn the_option_given_at_open_wins() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let options = json!({ "durability": "process" });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
    daemon.export()?.write(1 << 20, b"one")?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(backup::require_good_bitmap(&mut daemon.qmp, "b0")?, 65536);
    Ok(())
}
