// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img info` of a descriptor made by a stranger: it opens nothing else, writes
//! nothing and comes to its end.  What does open the data image refuses to wait.

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot};
use serde_json::json;

/// A descriptor that names `file`, of a recorded size unless it is 0.
fn descriptor(bench: &Bench, file: &str, format: &str, size_bytes: u64) -> Result<()> {
    let mut qbm = json!({ "version": 1, "image": { "file": file, "format": format } });
    if size_bytes > 0 {
        qbm["ext-soft-qbm-seal"] = json!({ "generation": 0, "size-bytes": size_bytes });
    }
    bench.write("disk.qbm", json!({ "QBM": qbm }).to_string())
}

/// A pipe that nobody fills: whoever opened it would wait for ever.
#[test]
fn info_opens_nothing_but_the_descriptor() -> Result<()> {
    let bench = Bench::new()?;
    bench.host("mkfifo", "pipe")?;
    bench.host("ln", "-s loop loop")?;
    let before = Snapshot::of(bench.directory())?;
    for file in [
        "pipe",
        "loop",
        "/dev/tty",
        "/dev/zero",
        "/dev/fdset/0",
        "disk.qbm",
        "json:{\"driver\":\"nbd\"}",
        "nbd://localhost/disk",
        &"n".repeat(2000),
    ] {
        for format in ["raw", "qcow2"] {
            descriptor(&bench, file, format, 1 << 20)?;
            let before = before.clone().without("disk.qbm");
            let info = bench.info("disk.qbm")?;
            assert_eq!(info["virtual-size"], 1 << 20, "{file}");
            before.require_kept()?;
            // Without a size on record there is nothing that it could tell.
            descriptor(&bench, file, "qcow2", 0)?;
            let refusal = bench.img_refuses("info disk.qbm")?;
            assert!(
                refusal.stderr.contains("does not record the size"),
                "{refusal}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_is_no_disk_is_not_opened() -> Result<()> {
    let bench = Bench::new()?;
    bench.host("mkfifo", "pipe")?;
    for file in ["pipe", "/dev/zero", "/dev/tty"] {
        descriptor(&bench, file, "raw", 1 << 20)?;
        for command in [
            "map disk.qbm",
            "check disk.qbm",
            "compare disk.qbm disk.qbm",
        ] {
            let refusal = bench.img_refuses(command)?;
            assert!(
                refusal.stderr.contains("neither a regular file nor"),
                "{refusal}"
            );
        }
    }
    Ok(())
}
