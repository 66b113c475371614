// SPDX-License-Identifier: MIT OR Apache-2.0
//! Full and incremental backups over QMP, across a clean stop.

use anyhow::Result;
use qbm_testkit::{Bench, StorageDaemon, backup, faults};

const KIB: u64 = 1024;

#[test]
fn a_chain_of_backups_is_the_disk() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.io("disk.qbm", &["write -P 1 0 8M"])?;
    bench.img("create -q -f qcow2 full.qcow2 64M")?;
    bench.img("create -q -f qcow2 -b full.qcow2 -F qcow2 inc1.qcow2")?;
    bench.img("create -q -f qcow2 -b inc1.qcow2 -F qcow2 inc2.qcow2")?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "target", "qcow2", "full.qcow2")?;
    backup::full(&mut daemon.qmp, "daily", 64 * KIB, "target")?;
    backup::close_target(&mut daemon.qmp, "target")?;
    let mut client = daemon.export()?;
    client.write(MIB, &[2; 4096])?;
    client.write_zeroes(2 * MIB, 128 * 1024)?;
    assert_eq!(increment(&mut daemon, "inc1.qcow2")?, 3 * 64 * KIB);
    client.trim(4 * MIB, 64 * 1024)?;
    drop(client);
    daemon.quit()?;
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("daily")?.granules(),
        [64]
    );

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "daily")?,
        64 * KIB
    );
    daemon.export()?.write(63 * MIB, &[3; 100])?;
    assert_eq!(increment(&mut daemon, "inc2.qcow2")?, 2 * 64 * KIB);
    daemon.quit()?;
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("daily")?.set_count(),
        0
    );
    bench.img("compare -f qbm -F qcow2 disk.qbm inc2.qcow2")?;
    Ok(())
}

const MIB: u64 = 1 << 20;

fn increment(daemon: &mut StorageDaemon, file: &str) -> Result<u64> {
    backup::open_target(&mut daemon.qmp, "target", "qcow2", file)?;
    let copied_bytes = backup::incremental(&mut daemon.qmp, "daily", "target")?;
    backup::close_target(&mut daemon.qmp, "target")?;
    Ok(copied_bytes)
}

/// A transaction that fails leaves no bitmap, neither in memory nor on disk.
#[test]
fn an_aborted_transaction_leaves_no_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let actions = [
        backup::add_action("daily", 65536),
        backup::full_backup_action("no-such-node"),
    ];
    let refusal = daemon
        .qmp
        .refuses("transaction", serde_json::json!({ "actions": actions }))?;
    assert!(refusal.contains("no-such-node"), "{refusal}");

    assert_eq!(backup::query_bitmap(&mut daemon.qmp, "daily")?, None);
    daemon.quit()?;
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    Ok(())
}

/// A backup that fails keeps what it would have copied.
#[test]
fn a_failed_backup_keeps_its_bits() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 1M"])?;
    bench.sparse("target.raw", 64 << 20, &[])?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    faults::open_failing_target(&mut daemon.qmp, "target", "target.raw")?;
    let failure = backup::incremental(&mut daemon.qmp, "b0", "target").expect_err("it wrote");
    assert!(
        failure.to_string().contains("Input/output error"),
        "{failure:#}"
    );
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(backup::require_good_bitmap(&mut daemon.qmp, "b0")?, MIB);
    Ok(())
}
