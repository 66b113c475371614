// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that is written in iothreads while the main loop changes its bitmaps.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, transaction};
use qbm_testkit::load::Load;
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::oracle::judge;
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Guest, StorageDaemon, backup};
use serde_json::{Value, json};

const DISK_BYTES: u64 = 24 << 20;
const GRANULARITY_BYTES: u64 = 4096;

/// A daemon with iothreads `io0` and `io1`, the image, and its export, in one of the two
/// if one is given.
fn exported(bench: &Bench, iothread: &Value) -> Result<(StorageDaemon, NbdClient)> {
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    let mut daemon = StorageDaemon::start(bench)?;
    for id in ["io0", "io1"] {
        let object = json!({ "qom-type": "iothread", "id": id });
        daemon.qmp.execute("object-add", object)?;
    }
    daemon.add_image("disk.qbm", &json!({}))?;
    daemon.listen()?;
    let mut export = json!({
        "type": "nbd", "id": "export", "node-name": "disk", "name": "disk", "writable": true,
    });
    if iothread.is_string() {
        export["iothread"] = iothread.clone();
        export["fixed-iothread"] = json!(true);
    }
    daemon.qmp.execute("block-export-add", export)?;
    let client = NbdClient::connect(daemon.nbd_socket(), "disk")?;
    Ok((daemon, client))
}

/// Adds `since`, which counts from `copy.raw`.
fn begin(qmp: &mut Qmp) -> Result<()> {
    backup::open_target(qmp, "copy", "raw", "copy.raw")?;
    backup::full(qmp, "since", GRANULARITY_BYTES, "copy")?;
    backup::close_target(qmp, "copy")
}

/// The image is written all the time, `since` some requests.
fn loaded(bench: &Bench, iothread: &Value, seed: u64) -> Result<(StorageDaemon, Load)> {
    let (mut daemon, client) = exported(bench, iothread)?;
    let load = Load::start(client, 16, seed);
    load.wait_for(100)?;
    begin(&mut daemon.qmp)?;
    Ok((daemon, load))
}

/// All that can be done with bitmaps, `since` left alone but for being merged into others.
fn change_bitmaps(qmp: &mut Qmp) -> Result<()> {
    bitmaps::add(qmp, "other", GRANULARITY_BYTES)?;
    let merge = |target: &str| json!({ "node": "disk", "target": target, "bitmaps": ["since"] });
    qmp.execute("block-dirty-bitmap-merge", merge("other"))?;
    for verb in ["disable", "enable", "clear"] {
        bitmaps::run(qmp, verb, "other")?;
    }
    let again = [
        bitmaps::bitmap_action("clear", "other"),
        bitmaps::action("block-dirty-bitmap-merge", merge("other")),
    ];
    transaction(qmp, &again)?;
    bitmaps::run(qmp, "remove", "other")
}

/// Adds `merged`, which has all of `since` and goes on as it does.
fn take_over(qmp: &mut Qmp) -> Result<()> {
    let merge = json!({ "node": "disk", "target": "merged", "bitmaps": ["since"] });
    let actions = [
        backup::add_action("merged", GRANULARITY_BYTES),
        bitmaps::action("block-dirty-bitmap-merge", merge),
    ];
    transaction(qmp, &actions)
}

/// Both have every block that changed since `copy.raw`, and are good.
fn require_complete(bench: &Bench) -> Result<()> {
    let descriptor = bench.descriptor("disk.qbm")?;
    for name in ["since", "merged"] {
        let bitmap = descriptor.bitmap(name)?;
        let verdict = judge(&bench.path("copy.raw"), &descriptor.data_file()?, &bitmap)?;
        ensure!(verdict.changed_count > 10, "nothing changed: {verdict:?}");
        verdict.require_complete().context(name)?;
    }
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    for name in ["since", "merged"] {
        backup::require_good_bitmap(&mut daemon.qmp, name)?;
    }
    daemon.quit().map(drop)
}

/// Ends by SIGKILL, or in order.
fn end(bench: &Bench, mut daemon: StorageDaemon, load: Load, kill: bool) -> Result<()> {
    if kill {
        daemon.kill()?;
        load.join()?;
    } else {
        load.stop()?;
        for name in ["since", "merged"] {
            bitmaps::require_settled(bench, &mut daemon.qmp, name)?;
        }
        let complaints = daemon.quit()?;
        ensure!(complaints.is_empty(), "{complaints}");
    }
    require_complete(bench)
}

fn in_an_iothread(kill: bool) -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("NBD export that can be drained in an iothread", (9, 0))? {
        return Ok(());
    }
    let (mut daemon, load) = loaded(&bench, &json!("io0"), 3)?;
    for _ in 0..5 {
        change_bitmaps(&mut daemon.qmp)?;
        load.wait_for_more(50)?;
    }
    take_over(&mut daemon.qmp)?;
    load.wait_for_more(100)?;
    end(&bench, daemon, load, kill)
}

