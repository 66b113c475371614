// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children of an image given as nodes, and images made over nodes that are open.

use anyhow::{Context, Result, ensure};
use qbm_testkit::image_server::{ImageServer, Server};
use qbm_testkit::{Bench, LoopDevice, StorageDaemon, backup, bitmaps, hot_switch, jobs};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const DISK_BYTES: u64 = 16 * MIB;

/// What a node of `disk` is, by `query-named-block-nodes`.
fn node_of(daemon: &mut StorageDaemon, name: &str) -> Result<Option<Value>> {
    let nodes = daemon
        .qmp
        .execute("query-named-block-nodes", json!({ "flat": true }))?;
    let nodes = nodes.as_array().context("no list")?;
    Ok(nodes.iter().find(|node| node["node-name"] == name).cloned())
}

/// Makes `disk.qbm` over node `data`, opens it over the same, writes, closes, and opens it
/// again in another process over a node of the same kind.
fn made_over_a_node(
    bench: &Bench,
    data: &Value,
    objects: &[Value],
    stored: (&str, &str),
) -> Result<()> {
    let add_data = |daemon: &mut StorageDaemon| -> Result<()> {
        for object in objects {
            daemon.qmp.execute("object-add", object.clone())?;
        }
        let mut node = data.clone();
        node["node-name"] = json!("data");
        daemon.qmp.execute("blockdev-add", node).map(drop)
    };
    let mut daemon = StorageDaemon::start(bench)?;
    add_data(&mut daemon)?;
    hot_switch::create_over(&mut daemon.qmp, "data", DISK_BYTES)?;
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.qbm()["image"]["file"], stored.0);
    assert_eq!(descriptor.qbm()["image"]["format"], stored.1);
    hot_switch::open_over(&mut daemon.qmp, "data")?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    daemon.export()?.write(MIB, &[7; 512])?;
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), [16]);

    let mut daemon = StorageDaemon::start(bench)?;
    add_data(&mut daemon)?;
    daemon.add_image("disk.qbm", &json!({ "data-file": "data" }))?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    let mut client = daemon.export()?;
    assert_eq!(client.read(MIB, 512)?, [7; 512]);
    client.write(2 * MIB, &[7; 512])?;
    drop(client);
    // The node stays when the image goes.
    daemon.unexport("export")?;
    daemon
        .qmp
        .execute("blockdev-del", json!({ "node-name": "disk" }))?;
    ensure!(node_of(&mut daemon, "data")?.is_some(), "the node is gone");
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), [16, 32]);
    Ok(())
}

#[test]
fn over_a_file() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    let path = bench.path("disk.raw");
    let data = json!({ "driver": "file", "filename": path });
    made_over_a_node(
        &bench,
        &data,
        &[],
        (path.to_str().context("a path")?, "raw"),
    )
}

#[test]
fn over_a_block_device() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("backing.raw", DISK_BYTES, &[])?;
    let Some(device) = LoopDevice::attach(&bench, "backing.raw")? else {
        return Ok(());
    };
    let path = device.path().to_str().context("a path")?;
    let data = json!({ "driver": "host_device", "filename": path });
    made_over_a_node(&bench, &data, &[], (path, "raw"))
}

#[test]
fn over_nbd() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    let server = ImageServer::start(&bench, Server::QemuNbd, "disk.raw")?;
    // The name that QEMU gives the node.
    let name = format!("nbd+unix://?socket={}", server.socket().display());
    made_over_a_node(&bench, &server.node(), &[], (&name, "raw"))
}

#[test]
fn over_luks() -> Result<()> {
    let bench = Bench::new()?;
    let secret = "secret,id=key,data=open-sesame";
    bench.luks_image("disk.luks", DISK_BYTES, secret)?;
    let path = bench.path("disk.luks");
    let data = json!({
        "driver": "luks", "key-secret": "key", "file": { "driver": "file", "filename": path },
    });
    let key = json!({ "qom-type": "secret", "id": "key", "data": "open-sesame" });
    let stored = (path.to_str().context("a path")?, "luks");
    made_over_a_node(&bench, &data, &[key], stored)
}

/// A filter on the way does not change what the image is.
#[test]
fn over_a_filter() -> Result<()> {
    let bench = Bench::new()?;
    bench.img(&format!("create -q -f qcow2 disk.qcow2 {DISK_BYTES}"))?;
    let path = bench.path("disk.qcow2");
    let data = json!({
        "driver": "copy-on-read",
        "file": { "driver": "qcow2", "file": { "driver": "file", "filename": path } },
    });
    let stored = (path.to_str().context("a path")?, "qcow2");
    made_over_a_node(&bench, &data, &[], stored)
}

