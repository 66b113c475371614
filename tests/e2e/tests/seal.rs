// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data image changed while the image was closed.

use anyhow::{Context, Result};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::json;

/// An image with a bitmap, closed, whose data image was then written directly.
fn changed(bench: &Bench) -> Result<()> {
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    bench.io_as("raw", "disk.qbm.raw", &["write -P 2 8M 64k"])?;
    Ok(())
}

fn is_inconsistent(daemon: &mut StorageDaemon) -> Result<bool> {
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.context("the bitmap is gone")?;
    Ok(bitmap["inconsistent"] == true)
}

#[test]
fn a_foreign_write_costs_the_bitmap_and_the_disk_opens() -> Result<()> {
    let bench = Bench::new()?;
    changed(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert!(is_inconsistent(&mut daemon)?);
    assert_eq!(daemon.export()?.read(8 << 20, 2)?, [2, 2]);
    let log = daemon.quit()?;
    assert!(log.contains("written or replaced"), "{log}");
    Ok(())
}

#[test]
fn trust_data_keeps_the_bitmap_and_leaves_a_trace() -> Result<()> {
    let bench = Bench::new()?;
    changed(&bench)?;
    let trust = json!({ "trust-data": true });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &trust)?;
    assert_eq!(backup::require_good_bitmap(&mut daemon.qmp, "b0")?, 65536);
    let log = daemon.quit()?;
    assert!(log.contains("trusted all the same"), "{log}");
    let descriptor = bench.descriptor("disk.qbm")?;
    let trace = &descriptor.qbm()["ext-soft-qbm-trusted"];
    assert_eq!(trace.as_array().map(Vec::len), Some(1), "{trace}");
    // The next open needs no trust.
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert!(!is_inconsistent(&mut daemon)?);
    daemon.quit()?;
    Ok(())
}

/// The same file given as a node is looked at as well; a node that is no local file goes by its size.
#[test]
fn a_data_image_that_is_given_as_a_node() -> Result<()> {
    let file = json!({ "driver": "file", "filename": "disk.qbm.raw" });
    let raw = json!({ "driver": "raw", "file": file });
    let null = json!({ "driver": "null-co", "size": 64 << 20 });
    for (data_file, expected) in [(file, true), (raw, true), (null, false)] {
        let bench = Bench::new()?;
        changed(&bench)?;
        let options = json!({ "data-file": data_file });
        let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
        assert_eq!(is_inconsistent(&mut daemon)?, expected, "{options}");
        daemon.quit()?;
    }
    Ok(())
}

/// Formats other than raw write by themselves when they are opened and closed: only their size is compared.
#[test]
fn a_qcow2_data_image_is_not_suspected() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qcow2 -o lazy_refcounts=on data.qcow2 64M")?;
    bench.img("create -q -f qbm -o data_file=data.qcow2,data_file_format=qcow2 disk.qbm")?;
    bench.img("bitmap -f qbm --add disk.qbm b0")?;
    for round in 0..3 {
        bench.io("disk.qbm", &[&format!("write -P 1 {round}M 64k")])?;
    }
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?,
        3 * 65536
    );
    daemon.quit()?;
    Ok(())
}

#[test]
fn a_bitmap_file_that_was_changed_costs_that_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    let path = bench.descriptor("disk.qbm")?.bitmap_path("b0")?;
    let mut bits = std::fs::read(&path)?;
    bits[2] = 0;
    std::fs::write(&path, bits)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert!(is_inconsistent(&mut daemon)?);
    let log = daemon.quit()?;
    assert!(log.contains("CRC-32C"), "{log}");
    Ok(())
}
