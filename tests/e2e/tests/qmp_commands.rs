// SPDX-License-Identifier: MIT OR Apache-2.0
//! QMP's bitmap commands: when one has returned, the disk has at least the bits that
//! memory has, soon exactly these, and they are there after a SIGKILL.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, on_disk, require_covered, require_settled};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn opened(bench: &Bench) -> Result<StorageDaemon> {
    bench.img("create -q -f qbm disk.qbm 64M")?;
    StorageDaemon::with_image(bench, "disk.qbm")
}

/// Kills the daemon, opens the image again, and gives the granules of the bitmap.
fn granules_after_kill(bench: &Bench, daemon: StorageDaemon, name: &str) -> Result<Vec<u64>> {
    daemon.kill()?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, name)?.context("the bitmap is gone")?;
    ensure!(bitmap.get("inconsistent").is_none(), "{bitmap}");
    require_settled(bench, &mut daemon.qmp, name)?;
    daemon.quit()?;
    Ok(bench.descriptor("disk.qbm")?.bitmap(name)?.granules())
}

#[test]
fn each_command_is_on_disk_when_it_returns() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    let mut client = daemon.export()?;
    client.write(0, &[1; 100])?;
    client.write(MIB, &[1; 100])?;
    require_covered(&bench, "b0", &[0, 16])?;
    require_settled(&bench, &mut daemon.qmp, "b0")?;

    bitmaps::run(&mut daemon.qmp, "disable", "b0")?;
    client.write(2 * MIB, &[1; 100])?;
    require_settled(&bench, &mut daemon.qmp, "b0")?;
    let stored = bench.descriptor("disk.qbm")?;
    assert_eq!(stored.bitmap("b0")?.granules(), [0, 16]);
    assert_eq!(
        stored.qbm()["bitmaps"]["b0"]["ext-soft-qbm-recording"],
        false
    );

    bitmaps::run(&mut daemon.qmp, "enable", "b0")?;
    client.write(3 * MIB, &[1; 100])?;
    require_covered(&bench, "b0", &[0, 16, 48])?;
    bitmaps::run(&mut daemon.qmp, "clear", "b0")?;
    client.write(4 * MIB, &[1; 100])?;
    require_covered(&bench, "b0", &[64])?;
    require_settled(&bench, &mut daemon.qmp, "b0")?;
    assert_eq!(granules_after_kill(&bench, daemon, "b0")?, [64]);
    Ok(())
}

#[test]
fn a_disabled_bitmap_is_added_as_such() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    let mut add = on_disk("b0");
    add["persistent"] = json!(true);
    add["disabled"] = json!(true);
    daemon.qmp.execute("block-dirty-bitmap-add", add)?;
    daemon.export()?.write(0, &[1; 100])?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.context("it is gone")?;
    assert_eq!(
        (&bitmap["recording"], &bitmap["count"]),
        (&json!(false), &json!(0))
    );
    Ok(())
}

#[test]
fn a_bitmap_that_is_not_persistent_leaves_no_trace() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    daemon
        .qmp
        .execute("block-dirty-bitmap-add", on_disk("passing"))?;
    daemon.export()?.write(0, &[1; 100])?;
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    daemon.quit()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(backup::query_bitmap(&mut daemon.qmp, "passing")?, None);
    Ok(())
}

#[test]
fn granularities_from_512_to_2_gib() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    for shift in 9..=31 {
        bitmaps::add(&mut daemon.qmp, &format!("g{shift}"), 1 << shift)?;
    }
    daemon.export()?.write(64 * MIB - 1, &[1])?;
    for shift in 9..=31_u64 {
        let name = format!("g{shift}");
        require_covered(&bench, &name, &[(64 * MIB - 1) >> shift])?;
        require_settled(&bench, &mut daemon.qmp, &name)?;
    }
    for granularity_bytes in [0, 256, 511, 513, 3000, 1_u64 << 32] {
        let mut add = on_disk("bad");
        add["persistent"] = json!(true);
        add["granularity"] = json!(granularity_bytes);
        let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
        assert!(refusal.to_lowercase().contains("granularity"), "{refusal}");
    }
    assert!(bench.descriptor("disk.qbm")?.bitmap("bad").is_err());
    Ok(())
}