/// The size that is asked for must be the data image's, and a part is no image.
#[test]
fn over_what_it_cannot() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let qmp = &mut daemon.qmp;
    let file = json!({ "driver": "file", "node-name": "data", "filename": "disk.raw" });
    let part = json!({
        "driver": "raw", "node-name": "part", "file": "data", "offset": 512, "size": 512,
    });
    let memory = json!({ "driver": "null-co", "node-name": "memory", "size": DISK_BYTES });
    for node in [file, part, memory] {
        qmp.execute("blockdev-add", node)?;
    }
    jobs::create(
        qmp,
        json!({ "driver": "file", "filename": "disk.qbm", "size": 0 }),
    )?;
    let node = json!({ "driver": "file", "node-name": "descriptor", "filename": "disk.qbm" });
    qmp.execute("blockdev-add", node)?;
    for (node, size_bytes, reason) in [
        ("data", DISK_BYTES + 512, "size"),
        ("part", 512, "'part' is not a whole image"),
        ("memory", DISK_BYTES, "'memory'"),
        ("nothing", DISK_BYTES, "'nothing'"),
    ] {
        let options = json!({
            "driver": "qbm", "file": "descriptor", "data-file": node, "size": size_bytes,
        });
        let error = jobs::create_and_fail(qmp, options)?;
        let words = error
            .as_str()
            .with_context(|| format!("{node}: no error"))?;
        ensure!(words.contains(reason), "{node}: {words}");
    }
    assert_eq!(bench.read("disk.qbm")?, b"");
    Ok(())
}

/// What the image over it would get wrong is refused, in words.
#[test]
fn a_node_that_is_not_the_data_image() -> Result<()> {
    let bench = Bench::new()?;
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    bench.img(&format!("create -q -f qcow2 other.qcow2 {DISK_BYTES}"))?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let other = json!({
        "driver": "qcow2", "node-name": "other",
        "file": { "driver": "file", "filename": "other.qcow2" },
    });
    daemon.qmp.execute("blockdev-add", other)?;
    for (options, reasons) in [
        (json!({ "data-file": "other" }), ["'other'", "qcow2"]),
        (
            json!({ "data-file": "nothing" }),
            ["nothing", "Cannot find"],
        ),
        (json!({ "data-file": null }), ["data-file", "BlockdevRef"]),
    ] {
        let words = daemon.refuses_image("disk.qbm", &options)?;
        for reason in reasons {
            ensure!(words.contains(reason), "{options}: {words}");
        }
    }
    Ok(())
}

/// There are no backing images: the option is refused, and its absence can be said.
#[test]
fn a_backing_image_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    bench.img(&format!("create -q -f qbm disk.qbm {DISK_BYTES}"))?;
    bench.sparse("base.raw", DISK_BYTES, &[])?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let base = json!({ "driver": "file", "node-name": "base", "filename": "base.raw" });
    daemon.qmp.execute("blockdev-add", base)?;
    for backing in [
        json!("base"),
        json!({ "driver": "file", "filename": "base.raw" }),
    ] {
        let words = daemon.refuses_image("disk.qbm", &json!({ "backing": backing }))?;
        ensure!(words.contains("'backing' is unexpected"), "{words}");
    }
    daemon.add_image("disk.qbm", &json!({}))?;
    daemon.quit().map(drop)
}

/// Two images cannot record what one file's writers do.
#[test]
fn two_images_over_one_node() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    for name in ["disk.qbm", "second.qbm"] {
        bench.img(&format!("create -q -f qbm -o data_file=disk.raw {name}"))?;
        bench.img(&format!("bitmap --add -f qbm {name} b0"))?;
    }
    let mut daemon = StorageDaemon::start(&bench)?;
    let data = json!({ "driver": "file", "node-name": "data", "filename": "disk.raw" });
    daemon.qmp.execute("blockdev-add", data)?;
    daemon.add_image("disk.qbm", &json!({ "data-file": "data" }))?;
    daemon.listen()?;
    let second = json!({
        "driver": "qbm", "node-name": "second", "data-file": "data",
        "file": { "driver": "file", "filename": "second.qbm" },
    });
    daemon.qmp.execute("blockdev-add", second)?;
    for node in ["disk", "second"] {
        let export = json!({
            "type": "nbd", "id": node, "node-name": node, "name": node, "writable": true,
        });
        let words = daemon.qmp.refuses("block-export-add", export)?;
        ensure!(words.contains("permissions 'write'"), "{node}: {words}");
    }
    let delete = json!({ "node-name": "second" });
    daemon.qmp.execute("blockdev-del", delete)?;
    daemon.qmp.execute("nbd-server-stop", json!({}))?;
    daemon.export()?.write(MIB, &[1; 512])?;
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), [16]);
    Ok(())
}
