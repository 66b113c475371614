// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data image that is a node others can use, too: nobody writes there past the bitmaps.

use anyhow::Result;
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::{Bench, Machine, StorageDaemon, bitmaps, migration};
use serde_json::{Value, json};

const GRANULARITY: u64 = 64 * 1024;

/// A daemon with the data image of `disk.qbm` as node `data`, which a client may write to.
fn daemon_with_data(bench: &Bench) -> Result<StorageDaemon> {
    let mut daemon = StorageDaemon::start(bench)?;
    let data = json!({
        "driver": "raw", "node-name": "data",
        "file": { "driver": "file", "node-name": "data-protocol", "filename": "disk.qbm.raw" },
    });
    daemon.qmp.execute("blockdev-add", data)?;
    daemon.listen()?;
    Ok(daemon)
}

fn export(node: &str) -> Value {
    json!({ "type": "nbd", "id": node, "node-name": node, "name": node, "writable": true })
}

fn over_data() -> Value {
    json!({ "data-file": "data" })
}

/// QEMU's words for what one user of node `data` (or of what is below) wants and another
/// does not share.
fn require_conflict(words: &str) {
    assert!(
        words.contains("permissions 'write'")
            && (words.contains("unshared by node 'disk'")
                || words.contains("unshared by node 'data'")),
        "{words}"
    );
}

/// Writes past the node were in no bitmap, and the bitmap was sealed as good: a node
/// without a writing parent shared its data image with whoever wrote there.
#[test]
fn no_bitmap_beside_a_direct_writer() -> Result<()> {
    for node in ["data", "data-protocol"] {
        let bench = Bench::new()?;
        bench.img("create -q -f qbm disk.qbm 64M")?;
        let mut daemon = daemon_with_data(&bench)?;
        daemon.qmp.execute("block-export-add", export(node))?;
        let mut client = NbdClient::connect(daemon.nbd_socket(), node)?;
        client.write(0, b"before")?;

        // The image itself may be there: how else would a disk move under it?
        daemon.add_image("disk.qbm", &over_data())?;
        let add = json!({ "node": "disk", "name": "b0", "persistent": true });
        let words = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
        require_conflict(&words);
        assert!(words.contains("bitmap 'b0' persistent"), "{words}");
        assert_eq!(bitmaps::list(&mut daemon.qmp, "disk")?, [] as [Value; 0]);
        client.write(1 << 20, b"past the node")?;
        drop(client);
        daemon.unexport(node)?;

        bitmaps::add(&mut daemon.qmp, "b0", GRANULARITY)?;
        let words = daemon.qmp.refuses("block-export-add", export(node))?;
        require_conflict(&words);
        daemon.qmp.execute("block-export-add", export("disk"))?;
        let mut client = NbdClient::connect(daemon.nbd_socket(), "disk")?;
        client.write(2 << 20, b"through the node")?;
        drop(client);
        daemon.quit()?;
        let granules = bench.descriptor("disk.qbm")?.bitmap("b0")?.granules();
        assert_eq!(granules, [32]);
    }
    Ok(())
}

#[test]
fn an_image_with_bitmaps_is_not_opened_beside_a_direct_writer() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let mut daemon = daemon_with_data(&bench)?;
    daemon.qmp.execute("block-export-add", export("data"))?;
    let before = bench.read("disk.qbm")?;
    let mut node = json!({
        "driver": "qbm", "node-name": "disk", "data-file": "data",
        "file": { "driver": "file", "filename": "disk.qbm" },
    });
    let words = daemon.qmp.refuses("blockdev-add", node.clone())?;
    require_conflict(&words);
    assert_eq!(bench.read("disk.qbm")?, before);

    // To look at it is no harm.
    node["read-only"] = json!(true);
    daemon.qmp.execute("blockdev-add", node)?;
    assert_eq!(bench.read("disk.qbm")?, before);
    daemon.quit()?;
    Ok(())
}

