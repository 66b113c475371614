// SPDX-License-Identifier: MIT OR Apache-2.0
//! Under a guest's device, with `qom-set`.

use anyhow::{Result, ensure};
use qbm_testkit::bitmaps::{self, action, transaction};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Args, Bench, Guest, StorageDaemon, backup, hot_switch};
use serde_json::json;

const DISK_BYTES: u64 = 24 << 20;

/// A guest that writes all the time to a raw disk, node `old`.
fn writing(bench: &Bench, device: &str, name: &str) -> Result<Guest> {
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    let node = "-blockdev driver=file,node-name=old-file,filename=disk.raw \
                -blockdev driver=raw,node-name=old,file=old-file";
    let mut args = node.list();
    args.extend(device.list());
    let mut guest = Guest::boot(bench, args.as_slice())?;
    guest.start_writing(name)?;
    Ok(guest)
}

/// A virtio disk `disk0`, and the iothread that it is in, if QEMU opens images there.
fn virtio_blk_device(bench: &Bench) -> Result<(&'static str, Option<&'static str>)> {
    if bench.lacks("blockdev-add over a node in an iothread", (9, 0))? {
        return Ok(("-device virtio-blk-pci,id=disk0,drive=old", None));
    }
    let device = "-object iothread,id=io0 -device virtio-blk-pci,id=disk0,drive=old,iothread=io0";
    Ok((device, Some("io0")))
}

/// Kills QEMU while the guest writes, and holds `b0` against what changed since `copy.raw`.
fn end(guest: Guest, bench: &Bench) -> Result<()> {
    guest.kill()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    let verdict = judge(&bench.path("copy.raw"), &bench.path("disk.raw"), &bitmap)?;
    ensure!(verdict.changed_count > 10, "nothing changed: {verdict:?}");
    verdict.require_complete()?;

    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    backup::incremental(&mut daemon.qmp, "b0", "copy")?;
    daemon.quit()?;
    bench
        .img("compare -f raw -F raw disk.raw copy.raw")
        .map(drop)
}

/// Switches, adds a bitmap with a full backup, writes on, and is killed.
fn switched(device: &str, name: &str, iothread: Option<&str>) -> Result<()> {
    let bench = Bench::new()?;
    let mut guest = writing(&bench, device, name)?;
    let qmp = &mut guest.qmp;
    hot_switch::put_under(qmp, "disk0", "old", DISK_BYTES, iothread)?;
    guest.wait_for_more_written(20)?;
    let qmp = &mut guest.qmp;
    backup::open_target(qmp, "copy", "raw", "copy.raw")?;
    backup::full(qmp, "b0", 4096, "copy")?;
    backup::close_target(qmp, "copy")?;
    guest.wait_for_more_written(50)?;
    let qmp = &mut guest.qmp;
    ensure!(
        backup::require_good_bitmap(qmp, "b0")? > 0,
        "nothing marked"
    );
    end(guest, &bench)
}

#[test]
fn virtio_blk() -> Result<()> {
    switched("-device virtio-blk-pci,id=disk0,drive=old", "vda", None)
}

#[test]
fn virtio_blk_in_an_iothread() -> Result<()> {
    if Bench::new()?.lacks("blockdev-add over a node in an iothread", (9, 0))? {
        return Ok(());
    }
    switched(
        "-object iothread,id=io0 -device virtio-blk-pci,id=disk0,drive=old,iothread=io0",
        "vda",
        Some("io0"),
    )
}

#[test]
fn virtio_blk_in_several_iothreads() -> Result<()> {
    if Bench::new()?.lacks("blockdev-add over a node in an iothread", (9, 0))? {
        return Ok(());
    }
    let device = json!({
        "driver": "virtio-blk-pci", "id": "disk0", "drive": "old", "num-queues": 2,
        "iothread-vq-mapping": [{ "iothread": "io0" }, { "iothread": "io1" }],
    });
    let device = format!("-smp 2 -object iothread,id=io0 -object iothread,id=io1 -device {device}");
    // The node is in the first one.
    switched(&device, "vda", Some("io0"))
}

#[test]
fn virtio_scsi() -> Result<()> {
    switched(
        "-device virtio-scsi-pci -device scsi-hd,id=disk0,drive=old",
        "sda",
        None,
    )
}

#[test]
fn virtio_scsi_in_an_iothread() -> Result<()> {
    if Bench::new()?.lacks("blockdev-add over a node in an iothread", (9, 0))? {
        return Ok(());
    }
    switched(
        "-object iothread,id=io0 -device virtio-scsi-pci,iothread=io0 \
         -device scsi-hd,id=disk0,drive=old",
        "sda",
        Some("io0"),
    )
}

