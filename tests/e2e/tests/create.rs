// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img create -f qbm` with a data image of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use qbm_testkit::Bench;
use serde_json::json;

#[test]
fn makes_a_sparse_raw_image_beside_the_descriptor() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -f qbm disk.qbm 10G")?;

    let data = fs::metadata(bench.path("disk.qbm.raw"))?;
    assert_eq!(data.len(), 10 << 30);
    assert!(
        data.blocks() * 512 < 1 << 20,
        "it is not sparse: {} blocks",
        data.blocks()
    );
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.qbm()["version"], 1);
    assert_eq!(descriptor.qbm()["image"]["file"], "disk.qbm.raw");
    assert_eq!(descriptor.qbm()["image"]["format"], "raw");
    assert_eq!(descriptor.session(), None);
    Ok(())
}

#[test]
fn is_recognized_by_its_content() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    fs::rename(bench.path("disk.qbm"), bench.path("no-such-suffix"))?;

    let info = bench.info("no-such-suffix")?;
    assert_eq!(info["format"], "qbm");
    assert_eq!(info["filename"], "no-such-suffix");
    assert_eq!(info["virtual-size"], 64 << 20);
    assert_eq!(info["format-specific"]["type"], "qbm");
    assert_eq!(info.get("backing-filename"), None);
    Ok(())
}

#[test]
fn a_taken_name_is_left_alone_and_the_next_is_used() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("disk.qbm.raw", "someone else's")?;
    let output = bench.img("create -f qbm disk.qbm 64M")?;

    assert_eq!(bench.read("disk.qbm.raw")?, b"someone else's");
    assert!(
        output.stderr.contains("disk.qbm.1.raw"),
        "no note of the other name: {output}"
    );
    assert_eq!(
        bench.descriptor("disk.qbm")?.qbm()["image"]["file"],
        "disk.qbm.1.raw"
    );
    bench.io("disk.qbm", &["write -P 7 0 1M"])?;
    assert_eq!(bench.read("disk.qbm.raw")?, b"someone else's");
    Ok(())
}

/// People and tests rename a descriptor and create a new image of the old name.
#[test]
fn a_renamed_descriptor_keeps_its_data() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.io("disk.qbm", &["write -P 1 0 64k"])?;
    fs::rename(bench.path("disk.qbm"), bench.path("old.qbm"))?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.io("disk.qbm", &["read -P 0 0 64k", "write -P 2 0 64k"])?;

    bench.io("old.qbm", &["read -P 1 0 64k"])?;
    bench.io("disk.qbm", &["read -P 2 0 64k"])?;
    Ok(())
}

#[test]
fn names_resolve_from_the_descriptors_directory() -> Result<()> {
    let bench = Bench::new()?;
    fs::create_dir(bench.path("here"))?;
    bench.img("create -q -f qbm here/disk.qbm 64M")?;
    bench.img("bitmap --add -f qbm here/disk.qbm b0")?;
    bench.io("here/disk.qbm", &["write -P 3 0 64k"])?;
    fs::rename(bench.path("here"), bench.path("there"))?;

    bench.io("there/disk.qbm", &["read -P 3 0 64k", "write -P 4 1M 64k"])?;
    let bitmap = bench.descriptor("there/disk.qbm")?.bitmap("b0")?;
    assert_eq!(bitmap.granules(), [0, 16]);
    Ok(())
}

/// The descriptor's next text goes to a file of this name first; one that is there
/// already is somebody's.
#[test]
fn a_file_named_like_the_next_text_is_left_alone() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("disk.qbm.new", "someone else's")?;
    // Whether this works or is refused does not matter here.
    bench.run("qemu-img", "create -q -f qbm disk.qbm 64M")?;
    bench.run("qemu-img", "bitmap --add -f qbm disk.qbm b0")?;
    assert_eq!(bench.read("disk.qbm.new")?, b"someone else's");
    Ok(())
}

#[test]
fn blockdev_create_needs_only_file_and_size() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = qbm_testkit::StorageDaemon::start(&bench)?;
    let qmp = &mut daemon.qmp;
    let options = json!({ "driver": "file", "filename": "disk.qbm", "size": 0 });
    for (id, options) in [
        ("file", options),
        (
            "image",
            json!({ "driver": "qbm", "file": "descriptor", "size": 64 << 20 }),
        ),
    ] {
        if id == "image" {
            let node =
                json!({ "driver": "file", "node-name": "descriptor", "filename": "disk.qbm" });
            qmp.execute("blockdev-add", node)?;
        }
        qmp.execute(
            "blockdev-create",
            json!({ "job-id": id, "options": options }),
        )?;
        qmp.event("JOB_STATUS_CHANGE", |data| {
            data["id"] == id && data["status"] == "concluded"
        })?;
        let jobs = qmp.execute("query-jobs", json!({}))?;
        assert_eq!(jobs[0].get("error"), None, "{jobs}");
        qmp.execute("job-dismiss", json!({ "id": id }))?;
    }
    qmp.execute(
        "blockdev-add",
        json!({ "driver": "qbm", "node-name": "disk", "file": "descriptor" }),
    )?;
    daemon.quit()?;
    assert_eq!(bench.info("disk.qbm")?["virtual-size"], 64 << 20);
    Ok(())
}