/// What takes the last bitmap away gives the data image free, and a read-only image has
/// no bitmaps that could miss anything.
#[test]
fn the_data_image_is_free_without_recording_bitmaps() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let mut daemon = daemon_with_data(&bench)?;
    daemon.add_image("disk.qbm", &over_data())?;
    let reopen = |read_only: bool| {
        let node = json!({
            "driver": "qbm", "node-name": "disk", "read-only": read_only,
            "discard": "unmap", "file": "descriptor", "data-file": "data",
        });
        json!({ "options": [node] })
    };

    daemon.qmp.execute("blockdev-reopen", reopen(true))?;
    daemon.qmp.execute("block-export-add", export("data"))?;
    let words = daemon.qmp.refuses("blockdev-reopen", reopen(false))?;
    require_conflict(&words);
    // And is as it was.
    assert!(bench.descriptor("disk.qbm")?.session().is_none());
    daemon.unexport("data")?;
    daemon.qmp.execute("blockdev-reopen", reopen(false))?;
    let words = daemon.qmp.refuses("block-export-add", export("data"))?;
    require_conflict(&words);

    bitmaps::add(&mut daemon.qmp, "b1", GRANULARITY)?;
    bitmaps::run(&mut daemon.qmp, "remove", "b0")?;
    let words = daemon.qmp.refuses("block-export-add", export("data"))?;
    require_conflict(&words);
    bitmaps::run(&mut daemon.qmp, "remove", "b1")?;
    daemon.qmp.execute("block-export-add", export("data"))?;
    daemon.quit()?;
    Ok(())
}

/// The node works in a thread that may not touch permissions.
#[test]
fn a_node_in_an_iothread() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = daemon_with_data(&bench)?;
    let thread = json!({ "qom-type": "iothread", "id": "thread" });
    daemon.qmp.execute("object-add", thread)?;
    daemon.add_image("disk.qbm", &over_data())?;
    let move_to = |iothread: Value| json!({ "node-name": "disk", "iothread": iothread });
    daemon
        .qmp
        .execute("x-blockdev-set-iothread", move_to(json!("thread")))?;

    bitmaps::add(&mut daemon.qmp, "b0", GRANULARITY)?;
    let words = daemon.qmp.refuses("block-export-add", export("data"))?;
    require_conflict(&words);
    bitmaps::run(&mut daemon.qmp, "remove", "b0")?;
    daemon.qmp.execute("block-export-add", export("data"))?;
    let add = json!({ "node": "disk", "name": "b1", "persistent": true });
    let words = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
    require_conflict(&words);
    daemon.quit()?;
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap_names(),
        [] as [String; 0]
    );
    Ok(())
}

/// A migration takes the bitmaps along; until it is completed they may stay.  Meanwhile QEMU
/// does not call them persistent, and the data image was given free.
#[test]
fn a_migration_under_way_gives_nothing_free() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let blockdev = |options: &str| ["-blockdev".to_owned(), options.to_owned()];
    let args = [
        blockdev("raw,node-name=data,file.driver=file,file.filename=disk.qbm.raw"),
        blockdev("qbm,node-name=disk,file.driver=file,file.filename=disk.qbm,data-file=data"),
    ]
    .concat();
    let mut machine = Machine::start(&bench, &args[..])?;
    let address = json!({ "type": "unix", "data": { "path": bench.path("nbd") } });
    machine
        .qmp
        .execute("nbd-server-start", json!({ "addr": address }))?;
    migration::enable(
        &mut machine.qmp,
        &["dirty-bitmaps", "pause-before-switchover"],
    )?;
    let nowhere = json!({ "uri": "exec:cat > /dev/null" });
    machine.qmp.execute("migrate", nowhere)?;
    migration::wait_for(&mut machine.qmp, "pre-switchover")?;

    // What makes the driver look at its claim.
    bitmaps::add(&mut machine.qmp, "b1", GRANULARITY)?;
    bitmaps::run(&mut machine.qmp, "remove", "b1")?;
    let words = machine.qmp.refuses("block-export-add", export("data"))?;
    require_conflict(&words);
    machine.qmp.execute("migrate_cancel", json!({}))?;
    machine.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.set_count(), 0);
    Ok(())
}

/// The locks of the data image's file say the same to other processes.
#[test]
fn no_other_process_writes_either() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let output = bench.io_command("raw", "disk.qbm.raw", &["write 0 512"])?;
    let words = output.refused()?.stderr;
    assert!(words.contains(r#""write" lock"#), "{words}");
    // Reading is free.
    bench.img("map -f raw disk.qbm.raw")?;
    daemon.quit()?;
    Ok(())
}
