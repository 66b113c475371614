// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that fail, below the image and above it.

use anyhow::{Context, Result};
use qbm_testkit::faults::failing;
use qbm_testkit::nbd::{NbdClient, require_io_error};
use qbm_testkit::{Bench, StorageDaemon, backup, bitmaps};
use serde_json::{Value, json};

use crate::common::{DISK_BYTES, DataImage, KIB, MIB, keeps_bitmaps};

fn raw(bench: &Bench) -> Result<()> {
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    bench
        .img("create -q -f qbm -o data_file=disk.raw disk.qbm")
        .map(drop)
}

fn file() -> Value {
    json!({ "driver": "file", "filename": "disk.raw", "discard": "unmap" })
}

/// `disk.qbm` over a file on which requests of one kind fail, with a bitmap.
fn over_failing(bench: &Bench, iotype: &str) -> Result<(StorageDaemon, NbdClient)> {
    raw(bench)?;
    let node = json!({ "driver": "raw", "discard": "unmap", "file": failing(iotype, file()) });
    let mut daemon =
        StorageDaemon::with_image_options(bench, "disk.qbm", &json!({ "data-file": node }))?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    let client = daemon.export()?;
    Ok((daemon, client))
}

/// Closes in order or kills; the bitmap is good and marks these granules.
fn ends_with(bench: &Bench, daemon: StorageDaemon, kill: bool, granules: &[u64]) -> Result<()> {
    if kill {
        daemon.kill()?;
    } else {
        daemon.quit()?;
    }
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    assert_eq!(count, granules.len() as u64 * 64 * KIB);
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), granules);
    Ok(())
}

#[test]
fn nothing_fails() -> Result<()> {
    let bench = Bench::new()?;
    raw(&bench)?;
    let image = DataImage {
        node: Some(json!({ "driver": "raw", "file": { "driver": "blkdebug", "image": file() } })),
        for_qemu_img: ["-f", "raw", "disk.raw"].map(str::to_owned).to_vec(),
        ..DataImage::default()
    };
    keeps_bitmaps(&bench, &image)
}

#[test]
fn a_write_below_fails() -> Result<()> {
    for kill in [false, true] {
        let bench = Bench::new()?;
        let (mut daemon, mut client) = over_failing(&bench, "write")?;
        require_io_error(client.write(MIB, &[1; 512]))?;
        let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        assert_eq!(count, 64 * KIB);
        bitmaps::require_covered(&bench, "b0", &[16])?;
        ends_with(&bench, daemon, kill, &[16])?;
    }
    Ok(())
}

#[test]
fn zeroes_and_trims_below_fail() -> Result<()> {
    for iotype in ["write-zeroes", "discard"] {
        let bench = Bench::new()?;
        let (mut daemon, mut client) = over_failing(&bench, iotype)?;
        let result = if iotype == "discard" {
            client.trim(MIB, 64 * 1024)
        } else {
            client.write_zeroes(MIB, 64 * 1024)
        };
        require_io_error(result).context(iotype)?;
        let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        assert_eq!(count, 64 * KIB, "{iotype}");
        ends_with(&bench, daemon, true, &[16])?;
    }
    Ok(())
}

/// What was written may not be on the disk: the guest hears of it, and the bit stays.
#[test]
fn a_flush_below_fails() -> Result<()> {
    for kill in [false, true] {
        let bench = Bench::new()?;
        let (mut daemon, mut client) = over_failing(&bench, "flush")?;
        client.write(MIB, &[1; 512])?;
        require_io_error(client.flush())?;
        bitmaps::require_covered(&bench, "b0", &[16])?;
        client.write(2 * MIB, &[1; 512])?;
        let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        assert_eq!(count, 2 * 64 * KIB);
        ends_with(&bench, daemon, kill, &[16, 32])?;
    }
    Ok(())
}

/// `disk.qbm` below a node on which requests of one kind fail; gives that one's client.
fn below_failing(bench: &Bench, iotype: &str) -> Result<(StorageDaemon, NbdClient)> {
    raw(bench)?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    let mut node = failing(iotype, json!("disk"));
    node["node-name"] = json!("above");
    daemon.qmp.execute("blockdev-add", node)?;
    daemon.listen()?;
    let export = json!({
        "type": "nbd", "id": "above", "node-name": "above", "name": "above", "writable": true,
    });
    daemon.qmp.execute("block-export-add", export)?;
    let client = NbdClient::connect(daemon.nbd_socket(), "above")?;
    Ok((daemon, client))
}

/// A write that fails above has not come to the image.
#[test]
fn a_write_above_fails() -> Result<()> {
    for kill in [false, true] {
        let bench = Bench::new()?;
        let (daemon, mut client) = below_failing(&bench, "write")?;
        require_io_error(client.write(MIB, &[1; 512]))?;
        client.write_zeroes(2 * MIB, 64 * 1024)?;
        ends_with(&bench, daemon, kill, &[32])?;
    }
    Ok(())
}

#[test]
fn a_flush_above_fails() -> Result<()> {
    for kill in [false, true] {
        let bench = Bench::new()?;
        let (daemon, mut client) = below_failing(&bench, "flush")?;
        client.write(MIB, &[1; 512])?;
        require_io_error(client.flush())?;
        ends_with(&bench, daemon, kill, &[16])?;
    }
    Ok(())
}
