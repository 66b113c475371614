// SPDX-License-Identifier: MIT OR Apache-2.0
//! block-dirty-bitmap-merge: from several bitmaps, other nodes, other granularities.

use anyhow::Result;
use qbm_testkit::bitmaps::{self, on_disk, require_covered, require_settled};
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::{Value, json};

const KIB: u64 = 1024;

/// Node `disk`, qbm, with `into` of 64 KiB granules; `other`, qbm; `cow`, qcow2; `plain`,
/// raw: each with a bitmap `from` of its own granularity, and written at one place.
fn four_nodes(bench: &Bench) -> Result<StorageDaemon> {
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.img("create -q -f qbm other.qbm 64M")?;
    bench.img("bitmap --add -g 4k -f qbm other.qbm from")?;
    bench.io("other.qbm", &["write 1M 4k"])?;
    bench.img("create -q -f qcow2 cow.qcow2 64M")?;
    bench.img("bitmap --add -g 2M -f qcow2 cow.qcow2 from")?;
    bench.io_as("qcow2", "cow.qcow2", &["write 4M 4k"])?;
    bench.sparse("plain.raw", 64 << 20, &[])?;

    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    bitmaps::add(&mut daemon.qmp, "into", 64 * KIB)?;
    for (format, node, file) in [
        ("qbm", "other", "other.qbm"),
        ("qcow2", "cow", "cow.qcow2"),
        ("raw", "plain", "plain.raw"),
    ] {
        let add = json!({
            "driver": format, "node-name": node, "file": { "driver": "file", "filename": file },
        });
        daemon.qmp.execute("blockdev-add", add)?;
    }
    // Raw has no bitmaps but those in memory; its bits come by a merge as well.
    let add = json!({ "node": "plain", "name": "from", "granularity": 512 });
    daemon.qmp.execute("block-dirty-bitmap-add", add)?;
    let merge = json!({
        "node": "plain", "target": "from", "bitmaps": [{ "node": "other", "name": "from" }],
    });
    daemon.qmp.execute("block-dirty-bitmap-merge", merge)?;
    Ok(daemon)
}

fn merge(daemon: &mut StorageDaemon, target: &str, sources: &Value) -> Result<()> {
    let merge = json!({ "node": "disk", "target": target, "bitmaps": sources });
    daemon
        .qmp
        .execute("block-dirty-bitmap-merge", merge)
        .map(drop)
}

fn kill_and_read(bench: &Bench, daemon: StorageDaemon, name: &str) -> Result<Vec<u64>> {
    daemon.kill()?;
    StorageDaemon::with_image(bench, "disk.qbm")?.quit()?;
    Ok(bench.descriptor("disk.qbm")?.bitmap(name)?.granules())
}

#[test]
fn from_other_nodes_of_every_kind() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = four_nodes(&bench)?;
    merge(
        &mut daemon,
        "into",
        &json!([{ "node": "other", "name": "from" }]),
    )?;
    require_covered(&bench, "into", &[16])?;
    // 2 MiB at once, in granules of 64 KiB.
    merge(
        &mut daemon,
        "into",
        &json!([{ "node": "cow", "name": "from" }]),
    )?;
    let of_cow: Vec<u64> = (64..96).collect();
    require_covered(&bench, "into", &of_cow)?;
    merge(
        &mut daemon,
        "into",
        &json!([{ "node": "plain", "name": "from" }]),
    )?;
    require_settled(&bench, &mut daemon.qmp, "into")?;
    let expected: Vec<u64> = std::iter::once(16).chain(64..96).collect();
    assert_eq!(kill_and_read(&bench, daemon, "into")?, expected);
    Ok(())
}

#[test]
fn several_sources_at_once_and_itself() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = four_nodes(&bench)?;
    bitmaps::add(&mut daemon.qmp, "local", 512)?;
    daemon.export()?.write(0, &[1; 100])?;
    bitmaps::run(&mut daemon.qmp, "clear", "into")?;
    let sources = json!(["local", "into", { "node": "other", "name": "from" }]);
    merge(&mut daemon, "into", &sources)?;
    require_covered(&bench, "into", &[0, 16])?;
    require_settled(&bench, &mut daemon.qmp, "into")?;
    assert_eq!(kill_and_read(&bench, daemon, "into")?, [0, 16]);
    Ok(())
}

/// The second source is refused: what the first one brought is taken back, on disk too.
#[test]
fn a_merge_that_fails_half_way_changes_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = four_nodes(&bench)?;
    bench.img("create -q -f qcow2 small.qcow2 1M")?;
    let small = json!({
        "driver": "qcow2", "node-name": "small",
        "file": { "driver": "file", "filename": "small.qcow2" },
    });
    daemon.qmp.execute("blockdev-add", small)?;
    let add = json!({ "node": "small", "name": "from" });
    daemon.qmp.execute("block-dirty-bitmap-add", add)?;
    for (second, words) in [
        (json!("nothing"), "'nothing' not found"),
        (
            json!({ "node": "small", "name": "from" }),
            "different sizes",
        ),
    ] {
        let merge = json!({
            "node": "disk", "target": "into",
            "bitmaps": [{ "node": "other", "name": "from" }, second],
        });
        let refusal = daemon.qmp.refuses("block-dirty-bitmap-merge", merge)?;
        assert!(refusal.contains(words), "{refusal}");
        require_settled(&bench, &mut daemon.qmp, "into")?;
    }
    assert_eq!(kill_and_read(&bench, daemon, "into")?, Vec::<u64>::new());
    Ok(())
}

#[test]
fn into_a_bitmap_that_is_not_persistent_and_back() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = four_nodes(&bench)?;
    daemon
        .qmp
        .execute("block-dirty-bitmap-add", on_disk("passing"))?;
    merge(
        &mut daemon,
        "passing",
        &json!([{ "node": "other", "name": "from" }]),
    )?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("into")?.set_count(), 0);
    merge(&mut daemon, "into", &json!(["passing"]))?;
    require_covered(&bench, "into", &[16])?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["into"]);
    assert_eq!(kill_and_read(&bench, daemon, "into")?, [16]);
    Ok(())
}

/// Other nodes take from a qbm bitmap as well.
#[test]
fn out_of_a_qbm_node() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = four_nodes(&bench)?;
    daemon.export()?.write(0, &[1; 100])?;
    let merge = json!({
        "node": "cow", "target": "from", "bitmaps": [{ "node": "disk", "name": "into" }],
    });
    daemon.qmp.execute("block-dirty-bitmap-merge", merge)?;
    let cow = bitmaps::list(&mut daemon.qmp, "cow")?;
    // What it had, and the first 2 MiB.
    assert_eq!(cow[0]["count"], 4 << 20, "{cow:?}");
    Ok(())
}
