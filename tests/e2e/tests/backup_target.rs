// SPDX-License-Identifier: MIT OR Apache-2.0
//! blockdev-backup into a qbm image that has bitmaps of its own: they mark what the job writes.

use std::fs;

use anyhow::{Context, Result, ensure};
use qbm_testkit::oracle::{judge, require_same};
use qbm_testkit::{Bench, Random, StorageDaemon, Writers, backup, jobs};
use serde_json::json;

const DISK_BYTES: usize = 6 << 20;
const GRANULE: u64 = 65536;

/// A full backup, and an incremental one: exactly what was copied is marked.
#[test]
fn the_targets_bitmaps_mark_what_is_copied() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 6M")?;
    bench.image_with_bitmap("target.qbm", "6M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 1M 128k"])?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "target", "qbm", "target.qbm")?;
    backup::full(&mut daemon.qmp, "daily", GRANULE, "target")?;
    let full = bench.descriptor("target.qbm")?.bitmap("b0")?;
    assert!(full.is_set(16) && full.is_set(17));

    let clear = json!({ "node": "target", "name": "b0" });
    daemon.qmp.execute("block-dirty-bitmap-clear", clear)?;
    let mut guest = daemon.export()?;
    guest.write(5 * GRANULE, &[2; 4096])?;
    guest.write_zeroes(17 * GRANULE, 65536)?;
    drop(guest);
    backup::incremental(&mut daemon.qmp, "daily", "target")?;
    backup::close_target(&mut daemon.qmp, "target")?;
    let target = bench.descriptor("target.qbm")?;
    assert_eq!(target.session(), None);
    assert_eq!(target.bitmap("b0")?.granules(), [5, 17]);
    daemon.quit()?;
    require_same(&bench.path("disk.qbm.raw"), &bench.path("target.qbm.raw"))
}

/// Backups under load that are killed: the target's bitmap marks whatever was written to it,
/// the source's whatever is not.
#[test]
fn killed() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", &DISK_BYTES.to_string(), "64k")?;
    bench.image_with_bitmap("target.qbm", &DISK_BYTES.to_string(), "4k")?;
    let mut random = Random::new(40);
    let mut content = vec![0; DISK_BYTES];
    let mut copied_count = 0;
    for round in 0..6 {
        let target = bench.descriptor("target.qbm")?.data_file()?;
        fs::copy(&target, bench.path("before"))?;
        bench.img("bitmap --clear -f qbm target.qbm b0")?;
        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        backup::open_target(&mut daemon.qmp, "target", "qbm", "target.qbm")?;
        daemon.export()?;
        let writers = Writers::start(daemon.nbd_socket(), &content, random.draw())?;
        writers.wait_for_more(40)?;
        let job = json!({
            "device": "disk", "target": "target", "sync": "incremental", "bitmap": "b0",
            "speed": if round % 2 == 0 { 1 << 20 } else { 0 },
        });
        jobs::start(&mut daemon.qmp, "blockdev-backup", &job)?;
        writers.wait_for_more(random.between(1, 60))?;
        daemon.kill()?;
        let written = writers.join()?;

        let disk = bench.descriptor("disk.qbm")?;
        written.require(&fs::canonicalize(disk.data_file()?)?)?;
        content = fs::read(disk.data_file()?)?;
        let bits = bench.descriptor("target.qbm")?.bitmap("b0")?;
        let verdict = judge(&bench.path("before"), &target, &bits)?;
        verdict
            .require_complete()
            .with_context(|| format!("round {round}: the target's bitmap"))?;
        copied_count += verdict.changed_count;
        judge(&target, &disk.data_file()?, &disk.bitmap("b0")?)?
            .require_complete()
            .with_context(|| format!("round {round}: the source's bitmap"))?;
    }
    ensure!(copied_count > 0, "every job was killed before it copied");
    Ok(())
}

/// What the target cannot do is refused before anything is written.
#[test]
fn what_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 6M")?;
    bench.image_with_bitmap("target.qbm", "6M", "64k")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "target", "qbm", "target.qbm")?;
    let job = json!({ "device": "disk", "target": "target", "sync": "full", "compress": true });
    let said = jobs::start_refused(&mut daemon.qmp, "blockdev-backup", &job)?;
    assert!(said.contains("Compression is not supported"), "{said}");
    let filter = json!({ "driver": "compress", "node-name": "filter", "file": "target" });
    let said = daemon.qmp.refuses("blockdev-add", filter)?;
    assert!(said.contains("Compression is not supported"), "{said}");
    let lent = json!({
        "device": "target", "target": "disk", "sync": "incremental", "bitmap": "none",
    });
    let said = jobs::start_refused(&mut daemon.qmp, "blockdev-backup", &lent)?;
    assert!(said.contains("'none' could not be found"), "{said}");
    daemon.quit()?;
    assert_eq!(bench.descriptor("target.qbm")?.bitmap("b0")?.set_count(), 0);
    Ok(())
}
