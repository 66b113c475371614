// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data image that has a backing file of its own: whoever copies the disk copies what is in
//! either of them. Once, what only the backing file had counted as unallocated, and a mirror
//! left it out.

use anyhow::{Context, Result};
use qbm_testkit::{Bench, StorageDaemon, backup, jobs};
use serde_json::{Value, json};

/// A disk with data in the image, data in its backing file, and zeroes over data.
fn image() -> Result<Bench> {
    let bench = Bench::new()?;
    bench.img("create -q -f raw base.raw 4M")?;
    bench.io_as(
        "raw",
        "base.raw",
        &["write -P 5 0 128k", "write -P 5 2M 128k"],
    )?;
    bench.img("create -q -f qcow2 -b base.raw -F raw data.qcow2")?;
    bench.img("create -q -f qbm -o data_file=data.qcow2,data_file_format=qcow2 disk.qbm")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k", "write -z 2M 64k"])?;
    Ok(bench)
}

#[test]
fn jobs_copy_all_of_it() -> Result<()> {
    for (command, job) in [
        ("blockdev-mirror", json!({ "sync": "full" })),
        ("blockdev-mirror", json!({ "sync": "top" })),
        ("blockdev-backup", json!({ "sync": "full" })),
        ("blockdev-backup", json!({ "sync": "top" })),
    ] {
        let bench = image()?;
        bench.img("create -q -f qcow2 copy.qcow2 4M")?;
        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        backup::open_target(&mut daemon.qmp, "target", "qcow2", "copy.qcow2")?;
        let mut job = job;
        job["device"] = json!("disk");
        job["target"] = json!("target");
        jobs::run(&mut daemon.qmp, command, &job)?;
        daemon.quit()?;
        bench
            .img("compare -f qbm -F qcow2 disk.qbm copy.qcow2")
            .with_context(|| format!("{command} {job}"))?;
        bench.io_as(
            "qcow2",
            "copy.qcow2",
            &["read -P 5 0 128k", "read -P 0 2M 64k"],
        )?;
    }
    Ok(())
}

#[test]
fn an_overlay_is_streamed_whole() -> Result<()> {
    let bench = image()?;
    bench.img("create -q -f qcow2 -b disk.qbm -F qbm top.qcow2")?;
    let mut daemon = StorageDaemon::start(&bench)?;
    backup::open_target(&mut daemon.qmp, "top", "qcow2", "top.qcow2")?;
    jobs::run(&mut daemon.qmp, "block-stream", &json!({ "device": "top" }))?;
    daemon.quit()?;
    assert_eq!(bench.info("top.qcow2")?.get("backing-filename"), None);
    bench.img("compare -f qbm -F qcow2 disk.qbm top.qcow2")?;
    bench.io_as("qcow2", "top.qcow2", &["read -P 5 0 128k"])?;
    Ok(())
}

#[test]
fn qemu_img_copies_all_of_it() -> Result<()> {
    let bench = image()?;
    bench.img("convert -f qbm -O raw disk.qbm copy.raw")?;
    bench.img("convert -f qbm -O qcow2 disk.qbm copy.qcow2")?;
    bench.img("dd -f qbm -O raw if=disk.qbm of=dd.raw bs=64k")?;
    for (format, name) in [
        ("raw", "copy.raw"),
        ("qcow2", "copy.qcow2"),
        ("raw", "dd.raw"),
    ] {
        bench.img(["compare", "-f", "qbm", "-F", format, "disk.qbm", name])?;
        bench.io_as(
            format,
            name,
            &["read -P 5 0 128k", "read -P 1 1M 64k", "read -P 0 2M 64k"],
        )?;
    }
    Ok(())
}

/// `map` tells where the data is, in whichever file.
#[test]
fn map_shows_both_files() -> Result<()> {
    let bench = image()?;
    let map = |args: &str| -> Result<Value> {
        let printed = bench.img(&format!("map --output=json {args}"))?.stdout;
        Ok(serde_json::from_str(&printed)?)
    };
    let extents = |list: &Value| -> Vec<Value> {
        let keys = ["start", "length", "zero", "data", "offset"];
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|extent| keys.iter().map(|&key| extent[key].clone()).collect())
            .collect()
    };
    let (ours, theirs) = (map("-f qbm disk.qbm")?, map("-f qcow2 data.qcow2")?);
    assert_eq!(extents(&ours), extents(&theirs), "{ours}\n{theirs}");
    let present = ours.as_array().into_iter().flatten();
    assert!(present.clone().count() > 3);
    assert!(
        present.into_iter().all(|extent| extent["present"] == true),
        "{ours}"
    );
    Ok(())
}
