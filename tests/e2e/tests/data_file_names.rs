// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the data image is called changes while it stays the same one.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qbm_testkit::image_server::{ImageServer, Server};
use qbm_testkit::nbd::NbdClient;
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, LoopDevice, Output, PATIENCE, Process, StorageDaemon, bitmaps, jobs};
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

/// Ended when dropped.
struct Daemon {
    pid: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = Command::new("kill").arg(&self.pid).output();
    }
}

/// The descriptor was to name a device in the root directory, where the daemon is by then.
#[test]
fn a_block_device_from_where_qemu_was_started() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("backing.raw", 16 << 20, &[])?;
    let Some(device) = LoopDevice::attach(&bench, "backing.raw")? else {
        return Ok(());
    };
    symlink(device.path(), bench.path("device"))?;
    let socket = bench.path("monitor");
    let monitor = format!(
        "socket,id=monitor,path={},server=on,wait=off",
        socket.display()
    );
    let mut command = bench.command("qemu-storage-daemon");
    command
        .args(["--daemonize", "--pidfile", "pid"])
        .args(["--chardev", &monitor, "--monitor", "chardev=monitor"])
        .args(["--blockdev", "host_device,node-name=data,filename=device"]);
    Output::of(&mut command)?.succeeded()?;
    let pid = String::from_utf8(bench.read("pid")?)?.trim().to_owned();
    let daemon = Daemon { pid };
    let mut tail = Command::new("tail");
    tail.args(["-f", "/dev/null", "--pid", &daemon.pid]);
    let mut end = Process::start(&mut tail, bench.path(".tail.stderr"))?;

    let mut qmp = Qmp::connect(&socket, &mut end)?;
    let path = bench.path("disk.qbm");
    let file = json!({ "driver": "file", "filename": path });
    let mut new_file = file.clone();
    new_file["size"] = json!(0);
    jobs::create(&mut qmp, new_file)?;
    let image = json!({ "driver": "qbm", "file": "file", "data-file": "data", "size": 16 << 20 });
    let mut node = file;
    node["node-name"] = json!("file");
    qmp.execute("blockdev-add", node)?;
    jobs::create(&mut qmp, image)?;
    qmp.quit()?;
    end.wait_success()?;
    std::mem::forget(daemon);
    let descriptor = bench.descriptor("disk.qbm")?;
    let stored = &descriptor.qbm()["image"]["file"];
    assert_eq!(*stored, json!(bench.path("device")));
    Ok(())
}
