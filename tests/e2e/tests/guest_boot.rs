// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real Linux guest on a qbm disk, given by `-drive` and by `-blockdev`.

use anyhow::Result;
use qbm_testkit::{Bench, Guest, backup};

/// Boots, writes a file, shuts down; then finds it in the raw file, and marked.
fn boots_and_writes(disk_args: &str) -> Result<()> {
    let bench = Bench::new()?;
    bench.host("truncate", "-s 64M disk.raw")?;
    bench.host("mkfs.ext4", "-q disk.raw")?;
    bench.img("create -q -f qbm -o data_file=disk.raw disk.qbm")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;

    let mut guest = Guest::boot(&bench, disk_args)?;
    assert_eq!(backup::require_good_bitmap(&mut guest.qmp, "b0")?, 0);
    guest.run("mount -t ext4 /dev/vda /mnt")?;
    guest.run("echo written by the guest >/mnt/file")?;
    assert_eq!(guest.power_off()?, "");

    let file = bench.host("debugfs", ["-R", "cat /file", "disk.raw"])?;
    assert_eq!(file.stdout, "written by the guest\n");
    bench.host("e2fsck", "-fn disk.raw")?;
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.session(), None);
    assert!(descriptor.bitmap("b0")?.set_count() > 0);
    Ok(())
}

#[test]
fn by_drive() -> Result<()> {
    boots_and_writes("-drive driver=qbm,file=disk.qbm,node-name=disk,if=virtio")
}

#[test]
fn by_blockdev() -> Result<()> {
    boots_and_writes(
        "-blockdev driver=file,node-name=descriptor,filename=disk.qbm \
         -blockdev driver=qbm,node-name=disk,file=descriptor \
         -device virtio-blk-pci,drive=disk",
    )
}
