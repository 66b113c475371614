// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps over NBD: as another program, libnbd's nbdinfo, reads them, and qemu-img.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{dirty_over_nbd, on_disk, require_settled};
use qbm_testkit::{Bench, PATIENCE, Process, StorageDaemon, backup};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const DISK_BYTES: u64 = 64 * MIB;

/// An image with `b0` dirty at 0 and 1 MiB, `b1`, 4 KiB a granule, at 1 MiB, and `off`,
/// disabled and clean.
fn image(bench: &Bench) -> Result<()> {
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.img("bitmap --add --disable -f qbm disk.qbm off")?;
    bench.io("disk.qbm", &["write 0 100"])?;
    bench.img("bitmap --add -g 4k -f qbm disk.qbm b1")?;
    bench.io("disk.qbm", &["write 1M 100"])?;
    Ok(())
}

const IN_B0: [(u64, u64); 2] = [(0, 64 * KIB), (MIB, 64 * KIB)];
const IN_B1: [(u64, u64); 1] = [(MIB, 4 * KIB)];

fn uri(export: &str, socket: &str) -> String {
    format!("nbd+unix:///{export}?socket={socket}")
}

/// The dirty extents of a bitmap, by QEMU's NBD client, which shows what is dirty as absent.
fn by_qemu_img(bench: &Bench, export: &str, socket: &str, bitmap: &str) -> Result<Vec<(u64, u64)>> {
    let source = format!(
        "driver=nbd,export={export},server.type=unix,server.path={socket},\
         x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}"
    );
    let printed = bench.img(["map", "--output=json", "--image-opts", &source])?;
    let extents: Value = serde_json::from_str(&printed.stdout)?;
    let mut dirty = Vec::new();
    for extent in extents.as_array().context("no list of extents")? {
        if extent["data"] == false {
            let number = |key: &str| extent[key].as_u64().context("no number");
            dirty.push((number("start")?, number("length")?));
        }
    }
    Ok(dirty)
}

fn require_exported(bench: &Bench, export: &str, socket: &str) -> Result<()> {
    let uri = uri(export, socket);
    for (bitmap, expected) in [("b0", &IN_B0[..]), ("b1", &IN_B1), ("off", &[])] {
        assert_eq!(dirty_over_nbd(bench, &uri, bitmap)?, expected, "{bitmap}");
        assert_eq!(
            by_qemu_img(bench, export, socket, bitmap)?,
            expected,
            "{bitmap}"
        );
    }
    Ok(())
}

/// Closed in order, the bitmaps as they were.
fn require_stored(bench: &Bench) -> Result<()> {
    let descriptor = bench.descriptor("disk.qbm")?;
    ensure!(descriptor.session().is_none(), "still in use");
    assert_eq!(descriptor.bitmap("b0")?.granules(), [0, 16]);
    assert_eq!(descriptor.bitmap("b1")?.granules(), [256]);
    Ok(())
}

/// A daemon with the image, and its NBD server at `nbd`.
fn serving(bench: &Bench) -> Result<StorageDaemon> {
    image(bench)?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let address = json!({ "type": "unix", "data": { "path": "nbd" } });
    daemon
        .qmp
        .execute("nbd-server-start", json!({ "addr": address }))?;
    Ok(daemon)
}

fn export(bitmaps: &Value) -> Value {
    json!({
        "type": "nbd", "id": "bits", "node-name": "disk", "name": "bits", "bitmaps": bitmaps,
        // A bitmap that records goes with an export that can be written.
        "writable": true,
    })
}

#[test]
fn exported_by_qmp() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = serving(&bench)?;
    for named in [
        json!(["b0", "b1", "off"]),
        json!(["b0", { "node": "disk", "name": "b1" }, "off"]),
    ] {
        daemon.qmp.execute("block-export-add", export(&named))?;
        require_exported(&bench, "bits", "nbd")?;
        daemon.unexport("bits")?;
    }
    daemon.quit()?;
    require_stored(&bench)
}

