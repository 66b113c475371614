// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk was elsewhere, was written there, and comes back: bitmaps that stayed in memory
//! meanwhile have missed writes, and learn of them or are given up.

use anyhow::Result;
use qbm_testkit::life::{GRANULE, blockdev, found, image, recording};
use qbm_testkit::{Bench, Machine, bitmaps, migration};
use serde_json::json;

use crate::incoming::set_active;
use crate::{Pair, write};

const BOTH: [&[&str]; 2] = [&[], &["dirty-bitmaps"]];

/// The destination writes, and ends; the source takes the disk back.
fn to_and_fro(way: &[&str], kill: bool) -> Result<Pair> {
    let mut pair = Pair::shared("qbm", way)?;
    write(&mut pair.source, 0)?;
    pair.start()?;
    pair.complete()?;
    pair.destination.qmp.execute("cont", json!({}))?;
    write(&mut pair.destination, 1)?;
    let Pair {
        bench,
        mut source,
        destination,
    } = pair;
    if kill {
        destination.kill()?;
    } else {
        destination.quit()?;
    }
    source.qmp.execute("cont", json!({}))?;
    let destination = Machine::start(&bench, "")?;
    Ok(Pair {
        bench,
        source,
        destination,
    })
}

#[test]
fn what_the_destination_wrote_is_marked() -> Result<()> {
    // The bitmaps that were to leave had stayed in memory, and replaced the stored ones, which
    // had every write.
    for way in BOTH {
        for kill in [false, true] {
            let mut pair = to_and_fro(way, kill)?;
            write(&mut pair.source, 2)?;
            pair.source.quit()?;
            let stored = found(&pair.bench, "qbm", "disk")?;
            assert_eq!(stored, [recording("b0", 3)], "{way:?} {kill}");
        }
    }
    Ok(())
}

#[test]
fn it_goes_to_and_fro_twice() -> Result<()> {
    for way in BOTH {
        let Pair {
            bench,
            source,
            destination,
        } = to_and_fro(way, false)?;
        destination.quit()?;
        let args = blockdev("qbm", "disk") + " -incoming defer";
        let mut destination = Machine::start(&bench, &args)?;
        migration::enable(&mut destination.qmp, way)?;
        let mut pair = Pair {
            bench,
            source,
            destination,
        };
        write(&mut pair.source, 2)?;
        pair.start()?;
        pair.complete()?;
        pair.destination.qmp.execute("cont", json!({}))?;
        write(&mut pair.destination, 3)?;
        pair.destination.kill()?;
        pair.source.qmp.execute("cont", json!({}))?;
        pair.source.quit()?;
        let stored = found(&pair.bench, "qbm", "disk")?;
        assert_eq!(stored, [recording("b0", 4)], "{way:?}");
    }
    Ok(())
}

#[test]
fn a_bitmap_that_was_removed_there_cannot_be_used() -> Result<()> {
    let mut pair = Pair::shared("qbm", &["dirty-bitmaps"])?;
    pair.start()?;
    pair.complete()?;
    pair.destination.qmp.execute("cont", json!({}))?;
    bitmaps::run(&mut pair.destination.qmp, "remove", "b0")?;
    write(&mut pair.destination, 1)?;
    pair.destination.quit()?;
    pair.source.qmp.execute("cont", json!({}))?;
    let listed = bitmaps::list(&mut pair.source.qmp, "disk")?;
    assert_eq!(listed[0]["inconsistent"], true, "{listed:?}");
    // It can be removed, and another one of its name be made.
    bitmaps::run(&mut pair.source.qmp, "remove", "b0")?;
    bitmaps::add(&mut pair.source.qmp, "b0", GRANULE)?;
    write(&mut pair.source, 2)?;
    pair.source.quit()?;
    assert_eq!(found(&pair.bench, "qbm", "disk")?, [recording("b0", 1)]);
    Ok(())
}

#[test]
fn a_bitmap_that_could_not_go_has_every_write() -> Result<()> {
    // An export of a bitmap keeps it in memory while the node is inactive.
    if Bench::new()?.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    for kill in [false, true] {
        let bench = Bench::new()?;
        image(&bench, "qbm", "disk")?;
        let mut here = Machine::start(&bench, &blockdev("qbm", "disk"))?;
        write(&mut here, 0)?;
        let address = json!({ "type": "unix", "data": { "path": bench.path(".nbd") } });
        let export = json!({
            "type": "nbd", "id": "e", "node-name": "disk", "writable": true,
            "bitmaps": ["b0"], "allow-inactive": true,
        });
        here.qmp
            .execute("nbd-server-start", json!({ "addr": address }))?;
        here.qmp.execute("block-export-add", export)?;
        set_active(&mut here, "disk", false)?;
        let mut there = Machine::start(&bench, &blockdev("qbm", "disk"))?;
        write(&mut there, 1)?;
        if kill {
            there.kill()?;
        } else {
            there.quit()?;
        }
        set_active(&mut here, "disk", true)?;
        let listed = bitmaps::list(&mut here.qmp, "disk")?;
        assert_eq!(listed[0]["count"], 2 * GRANULE, "{kill}: {listed:?}");
        write(&mut here, 2)?;
        here.quit()?;
        let stored = found(&bench, "qbm", "disk")?;
        assert_eq!(stored, [recording("b0", 3)], "{kill}");
    }
    Ok(())
}

