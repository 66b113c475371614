// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NBD server that goes away and comes back while a guest writes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qbm_testkit::image_server::{ImageServer, Server};
use qbm_testkit::load::Load;
use qbm_testkit::nbd::require_io_error;
use qbm_testkit::{Bench, PATIENCE, StorageDaemon, backup, bitmaps};
use serde_json::json;

use crate::common::{DISK_BYTES, DataImage, KIB, MIB, require_complete};
use crate::nbd::served;

/// Longer than any test may take.
const DELAY_SECONDS: u32 = 1000;

fn opened(
    bench: &Bench,
    server: Server,
    delay_seconds: u32,
) -> Result<(ImageServer, DataImage, StorageDaemon)> {
    let (server, mut image) = served(bench, server)?;
    let mut node = server.node();
    node["reconnect-delay"] = json!(delay_seconds);
    image.node = Some(node);
    bench.sparse("before.raw", DISK_BYTES, &[(0, b"before QBM")])?;
    let mut daemon = image.open(bench)?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    Ok((server, image, daemon))
}

/// The guest's writes wait for the server; none fails, and none is missed.
fn waits_for_the_server(server: Server, killed_at_the_end: bool) -> Result<()> {
    let bench = Bench::new()?;
    let (mut server, image, mut daemon) = opened(&bench, server, DELAY_SECONDS)?;
    let load = Load::start(daemon.export()?, 16, 7);
    for _ in 0..3 {
        load.wait_for_more(100)?;
        server.kill()?;
        sleep(Duration::from_millis(50));
        server.restart(&bench)?;
    }
    load.wait_for_more(100)?;
    if killed_at_the_end {
        daemon.kill()?;
        load.join()?;
    } else {
        load.stop()?;
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        bitmaps::require_settled(&bench, &mut daemon.qmp, "b0")?;
        daemon.quit()?;
        ensure!(
            bench.descriptor("disk.qbm")?.session().is_none(),
            "still in use"
        );
    }
    require_complete(&bench, &image)?;
    let mut daemon = image.open(&bench)?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit().map(drop)
}

#[test]
fn qemu_nbd_comes_back() -> Result<()> {
    waits_for_the_server(Server::QemuNbd, false)
}

#[test]
fn nbdkit_comes_back() -> Result<()> {
    waits_for_the_server(Server::Nbdkit, false)
}

#[test]
fn qemu_nbd_comes_back_and_we_are_killed() -> Result<()> {
    waits_for_the_server(Server::QemuNbd, true)
}

/// A write that fails may have reached the disk, or part of it: it stays marked.
#[test]
fn a_write_that_fails_while_the_server_is_away() -> Result<()> {
    let bench = Bench::new()?;
    let (mut server, image, mut daemon) = opened(&bench, Server::QemuNbd, 0)?;
    let mut client = daemon.export()?;
    client.write(0, &[1; 512])?;
    server.kill()?;
    for (number, verb) in ["write", "zeroes", "trim"].into_iter().enumerate() {
        let offset = (number as u64 + 1) * MIB;
        let result = match verb {
            "write" => client.write(offset, &[2; 512]),
            "zeroes" => client.write_zeroes(offset, 512),
            _ => client.trim(offset, 4096),
        };
        require_io_error(result).context(verb)?;
    }
    let marked = [0, 16, 32, 48];
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?,
        marked.len() as u64 * 64 * KIB
    );
    bitmaps::require_covered(&bench, "b0", &marked)?;

    // It comes back, and what failed is still to be backed up.
    server.restart(&bench)?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.write(4 * MIB, &[3; 512]) {
        ensure!(Instant::now() < deadline, "the server is back: {error:#}");
        sleep(Duration::from_millis(20));
    }
    drop(client);
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), [0, 16, 32, 48, 64]);
    let mut daemon = image.open(&bench)?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit().map(drop)
}

/// We are closed, or killed, while the server is away: the bitmaps are not its concern.
#[test]
fn closed_while_the_server_is_away() -> Result<()> {
    for kill in [false, true] {
        let bench = Bench::new()?;
        let (mut server, image, mut daemon) = opened(&bench, Server::QemuNbd, 0)?;
        let mut client = daemon.export()?;
        client.write(0, &[1; 512])?;
        server.kill()?;
        require_io_error(client.write(MIB, &[2; 512]))?;
        drop(client);
        if kill {
            daemon.kill()?;
        } else {
            daemon.quit()?;
        }
        server.restart(&bench)?;
        let mut daemon = image.open(&bench)?;
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        daemon.quit()?;
        let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
        assert_eq!(bitmap.granules(), [0, 16]);
    }
    Ok(())
}