#[test]
fn names_of_every_kind() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    let longest = "n".repeat(1023);
    let wide = "💾".repeat(255);
    let names = [
        "a/b",
        "..",
        ".",
        "../x",
        "/etc/passwd",
        "it's",
        "\"",
        "\\",
        "two\nlines",
        "tab\t",
        " ",
        "täglich",
        "每日",
        "e\u{301}",
        "\u{1}",
        &longest,
        &wide,
    ];
    for name in names {
        bitmaps::add(&mut daemon.qmp, name, 64 * KIB).with_context(|| format!("{name:?}"))?;
    }
    daemon.export()?.write(MIB, &[1; 100])?;
    for name in names {
        require_covered(&bench, name, &[16])?;
        require_settled(&bench, &mut daemon.qmp, name)?;
    }
    daemon.kill()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    for name in names {
        assert_eq!(
            backup::require_good_bitmap(&mut daemon.qmp, name)?,
            64 * KIB
        );
        bitmaps::run(&mut daemon.qmp, "remove", name).with_context(|| format!("{name:?}"))?;
    }
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    Ok(())
}

#[test]
fn names_that_cannot_be() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    let too_long = "n".repeat(1024);
    for (name, reason) in [("", "empty"), (too_long.as_str(), "1023")] {
        let mut add = on_disk(name);
        add["persistent"] = json!(true);
        let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
        assert!(refusal.contains(reason), "{refusal}");
    }
    assert!(bench.descriptor("disk.qbm")?.bitmap_names().is_empty());
    Ok(())
}

/// Whichever of the two is persistent, the first stays as it is.
#[test]
fn a_name_is_given_once() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    bitmaps::add(&mut daemon.qmp, "stored", 64 * KIB)?;
    daemon
        .qmp
        .execute("block-dirty-bitmap-add", on_disk("passing"))?;
    daemon.export()?.write(0, &[1; 100])?;
    for name in ["stored", "passing"] {
        for persistent in [false, true] {
            let mut add = on_disk(name);
            add["persistent"] = json!(persistent);
            let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
            assert!(refusal.contains("already exists"), "{refusal}");
        }
    }
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["stored"]);
    assert_eq!(granules_after_kill(&bench, daemon, "stored")?, [0]);
    Ok(())
}

#[test]
fn commands_for_what_is_not_there() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = opened(&bench)?;
    for verb in ["remove", "clear", "enable", "disable"] {
        let command = format!("block-dirty-bitmap-{verb}");
        let refusal = daemon.qmp.refuses(&command, on_disk("nothing"))?;
        assert!(refusal.contains("'nothing' not found"), "{refusal}");
    }
    // A proposal that QEMU has never taken, for qcow2 neither.
    let refusal = daemon
        .qmp
        .refuses("block-dirty-bitmap-populate", on_disk("nothing"))?;
    assert!(refusal.contains("has not been found"), "{refusal}");
    Ok(())
}

/// More bitmaps than an image can have: the error names the limit, and what is there
/// stays.
#[test]
fn the_most_bitmaps_that_an_image_can_have() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    // Entries that need no file: what cannot be used counts, too.
    let entry = json!({ "file": "gone.bitmap", "granularity-bytes": 65536, "type": "dirty" });
    let many: serde_json::Map<String, Value> = (0..4096)
        .map(|i| (format!("b{i}"), entry.clone()))
        .collect();
    descriptor.json_mut()["QBM"]["bitmaps"] = Value::Object(many);
    descriptor.write()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(bitmaps::list(&mut daemon.qmp, "disk")?.len(), 4096);
    let mut add = on_disk("last");
    add["persistent"] = json!(true);
    let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add.clone())?;
    assert!(
        refusal.contains("4096") || refusal.contains("4,096"),
        "{refusal}"
    );
    bitmaps::run(&mut daemon.qmp, "remove", "b7")?;
    daemon.qmp.execute("block-dirty-bitmap-add", add)?;
    daemon.quit()?;
    Ok(())
}

