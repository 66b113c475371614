// SPDX-License-Identifier: MIT OR Apache-2.0
//! blockdev-mirror from and to qbm images while guests write: the copy is the disk, and the
//! bitmaps of both lack nothing.

use std::fs;

use anyhow::{Context, Result};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, Writers, backup, jobs};
use serde_json::{Value, json};

const DISK_BYTES: usize = 6 << 20;
const REQUESTS: u64 = 100;

/// Makes an image of the format given that holds `content`, with a bitmap that counts from
/// then on where the format has bitmaps. A raw copy stays in `NAME.before`.
fn image(bench: &Bench, name: &str, format: &str, content: &[u8]) -> Result<()> {
    let before = format!("{name}.before");
    bench.write(&before, content)?;
    bench.img(["convert", "-f", "raw", "-O", format, &before, name])?;
    if format != "raw" {
        bench.img(["bitmap", "--add", "-g", "4k", "-f", format, name, "b0"])?;
    }
    Ok(())
}

/// Requires that a qbm image's bitmap marks whatever is not as it was.
fn require_marked(bench: &Bench, name: &str) -> Result<()> {
    let descriptor = bench.descriptor(name)?;
    let before = bench.path(&format!("{name}.before"));
    let verdict = judge(&before, &descriptor.data_file()?, &descriptor.bitmap("b0")?)?;
    assert!(verdict.changed_count > 0, "{name}: nothing happened");
    verdict.require_complete().with_context(|| name.to_owned())
}

/// What the disk holds at first: data here, zeroes there.
fn first_content() -> Vec<u8> {
    let mut content = vec![0; DISK_BYTES];
    content[..DISK_BYTES / 4].fill(1);
    content[DISK_BYTES / 2..DISK_BYTES * 3 / 4].fill(2);
    content
}

/// Mirrors `source` to `target`, both of them given by their format, under load.
fn mirror(source: &str, target: &str, job: &Value, pivot: bool) -> Result<()> {
    let bench = Bench::new()?;
    let content = first_content();
    image(&bench, "source", source, &content)?;
    // What the job does not copy must be there already, and what it copies must not.
    let copied = job["sync"] != "none";
    let there = if copied {
        vec![0xee; DISK_BYTES]
    } else {
        content.clone()
    };
    image(&bench, "target", target, &there)?;

    let mut daemon = StorageDaemon::start(&bench)?;
    backup::open_target(&mut daemon.qmp, "disk", source, "source")?;
    backup::open_target(&mut daemon.qmp, "target", target, "target")?;
    daemon.export()?;
    let mut writers = None;
    if copied {
        let early = Writers::start(daemon.nbd_socket(), &content, 1)?;
        early.wait_for_more(REQUESTS)?;
        writers = Some(early);
    }
    jobs::start(&mut daemon.qmp, "blockdev-mirror", job)?;
    let writers = match writers {
        Some(early) => early,
        None => Writers::start(daemon.nbd_socket(), &content, 2)?,
    };
    jobs::wait_ready(&mut daemon.qmp)?;
    writers.wait_for_more(REQUESTS)?;
    let content = if pivot {
        jobs::complete(&mut daemon.qmp)?;
        writers.wait_for_more(REQUESTS)?;
        writers.stop()?
    } else {
        let content = writers.stop()?;
        jobs::leave(&mut daemon.qmp)?;
        content
    };
    daemon.quit()?;

    let mut same = vec![("target", target)];
    if !pivot {
        same.push(("source", source));
    }
    for (name, format) in same {
        bench.img(["convert", "-f", format, "-O", "raw", name, "found"])?;
        content.require(&bench.path("found")).context(name)?;
    }
    for (name, format) in [("source", source), ("target", target)] {
        if format == "qbm" {
            require_marked(&bench, name)?;
            assert_eq!(bench.descriptor(name)?.session(), None);
        }
    }
    Ok(())
}

fn every_mode(source: &str, target: &str) -> Result<()> {
    for sync in ["full", "top", "none"] {
        for copy_mode in ["background", "write-blocking"] {
            for pivot in [false, true] {
                let job = json!({
                    "device": "disk", "target": "target", "sync": sync, "copy-mode": copy_mode,
                });
                mirror(source, target, &job, pivot)
                    .with_context(|| format!("{job}, pivot {pivot}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn from_qbm_to_qbm() -> Result<()> {
    every_mode("qbm", "qbm")
}

#[test]
fn from_qbm_to_qcow2() -> Result<()> {
    every_mode("qbm", "qcow2")
}

#[test]
fn from_raw_to_qbm() -> Result<()> {
    every_mode("raw", "qbm")
}

/// What was never written stays a hole in a target that is new, and is made one in a target
/// that holds something.
#[test]
fn zeroes_stay_holes() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("source", "64M", "64k")?;
    bench.io("source", &["write -P 1 1M 1M"])?;
    bench.img("create -q -f qbm new.qbm 64M")?;
    bench.img("create -q -f raw -o preallocation=full old.raw 64M")?;
    bench.img("create -q -f qbm -o data_file=old.raw old.qbm")?;
    for target in ["new.qbm", "old.qbm"] {
        let mut daemon = StorageDaemon::start(&bench)?;
        backup::open_target(&mut daemon.qmp, "disk", "qbm", "source")?;
        let options = json!({
            "driver": "qbm", "node-name": "target", "discard": "unmap", "detect-zeroes": "unmap",
            "file": { "driver": "file", "filename": target },
        });
        daemon.qmp.execute("blockdev-add", options)?;
        let job = json!({ "device": "disk", "target": "target", "sync": "full" });
        jobs::run(&mut daemon.qmp, "blockdev-mirror", &job)?;
        daemon.quit()?;
        bench.img(["compare", "-f", "qbm", "-F", "qbm", "source", target])?;
        let used_bytes = allocated_bytes(&bench, target)?;
        assert!(used_bytes <= 2 << 20, "{target}: {used_bytes} bytes");
    }
    Ok(())
}

fn allocated_bytes(bench: &Bench, image: &str) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let data = bench.descriptor(image)?.data_file()?;
    Ok(fs::metadata(data)?.blocks() * 512)
}