/// What was recorded before the switch, in memory, goes over: no full backup is needed.
#[test]
fn a_bitmap_of_the_old_node_is_taken_over() -> Result<()> {
    let bench = Bench::new()?;
    let (device, iothread) = virtio_blk_device(&bench)?;
    let mut guest = writing(&bench, device, "vda")?;
    let qmp = &mut guest.qmp;
    backup::open_target(qmp, "copy", "raw", "copy.raw")?;
    let begin = [
        action(
            "block-dirty-bitmap-add",
            json!({ "node": "old", "name": "recent", "granularity": 4096 }),
        ),
        action(
            "blockdev-backup",
            json!({ "job-id": "backup", "device": "old", "target": "copy", "sync": "full" }),
        ),
    ];
    transaction(qmp, &begin)?;
    backup::wait(qmp)?;
    backup::close_target(qmp, "copy")?;
    guest.wait_for_more_written(20)?;

    let qmp = &mut guest.qmp;
    hot_switch::put_under(qmp, "disk0", "old", DISK_BYTES, iothread)?;
    guest.wait_for_more_written(20)?;
    let qmp = &mut guest.qmp;
    let take_over = [
        backup::add_action("b0", 4096),
        action(
            "block-dirty-bitmap-merge",
            json!({
                "node": "disk", "target": "b0",
                "bitmaps": [{ "node": "old", "name": "recent" }],
            }),
        ),
        action(
            "block-dirty-bitmap-remove",
            json!({ "node": "old", "name": "recent" }),
        ),
    ];
    transaction(qmp, &take_over)?;
    guest.wait_for_more_written(20)?;
    end(guest, &bench)
}

/// After a shutdown in order the disk is started from its descriptor.
#[test]
fn the_next_start_is_from_the_descriptor() -> Result<()> {
    let bench = Bench::new()?;
    let device = "-device virtio-blk-pci,id=disk0,drive=old";
    let mut guest = writing(&bench, device, "vda")?;
    let qmp = &mut guest.qmp;
    hot_switch::put_under(qmp, "disk0", "old", DISK_BYTES, None)?;
    backup::open_target(qmp, "copy", "raw", "copy.raw")?;
    backup::full(qmp, "b0", 4096, "copy")?;
    guest.wait_for_more_written(20)?;
    guest.power_off()?;
    ensure!(
        bench.descriptor("disk.qbm")?.session().is_none(),
        "still in use"
    );

    let disk = "-drive driver=qbm,file=disk.qbm,node-name=disk,if=virtio";
    let mut guest = Guest::boot(&bench, disk)?;
    let marked_bytes = backup::require_good_bitmap(&mut guest.qmp, "b0")?;
    ensure!(marked_bytes > 0, "nothing is marked");
    guest.run("dd if=/dev/urandom of=/dev/vda bs=4k count=20 conv=notrunc,fsync")?;
    end(guest, &bench)
}

/// Before the switch the device writes past QBM: there can be no bitmap that would miss
/// it. Nor can the device go back while there is one.
#[test]
fn bitmaps_come_after_the_switch_and_go_before_the_way_back() -> Result<()> {
    let bench = Bench::new()?;
    let (device, iothread) = virtio_blk_device(&bench)?;
    let mut guest = writing(&bench, device, "vda")?;
    let qmp = &mut guest.qmp;
    hot_switch::create_over(qmp, "old", DISK_BYTES)?;
    if let Some(iothread) = iothread {
        // Without the descriptor's node in the device's iothread it is refused, no more.
        let image = json!({
            "driver": "qbm", "node-name": "disk", "file": "descriptor", "data-file": "old",
        });
        let words = qmp.refuses("blockdev-add", image)?;
        ensure!(words.contains("iothread"), "{words}");
        hot_switch::move_descriptor_to(qmp, iothread)?;
    }
    hot_switch::open_over(qmp, "old")?;
    let add = json!({ "node": "disk", "name": "b0", "persistent": true });
    let words = qmp.refuses("block-dirty-bitmap-add", add)?;
    ensure!(words.contains("permissions 'write'"), "{words}");
    hot_switch::lead_device_to(qmp, "disk0", "disk")?;
    bitmaps::add(qmp, "b0", 4096)?;
    guest.wait_for_more_written(10)?;

    let qmp = &mut guest.qmp;
    let back = json!({
        "path": "/machine/peripheral/disk0", "property": "drive", "value": "old",
    });
    let words = qmp.refuses("qom-set", back)?;
    ensure!(words.contains("permissions 'write'"), "{words}");
    guest.wait_for_more_written(10)?;
    let qmp = &mut guest.qmp;
    ensure!(
        backup::require_good_bitmap(qmp, "b0")? > 0,
        "nothing marked"
    );
    bitmaps::run(qmp, "remove", "b0")?;
    hot_switch::lead_device_to(qmp, "disk0", "old")?;
    qmp.execute("blockdev-del", json!({ "node-name": "disk" }))?;
    ensure!(
        bench.descriptor("disk.qbm")?.session().is_none(),
        "still in use"
    );
    guest.wait_for_more_written(10)?;
    guest.power_off().map(drop)
}
