// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that writes all the time is moved while it does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qbm_testkit::life::{blockdev, found, image};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Guest, GuestFiles, Machine, PATIENCE, migration, oracle};
use serde_json::json;

/// What the guest is, for the side that does not boot it.
fn same_machine() -> Result<String> {
    let files = GuestFiles::from_env()?;
    Ok(format!(
        " -machine pc -accel tcg -cpu max -m 256 -vga none -no-reboot -serial null \
         -L {} -kernel {} -initrd {} -incoming defer",
        files.firmware().display(),
        files.kernel().display(),
        files.initramfs().display(),
    ))
}

/// Waits until the guest, which cannot be asked here, has written so many times more.
fn wait_for_writes(qmp: &mut Qmp, count: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let stats = qmp.execute("query-blockstats", json!({}))?;
        let written = stats[0]["stats"]["wr_operations"].as_u64();
        let written = written.with_context(|| format!("no count: {stats}"))?;
        if written >= *first.get_or_insert(written) + count {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the guest does not write");
        sleep(Duration::from_millis(20));
    }
}

fn moved(capabilities: &[&str], kill: bool) -> Result<()> {
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let disk = blockdev("qbm", "disk") + " -device virtio-blk-pci,drive=disk";
    let mut source = Guest::boot(&bench, &disk)?;
    bench.sparse("before", 64 << 20, &[])?;
    source.start_writing("vda")?;

    let mut destination = Machine::start(&bench, &(disk + &same_machine()?))?;
    for qmp in [&mut source.qmp, &mut destination.qmp] {
        migration::enable(qmp, capabilities)?;
    }
    migration::listen(&mut destination.qmp, &bench)?;
    let uri = json!({ "uri": migration::address(&bench) });
    source.qmp.execute("migrate", uri)?;
    migration::wait_for(&mut source.qmp, "completed")?;
    migration::wait_for(&mut destination.qmp, "completed")?;
    source.kill()?;
    wait_for_writes(&mut destination.qmp, 20)?;
    if kill {
        destination.kill()?;
    } else {
        destination.quit()?;
    }

    let bitmap = bench.descriptor("disk")?.bitmap("b0")?;
    let verdict = oracle::judge(&bench.path("before"), &bench.path("disk.raw"), &bitmap)?;
    verdict.require_complete()?;
    assert!(verdict.changed_count > 20, "{verdict:?}");
    let stored = found(&bench, "qbm", "disk")?;
    assert!(
        stored[0].recording && stored[0].dirty_bytes.is_some(),
        "{stored:?}"
    );
    Ok(())
}

#[test]
fn the_image_is_shared() -> Result<()> {
    moved(&[], false)
}

#[test]
fn the_stream_carries_its_bitmap() -> Result<()> {
    moved(&["dirty-bitmaps"], false)
}

#[test]
fn killed_after_the_move() -> Result<()> {
    moved(&[], true)
}