/// An exported bitmap goes on recording, is nobody else's, and is right when it is given
/// back, or QEMU killed.
#[test]
fn an_exported_bitmap_is_busy_and_records() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = serving(&bench)?;
    daemon
        .qmp
        .execute("block-export-add", export(&json!(["b1"])))?;
    for verb in ["remove", "clear", "enable", "disable"] {
        let command = format!("block-dirty-bitmap-{verb}");
        let refusal = daemon.qmp.refuses(&command, on_disk("b1"))?;
        assert!(refusal.contains("in use"), "{refusal}");
    }
    bench.sparse("copy.raw", DISK_BYTES, &[])?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    let job = json!({
        "device": "disk", "target": "copy", "sync": "incremental", "bitmap": "b1",
    });
    let refusal = daemon.qmp.refuses("blockdev-backup", job)?;
    assert!(refusal.contains("in use"), "{refusal}");

    bench.io_as("raw", &uri("bits", "nbd"), &["write 8M 4k"])?;
    let expected = [(MIB, 4 * KIB), (8 * MIB, 4 * KIB)];
    assert_eq!(dirty_over_nbd(&bench, &uri("bits", "nbd"), "b1")?, expected);
    daemon.unexport("bits")?;
    require_settled(&bench, &mut daemon.qmp, "b1")?;
    daemon
        .qmp
        .execute("block-export-add", export(&json!(["b1"])))?;
    bench.io_as("raw", &uri("bits", "nbd"), &["write 9M 4k"])?;
    daemon.kill()?;

    StorageDaemon::with_image(&bench, "disk.qbm")?.quit()?;
    let granules = bench.descriptor("disk.qbm")?.bitmap("b1")?.granules();
    assert_eq!(granules, [256, 2048, 2304]);
    Ok(())
}

/// QEMU ends in order with an export still there: its bitmap is stored.
#[test]
fn an_exported_bitmap_is_stored_at_the_end() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = serving(&bench)?;
    let bits = export(&json!(["b0", "b1"]));
    daemon.qmp.execute("block-export-add", bits)?;
    let complaints = daemon.quit()?;
    ensure!(complaints.is_empty(), "{complaints}");
    require_stored(&bench)
}

#[test]
fn what_cannot_be_exported() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = serving(&bench)?;
    for (named, reason) in [
        (json!(["nothing"]), "not found"),
        (json!([{ "node": "gone", "name": "b0" }]), "gone"),
    ] {
        let refusal = daemon.qmp.refuses("block-export-add", export(&named))?;
        assert!(refusal.contains(reason), "{refusal}");
    }
    let mut read_only = export(&json!(["b0"]));
    read_only["writable"] = json!(false);
    let refusal = daemon.qmp.refuses("block-export-add", read_only)?;
    assert!(
        refusal.contains("incompatible with readonly export"),
        "{refusal}"
    );
    Ok(())
}

/// While a job has a bitmap it cannot be exported, afterwards it can.
#[test]
fn a_bitmap_that_a_job_has() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = serving(&bench)?;
    bench.sparse("target.raw", DISK_BYTES, &[])?;
    let target = json!({
        "driver": "raw", "node-name": "target",
        "file": { "driver": "file", "filename": "target.raw" },
    });
    daemon.qmp.execute("blockdev-add", target)?;
    // While a job runs, nobody can begin to write below it: these are for reading only.
    for name in ["b0", "b1"] {
        let disable = on_disk(name);
        daemon.qmp.execute("block-dirty-bitmap-disable", disable)?;
    }
    let frozen = |name: &str| {
        let mut export = export(&json!([name]));
        export["writable"] = json!(false);
        export
    };
    let job = json!({
        "job-id": "job", "device": "disk", "target": "target", "sync": "incremental",
        "bitmap": "b0", "auto-finalize": false,
    });
    daemon.qmp.execute("blockdev-backup", job)?;
    let refusal = daemon.qmp.refuses("block-export-add", frozen("b0"))?;
    assert!(refusal.contains("in use"), "{refusal}");
    // Another bitmap can, meanwhile.
    daemon.qmp.execute("block-export-add", frozen("b1"))?;
    let pending = |data: &Value| data["status"] == "pending";
    daemon.qmp.event("JOB_STATUS_CHANGE", pending)?;
    assert_eq!(dirty_over_nbd(&bench, &uri("bits", "nbd"), "b1")?, IN_B1);
    daemon.qmp.execute("job-finalize", json!({ "id": "job" }))?;
    daemon.qmp.event("BLOCK_JOB_COMPLETED", |_| true)?;
    daemon.unexport("bits")?;
    daemon.qmp.execute("block-export-add", frozen("b0"))?;
    assert_eq!(dirty_over_nbd(&bench, &uri("bits", "nbd"), "b0")?, []);
    daemon.kill()
}

