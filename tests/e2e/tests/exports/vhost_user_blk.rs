// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk of a guest in another process, which reads and writes it through shared
//! memory.

use anyhow::{Result, ensure};
use qbm_testkit::{Bench, Guest, StorageDaemon, backup};
use serde_json::json;

use crate::require_recovered;

const KIB: u64 = 1024;
const DISK_BYTES: u64 = 24 << 20;

/// The daemon with `disk.qbm` and a bitmap, and a guest whose disk it is.
fn booted(bench: &Bench, queues_count: u32) -> Result<(StorageDaemon, Guest)> {
    bench.image_with_bitmap("disk.qbm", "24M", "64k")?;
    let mut daemon = StorageDaemon::start(bench)?;
    let io0 = json!({ "qom-type": "iothread", "id": "io0" });
    daemon.qmp.execute("object-add", io0)?;
    daemon.add_image("disk.qbm", &json!({}))?;
    let export = json!({
        "type": "vhost-user-blk", "id": "export", "node-name": "disk", "writable": true,
        "addr": { "type": "unix", "path": bench.path("vhost") },
        "num-queues": queues_count, "iothread": "io0",
    });
    daemon.qmp.execute("block-export-add", export)?;
    let args = format!(
        "-smp {queues_count} -object memory-backend-memfd,id=memory,size=256M,share=on \
         -machine memory-backend=memory -chardev socket,id=vhost,path=vhost \
         -device vhost-user-blk-pci,chardev=vhost,num-queues={queues_count}"
    );
    let guest = Guest::boot(bench, &args)?;
    Ok((daemon, guest))
}

#[test]
fn what_the_guest_writes_is_marked() -> Result<()> {
    let bench = Bench::new()?;
    let (mut daemon, mut guest) = booted(&bench, 1)?;
    let write = |seek: u64| {
        format!("dd if=/dev/urandom of=/dev/vda bs=64k count=1 seek={seek} conv=notrunc,fsync")
    };
    for granule in [3, 16, 383] {
        guest.run(&write(granule))?;
    }
    guest.run("blkdiscard -o 4194304 -l 65536 /dev/vda")?;
    let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    assert_eq!(count, 4 * 64 * KIB);
    guest.power_off()?;
    daemon.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    ensure!(descriptor.session().is_none(), "still in use");
    assert_eq!(descriptor.bitmap("b0")?.granules(), [3, 16, 64, 383]);
    Ok(())
}

/// The daemon dies while the guest writes to several queues.
#[test]
fn killed_under_a_guest() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("before.raw", DISK_BYTES, &[])?;
    let (daemon, mut guest) = booted(&bench, 2)?;
    guest.start_writing("vda")?;
    guest.wait_for_more_written(40)?;
    daemon.kill()?;
    guest.kill()?;

    require_recovered(&bench)
}
