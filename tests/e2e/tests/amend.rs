// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stored defaults: `qemu-img create` and `amend`, `x-blockdev-amend`, and who shows them.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, require_settled};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, Random, Snapshot, StorageDaemon, backup, jobs};
use serde_json::{Value, json};

/// What `qemu-img info` says.
fn stored(bench: &Bench) -> Result<(String, String)> {
    let info = bench.info("disk.qbm")?;
    defaults_of(&info["format-specific"]["data"])
}

/// What `query-block` and its like say.
fn in_force(qmp: &mut Qmp) -> Result<(String, String)> {
    let nodes = qmp.execute("query-named-block-nodes", json!({}))?;
    let disk = nodes
        .as_array()
        .and_then(|nodes| nodes.iter().find(|node| node["node-name"] == "disk"))
        .context("no node")?;
    defaults_of(&disk["image"]["format-specific"]["data"])
}

fn defaults_of(data: &Value) -> Result<(String, String)> {
    let text = |key: &str| {
        let value = data[key].as_str().with_context(|| format!("{key}: {data}"));
        value.map(str::to_owned)
    };
    Ok((text("durability")?, text("persist-bitmaps")?))
}

fn pair(durability: &str, persist_bitmaps: &str) -> (String, String) {
    (durability.to_owned(), persist_bitmaps.to_owned())
}

fn start_amend(qmp: &mut Qmp, options: &Value) -> Result<()> {
    let mut options = options.clone();
    options["driver"] = json!("qbm");
    let amend = json!({ "job-id": "amend", "node-name": "disk", "options": options });
    qmp.execute("x-blockdev-amend", amend).map(drop)
}

/// Amends node `disk`; gives the job's error.
fn amend(qmp: &mut Qmp, options: &Value) -> Result<Option<String>> {
    start_amend(qmp, options)?;
    qmp.event("JOB_STATUS_CHANGE", |data| data["status"] == "concluded")?;
    let jobs = qmp.execute("query-jobs", json!({}))?;
    qmp.execute("job-dismiss", json!({ "id": "amend" }))?;
    Ok(jobs[0]["error"].as_str().map(str::to_owned))
}

#[test]
fn help_lists_the_options() -> Result<()> {
    let bench = Bench::new()?;
    let help = bench.img("create -f qbm -o help")?.stdout;
    ensure!(
        help.contains("persist_bitmaps=<str>") && help.contains("(marked, all)"),
        "{help}"
    );
    let help = bench.img("amend -f qbm -o help")?.stdout;
    ensure!(
        help.contains("persist_bitmaps=<str>") && help.contains("durability=<str>"),
        "{help}"
    );
    ensure!(!help.contains("size="), "{help}");
    Ok(())
}

#[test]
fn create_stores_them() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 1M")?;
    assert_eq!(stored(&bench)?, pair("process", "marked"));
    bench.img("create -q -f qbm -o persist_bitmaps=all,durability=close disk.qbm 1M")?;
    assert_eq!(stored(&bench)?, pair("close", "all"));
    let text = bench.img("info disk.qbm")?.stdout;
    ensure!(text.contains("persist bitmaps: all"), "{text}");
    bench.img("create -q -f raw old.raw 1M")?;
    bench.img("create -q -f qbm -o data_file=old.raw,persist_bitmaps=all disk.qbm")?;
    assert_eq!(stored(&bench)?, pair("process", "all"));
    bench.img("convert -q -O qbm -o persist_bitmaps=all old.raw disk.qbm")?;
    assert_eq!(stored(&bench)?, pair("process", "all"));

    let before = Snapshot::of(bench.directory())?;
    let words = bench
        .img_refuses("create -q -f qbm -o persist_bitmaps=some new.qbm 1M")?
        .stderr;
    ensure!(
        words.contains("persist_bitmaps must be 'marked' or 'all', not 'some'"),
        "{words}"
    );
    before.require_untouched()
}

#[test]
fn blockdev_create_stores_them() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("disk.qbm", "")?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let file = json!({ "driver": "file", "node-name": "file", "filename": "disk.qbm" });
    daemon.qmp.execute("blockdev-add", file)?;
    let options = json!({
        "driver": "qbm", "file": "file", "size": 1 << 20,
        "persist-bitmaps": "all", "durability": "close",
    });
    jobs::create(&mut daemon.qmp, options)?;
    daemon.quit()?;
    assert_eq!(stored(&bench)?, pair("close", "all"));
    Ok(())
}

#[test]
fn qemu_img_amends_what_it_is_told_and_nothing_else() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write 1M 100"])?;
    for (options, expected) in [
        ("persist_bitmaps=all", pair("process", "all")),
        ("durability=close", pair("close", "all")),
        (
            "durability=process,persist_bitmaps=marked",
            pair("process", "marked"),
        ),
    ] {
        bench.img(&format!("amend -f qbm -o {options} disk.qbm"))?;
        assert_eq!(stored(&bench)?, expected, "{options}");
    }
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.session(), None);
    assert_eq!(descriptor.bitmap("b0")?.granules(), [16]);
    Ok(())
}

