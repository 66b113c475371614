// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the data image is called changes while it stays the same one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qbm_testkit::image_server::{ImageServer, Server};
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::{Bench, PATIENCE, Process, StorageDaemon, bitmaps};
use serde_json::json;

/// Daemons, and qemu-nbd in any case, go to the root directory when their disks are open.  A
/// relative name was then taken for one in that directory: the seal vouched for no file, and
/// a foreign write was not noticed.
#[test]
fn relative_to_where_qemu_was_started() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let options = "driver=qbm,file.driver=file,file.filename=disk.qbm,data-file.driver=raw,\
                   data-file.file.driver=file,data-file.file.filename=disk.qbm.raw";
    let socket = bench.path("nbd");
    let mut command = bench.command("qemu-nbd");
    command
        .arg("-k")
        .arg(&socket)
        .args(["--image-opts", options]);
    let mut server = Process::start(&mut command, bench.path(".qemu-nbd.stderr"))?;
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        match NbdClient::connect(&socket, "") {
            Ok(client) => break client,
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
        server.require_running()?;
        sleep(Duration::from_millis(2));
    };
    client.write(1 << 20, b"written")?;
    // It ends with its last client.
    drop(client);
    let stderr = server.wait_success()?;
    ensure!(!stderr.contains("bitmap"), "{stderr}");
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);

    bench.io_as("raw", "disk.qbm.raw", &["write 8M 64k"])?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    assert_eq!(list[0]["inconsistent"], true, "{list:?}");
    daemon.quit().map(drop)
}

/// An image elsewhere gets its name when somebody asks for it.  It was taken for another
/// image then, which cost the bitmaps.
#[test]
fn a_name_that_is_made_up_later() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let server = ImageServer::start(&bench, Server::QemuNbd, "disk.qbm.raw")?;
    let mut data = server.node();
    data["node-name"] = json!("data");
    let mut daemon = StorageDaemon::start(&bench)?;
    daemon.qmp.execute("blockdev-add", data)?;
    daemon.add_image("disk.qbm", &json!({ "data-file": "data" }))?;
    daemon
        .qmp
        .execute("query-named-block-nodes", json!({ "flat": false }))?;
    let clear = bitmaps::bitmap_action("clear", "b0");
    bitmaps::transaction(&mut daemon.qmp, &[clear])?;
    daemon.export()?.write(1 << 20, b"written")?;
    let stderr = daemon.quit()?;
    drop(server);
    ensure!(!stderr.contains("inconsistent"), "{stderr}");
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    assert_eq!(list[0]["inconsistent"], json!(null), "{list:?}");
    daemon.quit().map(drop)
}