#[test]
fn killed_in_an_iothread() -> Result<()> {
    in_an_iothread(true)
}

#[test]
fn closed_in_an_iothread() -> Result<()> {
    in_an_iothread(false)
}

fn move_to(qmp: &mut Qmp, iothread: &Value) -> Result<()> {
    // Whoever uses the node goes with it.
    let arguments = json!({ "node-name": "disk", "iothread": iothread, "force": true });
    qmp.execute("x-blockdev-set-iothread", arguments).map(drop)
}

/// The disk goes from thread to thread and back while it is written and its bitmaps change.
fn moved(kill: bool) -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("NBD export that can be drained in an iothread", (9, 0))? {
        return Ok(());
    }
    let (mut daemon, load) = loaded(&bench, &Value::Null, 4)?;
    for place in [json!("io0"), json!("io1"), Value::Null, json!("io1")] {
        move_to(&mut daemon.qmp, &place)?;
        load.wait_for_more(50)?;
        change_bitmaps(&mut daemon.qmp)?;
    }
    take_over(&mut daemon.qmp)?;
    move_to(&mut daemon.qmp, &json!("io0"))?;
    load.wait_for_more(100)?;
    end(&bench, daemon, load, kill)
}

#[test]
fn moved_and_killed() -> Result<()> {
    moved(true)
}

#[test]
fn moved_and_closed() -> Result<()> {
    moved(false)
}

/// Nobody uses the node but the bitmaps.
#[test]
fn an_idle_node_is_moved() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, client) = exported(&bench, &Value::Null)?;
    drop(client);
    daemon.unexport("export")?;
    begin(&mut daemon.qmp)?;
    for place in [json!("io0"), json!("io1"), Value::Null] {
        let arguments = json!({ "node-name": "disk", "iothread": place });
        daemon.qmp.execute("x-blockdev-set-iothread", arguments)?;
        change_bitmaps(&mut daemon.qmp)?;
    }
    let arguments = json!({ "node-name": "disk", "iothread": "io0" });
    daemon.qmp.execute("x-blockdev-set-iothread", arguments)?;
    let delete = json!({ "node-name": "disk" });
    daemon.qmp.execute("blockdev-del", delete)?;
    ensure!(
        bench.descriptor("disk.qbm")?.session().is_none(),
        "still in use"
    );
    let complaints = daemon.quit()?;
    ensure!(complaints.is_empty(), "{complaints}");
    Ok(())
}

/// A guest with a virtio disk whose queues are in threads of their own.
fn booted(bench: &Bench) -> Result<Guest> {
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    let device = json!({
        "driver": "virtio-blk-pci", "drive": "disk", "num-queues": 3,
        "iothread-vq-mapping": [
            { "iothread": "io0" }, { "iothread": "io1" }, { "iothread": "io2" },
        ],
    });
    let args = format!(
        "-smp 3 -object iothread,id=io0 -object iothread,id=io1 -object iothread,id=io2 \
         -blockdev driver=qbm,node-name=disk,file.driver=file,file.filename=disk.qbm \
         -device {device}"
    );
    let mut guest = Guest::boot(bench, &args)?;
    let queues = guest.run("ls /sys/block/vda/mq | wc -l")?;
    ensure!(queues.trim() == "3", "{queues} queues");
    Ok(guest)
}

/// Requests of one image begin and end in several threads at once.
#[test]
fn one_disk_in_several_iothreads() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("iothread-vq-mapping", (9, 0))? {
        return Ok(());
    }
    let mut guest = booted(&bench)?;
    guest.start_writing("vda")?;
    begin(&mut guest.qmp)?;
    for _ in 0..3 {
        change_bitmaps(&mut guest.qmp)?;
        guest.wait_for_more_written(10)?;
    }
    take_over(&mut guest.qmp)?;
    guest.wait_for_more_written(40)?;
    guest.kill()?;
    require_complete(&bench)
}

/// A reset in the middle of it takes the device to the main loop, the next start of its
/// driver back to its threads.
#[test]
fn a_reset_with_several_iothreads() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("iothread-vq-mapping", (9, 0))? {
        return Ok(());
    }
    let mut guest = booted(&bench)?;
    guest.start_writing("vda")?;
    begin(&mut guest.qmp)?;
    guest.wait_for_more_written(20)?;
    guest
        .qmp
        .execute("set-action", json!({ "reboot": "reset" }))?;
    guest.qmp.execute("system_reset", json!({}))?;
    guest.wait_for("ready")?;
    change_bitmaps(&mut guest.qmp)?;
    guest.start_writing("vda")?;
    take_over(&mut guest.qmp)?;
    guest.wait_for_more_written(20)?;
    guest.kill()?;
    require_complete(&bench)
}