#[test]
fn anything_else_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 1M")?;
    for (options, words) in [
        ("size=2M", "Invalid parameter 'size'"),
        ("data_file=other.raw", "Invalid parameter 'data_file'"),
        ("preallocation=full", "Invalid parameter 'preallocation'"),
        (
            "persist_bitmaps=some",
            "must be 'marked' or 'all', not 'some'",
        ),
        (
            "durability=some",
            "must be 'close' or 'process', not 'some'",
        ),
        // Not even the half that is right.
        (
            "persist_bitmaps=all,durability=some",
            "must be 'close' or 'process', not 'some'",
        ),
    ] {
        let output = bench.img_refuses(&format!("amend -f qbm -o {options} disk.qbm"))?;
        ensure!(output.stderr.contains(words), "{options}: {output}");
        assert_eq!(stored(&bench)?, pair("process", "marked"), "{options}");
    }
    Ok(())
}

#[test]
fn an_image_that_is_in_use_or_read_only_is_left_alone() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 1M")?;
    let daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let output = bench.img_refuses("amend -f qbm -o persist_bitmaps=all disk.qbm")?;
    ensure!(output.stderr.contains(r#""write" lock"#), "{output}");
    daemon.quit()?;
    assert_eq!(stored(&bench)?, pair("process", "marked"));

    let options = json!({ "read-only": true });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
    let before = Snapshot::of(bench.directory())?;
    let error = amend(&mut daemon.qmp, &json!({ "persist-bitmaps": "all" }))?;
    let words = error.context("it was amended")?;
    ensure!(words.contains("No write access"), "{words}");
    before.require_untouched()?;
    daemon.quit()?;
    Ok(())
}

#[test]
fn a_running_vm_stores_all_from_now_on() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    bitmaps::run(&mut daemon.qmp, "add", "early")?;
    daemon.export()?.write(1 << 20, b"one")?;
    assert_eq!(in_force(&mut daemon.qmp)?, pair("process", "marked"));

    let both = json!({ "durability": "close", "persist-bitmaps": "all" });
    assert_eq!(amend(&mut daemon.qmp, &both)?, None);
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["early"]);
    require_settled(&bench, &mut daemon.qmp, "early")?;
    // The session keeps its promise: the new one is for those to come.
    assert_eq!(in_force(&mut daemon.qmp)?, pair("process", "all"));
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "early")?,
        65536
    );
    assert_eq!(in_force(&mut daemon.qmp)?, pair("close", "all"));

    // And back: what is persistent stays so.
    let marked = json!({ "persist-bitmaps": "marked" });
    assert_eq!(amend(&mut daemon.qmp, &marked)?, None);
    bitmaps::run(&mut daemon.qmp, "add", "late")?;
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["early"]);
    assert_eq!(stored(&bench)?, pair("close", "marked"));
    Ok(())
}

#[test]
fn the_option_given_at_open_is_stronger() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let options = json!({ "persist-bitmaps": "marked" });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &options)?;
    bitmaps::run(&mut daemon.qmp, "add", "early")?;
    let all = json!({ "persist-bitmaps": "all" });
    assert_eq!(amend(&mut daemon.qmp, &all)?, None);
    assert_eq!(in_force(&mut daemon.qmp)?, pair("process", "marked"));
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    daemon.quit()?;
    assert_eq!(stored(&bench)?, pair("process", "all"));
    Ok(())
}

/// In an iothread the job runs beside the main loop.
#[test]
fn a_node_in_an_iothread() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let iothread = json!({ "qom-type": "iothread", "id": "io0" });
    daemon.qmp.execute("object-add", iothread)?;
    let address = json!({ "type": "unix", "data": { "path": bench.path("nbd") } });
    daemon
        .qmp
        .execute("nbd-server-start", json!({ "addr": address }))?;
    let export = json!({
        "type": "nbd", "id": "export", "node-name": "disk", "writable": true,
        "iothread": "io0",
    });
    daemon.qmp.execute("block-export-add", export)?;
    bitmaps::run(&mut daemon.qmp, "add", "early")?;
    let all = json!({ "persist-bitmaps": "all" });
    for _ in 0..20 {
        assert_eq!(amend(&mut daemon.qmp, &all)?, None);
        let marked = json!({ "persist-bitmaps": "marked" });
        assert_eq!(amend(&mut daemon.qmp, &marked)?, None);
    }
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["early"]);
    daemon.quit()?;
    Ok(())
}

/// Whenever QEMU is killed, both values are the old ones or both are new.
#[test]
fn a_kill_leaves_both_or_neither() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 1M")?;
    let states = [pair("process", "marked"), pair("close", "all")];
    let mut random = Random::new(5);
    for round in 0..20 {
        let (durability, persist_bitmaps) = &states[(round + 1) % 2];
        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        let options = json!({
            "driver": "qbm", "durability": durability, "persist-bitmaps": persist_bitmaps,
        });
        let amend = json!({ "job-id": "amend", "node-name": "disk", "options": options });
        daemon.qmp.start("x-blockdev-amend", amend)?;
        sleep(Duration::from_micros(random.below(4000)));
        daemon.kill()?;
        let found = stored(&bench)?;
        ensure!(states.contains(&found), "round {round}: {found:?}");
    }
    Ok(())
}