#[test]
fn a_bitmap_that_the_source_exports_has_every_write() -> Result<()> {
    let mut pair = Pair::shared("qbm", &[])?;
    write(&mut pair.source, 0)?;
    bitmaps::run(&mut pair.source.qmp, "disable", "b0")?;
    let address = json!({ "type": "unix", "data": { "path": pair.bench.path(".nbd") } });
    let export = json!({ "type": "nbd", "id": "e", "node-name": "disk", "bitmaps": ["b0"] });
    let qmp = &mut pair.source.qmp;
    qmp.execute("nbd-server-start", json!({ "addr": address }))?;
    qmp.execute("block-export-add", export)?;
    pair.start()?;
    pair.complete()?;
    pair.destination.qmp.execute("cont", json!({}))?;
    bitmaps::run(&mut pair.destination.qmp, "enable", "b0")?;
    write(&mut pair.destination, 1)?;
    pair.destination.quit()?;
    pair.source.qmp.execute("cont", json!({}))?;
    let listed = bitmaps::list(&mut pair.source.qmp, "disk")?;
    assert_eq!(listed[0]["count"], 2 * GRANULE, "{listed:?}");
    assert_eq!(listed[0]["recording"], true, "as it was made there");
    write(&mut pair.source, 2)?;
    pair.source.quit()?;
    let stored = found(&pair.bench, "qbm", "disk")?;
    assert_eq!(stored, [recording("b0", 3)]);
    Ok(())
}

#[test]
fn the_image_has_grown_meanwhile() -> Result<()> {
    // A bitmap kept its old size: QEMU aborted at the first write beyond.
    if Bench::new()?.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    let bench = Bench::new()?;
    image(&bench, "qbm", "disk")?;
    let mut here = Machine::start(&bench, &blockdev("qbm", "disk"))?;
    let added = json!({ "node": "disk", "name": "t" });
    here.qmp.execute("block-dirty-bitmap-add", added)?;
    let address = json!({ "type": "unix", "data": { "path": bench.path(".nbd") } });
    let export = json!({
        "type": "nbd", "id": "e", "node-name": "disk", "writable": true,
        "bitmaps": ["b0"], "allow-inactive": true,
    });
    let qmp = &mut here.qmp;
    qmp.execute("nbd-server-start", json!({ "addr": address }))?;
    qmp.execute("block-export-add", export)?;
    set_active(&mut here, "disk", false)?;
    bench.img("resize -q -f qbm disk 65M")?;
    let state = json!({ "node-name": "disk", "active": true });
    let refused = here.qmp.refuses("blockdev-set-active", state)?;
    assert!(refused.contains("'b0' cannot follow"), "{refused}");
    let export = json!({ "id": "e", "mode": "hard" });
    here.qmp.execute("block-export-del", export)?;
    here.qmp
        .event("BLOCK_EXPORT_DELETED", |data| data["id"] == "e")?;
    set_active(&mut here, "disk", true)?;
    let listed = bitmaps::list(&mut here.qmp, "disk")?;
    let marked = |name: &str| {
        let bitmap = listed.iter().find(|bitmap| bitmap["name"] == name);
        bitmap.map(|bitmap| bitmap["count"].clone())
    };
    assert_eq!(marked("t"), Some(json!(1 << 20)), "{listed:?}");
    assert_eq!(marked("b0"), Some(json!(1 << 20)), "{listed:?}");
    write(&mut here, (64 << 20) / GRANULE)?;
    write(&mut here, 0)?;
    here.quit()?;
    assert_eq!(found(&bench, "qbm", "disk")?, [recording("b0", 17)]);
    Ok(())
}

#[test]
fn a_transient_bitmap_is_stored_with_all_bits() -> Result<()> {
    if Bench::new()?.lacks("blockdev-set-active", (10, 0))? {
        return Ok(());
    }
    let bench = Bench::new()?;
    bench.img("create -q -f qbm -o persist_bitmaps=all disk 64M")?;
    let mut here = Machine::start(&bench, &blockdev("qbm", "disk"))?;
    set_active(&mut here, "disk", false)?;
    let added = json!({ "node": "disk", "name": "t" });
    here.qmp.execute("block-dirty-bitmap-add", added)?;
    let mut there = Machine::start(&bench, &blockdev("qbm", "disk"))?;
    write(&mut there, 1)?;
    there.quit()?;
    set_active(&mut here, "disk", true)?;
    here.quit()?;
    let stored = found(&bench, "qbm", "disk")?;
    assert_eq!(stored, [recording("t", (64 << 20) / GRANULE)]);
    Ok(())
}

#[test]
fn a_transient_bitmap_in_its_place_stays() -> Result<()> {
    // QEMU aborted: only a persistent bitmap can be inconsistent.
    let mut pair = Pair::shared("qbm", &["dirty-bitmaps"])?;
    pair.start()?;
    pair.complete()?;
    pair.destination.qmp.execute("cont", json!({}))?;
    write(&mut pair.destination, 1)?;
    pair.destination.quit()?;
    bitmaps::run(&mut pair.source.qmp, "remove", "b0")?;
    let added = json!({ "node": "disk", "name": "b0" });
    pair.source.qmp.execute("block-dirty-bitmap-add", added)?;
    pair.source.qmp.execute("cont", json!({}))?;
    let listed = bitmaps::list(&mut pair.source.qmp, "disk")?;
    assert_eq!(listed[0]["persistent"], false, "{listed:?}");
    assert_eq!(listed[0]["inconsistent"], serde_json::Value::Null);
    pair.source.quit().map(drop)
}

#[test]
fn a_disk_that_nobody_wrote_to_comes_back_as_it_was() -> Result<()> {
    let mut pair = Pair::shared("qbm", &["dirty-bitmaps"])?;
    write(&mut pair.source, 0)?;
    pair.start()?;
    pair.complete()?;
    pair.destination.quit()?;
    pair.source.qmp.execute("cont", json!({}))?;
    write(&mut pair.source, 1)?;
    pair.source.quit()?;
    assert_eq!(found(&pair.bench, "qbm", "disk")?, [recording("b0", 2)]);
    Ok(())
}