#[test]
fn a_read_only_node_takes_no_persistent_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    let read_only = json!({ "read-only": true });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &read_only)?;
    let mut add = on_disk("b1");
    add["persistent"] = json!(true);
    let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
    assert!(refusal.contains("No write access"), "{refusal}");
    for verb in ["remove", "clear"] {
        let command = format!("block-dirty-bitmap-{verb}");
        let refusal = daemon.qmp.refuses(&command, on_disk("b0"))?;
        assert!(refusal.contains("readonly"), "{refusal}");
    }
    Ok(())
}

/// QEMU lets a read-only bitmap be enabled.  When the node becomes writable, it records.
#[test]
fn a_bitmap_enabled_while_read_only_records_when_writable() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.img("bitmap --disable -f qbm disk.qbm b0")?;
    let node = |read_only: bool| json!({ "driver": "qbm", "node-name": "disk", "read-only": read_only, "file": "descriptor" });
    let mut daemon = StorageDaemon::start(&bench)?;
    let descriptor = json!({
        "driver": "file", "node-name": "descriptor", "filename": "disk.qbm",
        "auto-read-only": true, "read-only": false,
    });
    daemon.qmp.execute("blockdev-add", descriptor)?;
    daemon.qmp.execute("blockdev-add", node(true))?;
    bitmaps::run(&mut daemon.qmp, "enable", "b0")?;
    let reopen = json!({ "options": [node(false)] });
    daemon.qmp.execute("blockdev-reopen", reopen)?;
    daemon.export()?.write(MIB, &[1; 100])?;
    assert_eq!(granules_after_kill(&bench, daemon, "b0")?, [16]);
    Ok(())
}

/// Somebody else may have the image: nothing is stored by a node that is inactive.
#[test]
fn an_inactive_node_takes_no_persistent_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    if bench.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    let mut daemon = opened(&bench)?;
    let inactive = json!({ "node-name": "disk", "active": false });
    daemon.qmp.execute("blockdev-set-active", inactive)?;
    let before = bench.read("disk.qbm")?;
    let mut add = on_disk("b0");
    add["persistent"] = json!(true);
    let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
    assert!(refusal.contains("inactive"), "{refusal}");
    assert_eq!(bench.read("disk.qbm")?, before);

    let active = json!({ "node-name": "disk", "active": true });
    daemon.qmp.execute("blockdev-set-active", active)?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    daemon.export()?.write(0, &[1; 100])?;
    assert_eq!(granules_after_kill(&bench, daemon, "b0")?, [0]);
    Ok(())
}

/// An image of no bytes has bitmaps of no bits.
#[test]
fn an_empty_disk_has_bitmaps() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 0")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    bitmaps::add(&mut daemon.qmp, "b0", 64 * KIB)?;
    daemon.kill()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(backup::require_good_bitmap(&mut daemon.qmp, "b0")?, 0);
    bitmaps::run(&mut daemon.qmp, "remove", "b0")?;
    daemon.quit()?;
    Ok(())
}

/// Lengths beyond 32 bits reach the library whole.
#[test]
fn a_disk_of_more_than_4_gib_is_recorded_to_its_end() -> Result<()> {
    const GIB: u64 = 1 << 30;
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 9G")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    bitmaps::add(&mut daemon.qmp, "b0", MIB)?;
    let mut client = daemon.export()?;
    client.write(5 * GIB, &[1; 100])?;
    client.write(9 * GIB - 100, &[1; 100])?;
    assert_eq!(
        granules_after_kill(&bench, daemon, "b0")?,
        [5 * KIB, 9 * KIB - 1]
    );
    Ok(())
}
