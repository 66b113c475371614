// SPDX-License-Identifier: MIT OR Apache-2.0
//! `-o data_file=`: an image that exists is adopted, and not a byte of it written.

use std::fs;

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot};

#[test]
fn a_raw_image_stays_as_it_is() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse(
        "disk.raw",
        64 << 20,
        &[(1 << 20, b"data"), ((64 << 20) - 4, b"tail")],
    )?;
    let before = Snapshot::of(bench.directory())?;
    bench.img("create -q -f qbm -o data_file=disk.raw disk.qbm")?;

    before.require_kept()?;
    assert_eq!(before.added()?, ["disk.qbm"]);
    assert_eq!(bench.info("disk.qbm")?["virtual-size"], 64 << 20);
    bench.img("compare -f qbm -F raw disk.qbm disk.raw")?;
    // Looking at it, adding and removing a bitmap, checking: none of it is a write.
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    bench.img("bitmap --remove -f qbm disk.qbm b0")?;
    before.require_kept()
}

#[test]
fn a_qcow2_image_is_used_through_its_driver() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qcow2 data.qcow2 64M")?;
    bench.io_as("qcow2", "data.qcow2", &["write -P 5 1M 64k"])?;
    let before = Snapshot::of(bench.directory())?;
    bench.img("create -q -f qbm -o data_file=data.qcow2,data_file_format=qcow2 disk.qbm")?;
    before.require_kept()?;

    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    bench.io("disk.qbm", &["read -P 5 1M 64k", "write -P 6 2M 64k"])?;
    bench.io_as(
        "qcow2",
        "data.qcow2",
        &["read -P 5 1M 64k", "read -P 6 2M 64k"],
    )?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [32]);
    let info = bench.info("disk.qbm")?;
    assert_eq!(
        info.get("backing-filename"),
        None,
        "the data image shows as a backing file"
    );
    Ok(())
}

/// A qcow2 image taken for raw would hand its tables to the guest as its disk.
#[test]
fn what_is_not_raw_must_be_named() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qcow2 data.qcow2 64M")?;
    let before = Snapshot::of(bench.directory())?;
    let refusal = bench.img_refuses("create -q -f qbm -o data_file=data.qcow2 disk.qbm")?;

    assert!(refusal.stderr.contains("data.qcow2"), "{refusal}");
    assert!(refusal.stderr.contains("data_file_format"), "{refusal}");
    before.require_untouched()
}

/// QEMU shows a raw file of such a size rounded up to whole sectors.
#[test]
fn a_raw_image_of_an_odd_size_is_adopted() -> Result<()> {
    const SIZE_BYTES: u64 = 1_000_003;
    let bench = Bench::new()?;
    bench.sparse("odd.raw", SIZE_BYTES, &[(SIZE_BYTES - 3, b"end")])?;
    let before = Snapshot::of(bench.directory())?;
    bench.img("create -q -f qbm -o data_file=odd.raw odd.qbm")?;
    bench.img("bitmap --add -f qbm -g 4096 odd.qbm b0")?;
    before.require_kept()?;

    let rounded_bytes = SIZE_BYTES.next_multiple_of(512);
    assert_eq!(bench.info("odd.qbm")?["virtual-size"], rounded_bytes);
    let last_sector = format!("write -P 9 {} 512", rounded_bytes - 512);
    bench.io("odd.qbm", &[&last_sector])?;
    let bitmap = bench.descriptor("odd.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), [SIZE_BYTES / 4096]);
    Ok(())
}

#[test]
fn a_relative_name_is_relative_to_the_descriptor() -> Result<()> {
    let bench = Bench::new()?;
    fs::create_dir_all(bench.path("images/data"))?;
    bench.sparse("images/data/disk.raw", 1 << 20, &[(0, b"here")])?;
    bench.img("create -q -f qbm -o data_file=data/disk.raw images/disk.qbm")?;

    assert_eq!(
        bench.descriptor("images/disk.qbm")?.qbm()["image"]["file"],
        "data/disk.raw"
    );
    bench.img("compare -f qbm -F raw images/disk.qbm images/data/disk.raw")?;
    Ok(())
}