/// `qemu-nbd` with the options given, until `work` is done.
fn with_qemu_nbd(
    bench: &Bench,
    options: &[&str],
    work: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let mut command = bench.command("qemu-nbd");
    command
        .args(["-k", bench.path("nbd").to_str().context("a path")?])
        .args(["--persistent", "-f", "qbm", "-x", "bits"])
        .args(options)
        .arg("disk.qbm");
    let mut server = Process::start(&mut command, bench.path(".qemu-nbd.stderr"))?;
    let deadline = std::time::Instant::now() + PATIENCE;
    while !bench.path("nbd").exists() {
        server.require_running()?;
        ensure!(std::time::Instant::now() < deadline, "no socket");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    work()?;
    // Its end in order.
    server.signal("TERM")?;
    server.wait_success()
}

#[test]
fn exported_by_qemu_nbd() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    for mode in [&["-r"][..], &[]] {
        let mut options = vec!["-B", "b0", "-B", "b1", "-B", "off"];
        options.extend(mode);
        with_qemu_nbd(&bench, &options, || require_exported(&bench, "bits", "nbd"))?;
        require_stored(&bench)?;
    }
    Ok(())
}

/// Two readers at once see the same.
#[test]
fn two_read_only_servers_side_by_side() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    with_qemu_nbd(&bench, &["-r", "-B", "b0", "-B", "b1", "-B", "off"], || {
        let read_only = json!({ "read-only": true });
        let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &read_only)?;
        let address = json!({ "type": "unix", "data": { "path": "second" } });
        daemon
            .qmp
            .execute("nbd-server-start", json!({ "addr": address }))?;
        let mut all = export(&json!(["b0", "b1", "off"]));
        all["writable"] = json!(false);
        daemon.qmp.execute("block-export-add", all)?;
        require_exported(&bench, "bits", "second")?;
        daemon.quit()?;
        require_exported(&bench, "bits", "nbd")
    })?;
    Ok(())
}

#[test]
fn qemu_nbd_refuses_a_bitmap_that_is_not_there() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let refusal = bench
        .run("qemu-nbd", "-p 0 -f qbm -B nothing disk.qbm")?
        .refused()?;
    assert!(refusal.stderr.contains("'nothing'"), "{refusal}");
    Ok(())
}

/// The extents of a bitmap that many writes made, against its file.
#[test]
fn scattered_bits() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "512")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let mut client = daemon.export()?;
    for number in 0..500_u64 {
        client.write(number * number * 256 % (DISK_BYTES - 512), &[1; 300])?;
    }
    let add = export(&json!(["b0"]));
    daemon.qmp.execute("block-export-add", add)?;
    let socket = daemon.nbd_socket().to_str().context("a path")?;
    let extents = dirty_over_nbd(&bench, &uri("bits", socket), "b0")?;
    let mut granules = Vec::new();
    for (offset, length) in extents {
        granules.extend(offset / 512..(offset + length) / 512);
    }
    assert_eq!(
        granules,
        bench.descriptor("disk.qbm")?.bitmap("b0")?.granules()
    );
    Ok(())
}
