// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files and block devices of this machine.

use std::fs;

use anyhow::{Context, Result, ensure};
use qbm_testkit::{Bench, LoopDevice, StorageDaemon, backup};
use serde_json::json;

use crate::common::{
    DISK_BYTES, DataImage, KIB, MIB, is_inconsistent, keeps_bitmaps, require_dirty_from,
    with_one_granule,
};

const END: u64 = DISK_BYTES / (64 * KIB);

fn image_of(format: &str, file: &str) -> DataImage {
    DataImage {
        for_qemu_img: ["-f", format, file].map(str::to_owned).to_vec(),
        ..DataImage::default()
    }
}

fn raw(bench: &Bench) -> Result<DataImage> {
    bench.sparse("disk.raw", DISK_BYTES, &[(0, b"before QBM")])?;
    bench.img("create -q -f qbm -o data_file=disk.raw disk.qbm")?;
    Ok(image_of("raw", "disk.raw"))
}

#[test]
fn raw_file() -> Result<()> {
    let bench = Bench::new()?;
    let image = raw(&bench)?;
    keeps_bitmaps(&bench, &image)?;
    assert_eq!(&bench.read("disk.raw")?[..10], b"before QBM");
    Ok(())
}

#[test]
fn raw_file_written_behind_us() -> Result<()> {
    let bench = Bench::new()?;
    let image = raw(&bench)?;
    with_one_granule(&bench, &image)?;
    ensure!(!is_inconsistent(&bench, &image)?, "too early");
    bench.io_as("raw", "disk.raw", &["write -P 9 5M 64k"])?;
    ensure!(is_inconsistent(&bench, &image)?, "not noticed");
    Ok(())
}

/// Another file of the same size under the same name, and then the old one again.
#[test]
fn raw_file_swapped_behind_us() -> Result<()> {
    let bench = Bench::new()?;
    let image = raw(&bench)?;
    with_one_granule(&bench, &image)?;
    fs::rename(bench.path("disk.raw"), bench.path("mine.raw"))?;
    bench.sparse("disk.raw", DISK_BYTES, &[(0, b"another disk")])?;
    // Opened without a guest that could write, nothing is lost for good.
    let mut daemon =
        StorageDaemon::with_image_options(&bench, "disk.qbm", &json!({ "read-only": true }))?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.unwrap_or_default();
    assert_eq!(bitmap["inconsistent"], true, "{bitmap}");
    daemon.quit()?;
    fs::rename(bench.path("mine.raw"), bench.path("disk.raw"))?;
    ensure!(!is_inconsistent(&bench, &image)?, "it is the old one");
    fs::rename(bench.path("disk.raw"), bench.path("mine.raw"))?;
    bench.sparse("disk.raw", DISK_BYTES, &[])?;
    ensure!(is_inconsistent(&bench, &image)?, "not noticed");
    Ok(())
}

fn device(bench: &Bench) -> Result<Option<(LoopDevice, DataImage)>> {
    bench.sparse("backing.raw", DISK_BYTES, &[])?;
    let Some(device) = LoopDevice::attach(bench, "backing.raw")? else {
        return Ok(None);
    };
    let path = device.path().to_str().context("a name")?.to_owned();
    bench.img(&format!("create -q -f qbm -o data_file={path} disk.qbm"))?;
    assert_eq!(bench.descriptor("disk.qbm")?.qbm()["image"]["file"], path);
    let image = image_of("host_device", &path);
    Ok(Some((device, image)))
}

#[test]
fn block_device() -> Result<()> {
    let bench = Bench::new()?;
    match device(&bench)? {
        Some((_device, image)) => keeps_bitmaps(&bench, &image),
        None => Ok(()),
    }
}

/// The same, its node given by the user.
#[test]
fn block_device_as_a_node() -> Result<()> {
    let bench = Bench::new()?;
    let Some((device, mut image)) = device(&bench)? else {
        return Ok(());
    };
    image.node = Some(json!({ "driver": "host_device", "filename": device.path() }));
    keeps_bitmaps(&bench, &image)
}

/// Of a block device only the size can be compared.
#[test]
fn block_device_changed_behind_us() -> Result<()> {
    let bench = Bench::new()?;
    let Some((device, image)) = device(&bench)? else {
        return Ok(());
    };
    let path = device.path().to_str().context("a name")?;
    with_one_granule(&bench, &image)?;
    bench.io_as("host_device", path, &["write -P 9 5M 64k"])?;
    ensure!(!is_inconsistent(&bench, &image)?, "it can be noticed");

    let backing = fs::File::options()
        .write(true)
        .open(bench.path("backing.raw"))?;
    backing.set_len(DISK_BYTES + MIB)?;
    if !device.follow_size()? {
        return Ok(());
    }
    require_dirty_from(&bench, &image, END, END + 16)?;
    backing.set_len(DISK_BYTES)?;
    ensure!(device.follow_size()?, "it was permitted before");
    ensure!(is_inconsistent(&bench, &image)?, "it shrank unnoticed");
    Ok(())
}

fn qcow2(bench: &Bench) -> Result<DataImage> {
    bench.img(&format!("create -q -f qcow2 disk.qcow2 {DISK_BYTES}"))?;
    bench.io_as("qcow2", "disk.qcow2", &["write -P 7 8M 64k"])?;
    bench.img("create -q -f qbm -o data_file=disk.qcow2,data_file_format=qcow2 disk.qbm")?;
    Ok(image_of("qcow2", "disk.qcow2"))
}

#[test]
fn qcow2_image() -> Result<()> {
    let bench = Bench::new()?;
    let image = qcow2(&bench)?;
    bench.io("disk.qbm", &["read -P 7 8M 64k"])?;
    keeps_bitmaps(&bench, &image)?;
    // QBM's bitmaps are not its own.
    let info = bench.info("disk.qcow2")?;
    assert!(
        info["format-specific"]["data"]["bitmaps"].is_null(),
        "{info}"
    );
    Ok(())
}

/// Of a format other than raw only the size that a guest sees can be compared.
#[test]
fn qcow2_image_changed_behind_us() -> Result<()> {
    let bench = Bench::new()?;
    let image = qcow2(&bench)?;
    with_one_granule(&bench, &image)?;
    bench.io_as("qcow2", "disk.qcow2", &["write -P 9 5M 64k"])?;
    ensure!(!is_inconsistent(&bench, &image)?, "it can be noticed");
    bench.img("resize -q disk.qcow2 +1M")?;
    require_dirty_from(&bench, &image, END, END + 16)?;
    bench.img("resize -q --shrink disk.qcow2 -1M")?;
    ensure!(is_inconsistent(&bench, &image)?, "it shrank unnoticed");
    Ok(())
}

/// An image with bitmaps, over one that has bitmaps of its own.
#[test]
fn bitmaps_of_the_data_image_are_left_alone() -> Result<()> {
    let bench = Bench::new()?;
    let image = qcow2(&bench)?;
    bench.img("bitmap --add -f qcow2 disk.qcow2 inner")?;
    keeps_bitmaps(&bench, &image)?;
    let info = bench.info("disk.qcow2")?;
    assert_eq!(
        info["format-specific"]["data"]["bitmaps"][0]["name"],
        "inner"
    );
    Ok(())
}
