// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img snapshot`, `rebase` and `commit`, for which a qbm image has nothing: what they
//! say, and that they change nothing.

use anyhow::Result;
use qbm_testkit::{Bench, Machine, Snapshot};
use serde_json::json;

fn image() -> Result<(Bench, Snapshot)> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "4M", "64k")?;
    bench.img("create -q -f raw base.raw 4M")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;
    let before = Snapshot::of(bench.directory())?;
    Ok((bench, before))
}

fn bits_are_kept(bench: &Bench) -> Result<()> {
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.session(), None);
    assert_eq!(descriptor.bitmap("b0")?.granules(), [16]);
    bench.io("disk.qbm", &["read -P 1 1M 64k"]).map(drop)
}

#[test]
fn internal_snapshots() -> Result<()> {
    let (bench, _) = image()?;
    assert_eq!(bench.img("snapshot -l disk.qbm")?.stdout, "");
    for (args, words) in [
        (
            "-c one disk.qbm",
            "Could not create snapshot 'one': Image format 'qbm' does not support internal snapshots",
        ),
        // The same words as with qcow2.
        (
            "-a one disk.qbm",
            "Could not apply snapshot 'one': Device has active dirty bitmaps",
        ),
        (
            "-d one disk.qbm",
            "Could not delete snapshot 'one': snapshot not found",
        ),
    ] {
        let refused = bench.img_refuses(&format!("snapshot {args}"))?;
        assert!(refused.stderr.contains(words), "{refused}");
        bits_are_kept(&bench)?;
    }
    let drive = "-drive if=none,id=drive,node-name=disk,driver=qbm,file.filename=disk.qbm";
    let mut machine = Machine::start(&bench, drive)?;
    let take = json!({ "device": "drive", "name": "one" });
    let said = machine
        .qmp
        .refuses("blockdev-snapshot-internal-sync", take)?;
    let words = "'qbm' used by device 'drive' does not support internal snapshots";
    assert!(said.contains(words), "{said}");
    machine.quit()?;
    bits_are_kept(&bench)
}

#[test]
fn backing_files() -> Result<()> {
    let (bench, before) = image()?;
    for (args, words) in [
        (
            "commit -f qbm disk.qbm",
            "Image does not have a backing file",
        ),
        (
            "rebase -f qbm -u -F raw -b base.raw disk.qbm",
            "Could not change the backing file to 'base.raw': Operation not supported",
        ),
        (
            "create -f qbm -F raw -b base.raw other.qbm",
            "Backing file not supported for file format 'qbm'",
        ),
        (
            "create -f qbm -o backing_file=base.raw other.qbm 4M",
            "Invalid parameter 'backing_file'",
        ),
        (
            "create -f qbm -o encrypt.format=luks other.qbm 4M",
            "Invalid parameter 'encrypt.format'",
        ),
    ] {
        let refused = bench.img_refuses(args)?;
        assert!(refused.stderr.contains(words), "{refused}");
    }
    assert!(before.added()?.is_empty());
    bits_are_kept(&bench)
}

/// An overlay is rebased from one qbm image to another, and to none; only the overlay changes.
#[test]
fn an_overlay_over_qbm_is_rebased() -> Result<()> {
    let bench = Bench::new()?;
    for (name, pattern) in [("one.qbm", 1), ("two.qbm", 2)] {
        bench.image_with_bitmap(name, "4M", "64k")?;
        bench.io(name, &[&format!("write -P {pattern} 1M 64k")])?;
    }
    bench.img("create -q -f qcow2 -b one.qbm -F qbm top.qcow2")?;
    bench.io_as("qcow2", "top.qcow2", &["write -P 3 2M 64k"])?;
    let before = Snapshot::of(bench.directory())?.without("top.qcow2");
    bench.img("rebase -f qcow2 -b two.qbm -F qbm top.qcow2")?;
    bench.io_as(
        "qcow2",
        "top.qcow2",
        &["read -P 1 1M 64k", "read -P 3 2M 64k"],
    )?;
    bench.img(["rebase", "-f", "qcow2", "-b", "", "top.qcow2"])?;
    bench.io_as(
        "qcow2",
        "top.qcow2",
        &["read -P 1 1M 64k", "read -P 3 2M 64k"],
    )?;
    before.require_kept()
}
