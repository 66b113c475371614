// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps that QMP commands add.

use anyhow::{Result, ensure};
use qbm_testkit::bitmaps::{self, bitmap_action, require_settled, transaction, transaction_fails};
use qbm_testkit::load::Load;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::json;

use crate::{KIB, MIB, add_plain, create, is_persistent, query, stored};

#[test]
fn an_added_bitmap_is_stored_when_the_command_returns() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    add_plain(&mut daemon.qmp, "plain")?;
    assert_eq!(stored(&bench)?, ["plain"]);
    let add = json!({ "node": "disk", "name": "told", "persistent": false, "disabled": true });
    daemon.qmp.execute("block-dirty-bitmap-add", add)?;
    assert_eq!(stored(&bench)?, ["plain", "told"]);
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(
        descriptor.qbm()["bitmaps"]["told"]["ext-soft-qbm-recording"],
        false
    );

    for name in ["plain", "told"] {
        assert!(is_persistent(&mut daemon.qmp, name)?, "{name}");
        // Nothing was written yet, and soon the files say so.
        require_settled(&bench, &mut daemon.qmp, name)?;
    }
    daemon.export()?.write(MIB, b"one")?;
    assert_eq!(query(&mut daemon.qmp, "plain")?["count"], 64 * KIB);
    assert_eq!(query(&mut daemon.qmp, "told")?["count"], 0);

    bitmaps::run(&mut daemon.qmp, "remove", "told")?;
    assert_eq!(stored(&bench)?, ["plain"]);
    assert_eq!(daemon.quit()?, "");
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.bitmap("plain")?.granules(), [16]);

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    assert_eq!(
        backup::require_good_bitmap(&mut daemon.qmp, "plain")?,
        64 * KIB
    );
    Ok(())
}

/// QEMU is killed soon after a bitmap was added, under load.
#[test]
fn a_kill_loses_nothing() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm -o persist_bitmaps=all disk.qbm 16M")?;
    for round in 0..12 {
        // What differs from this later, the bitmap must have.
        bench.host("cp", ["--sparse=always", "disk.qbm.raw", "earlier.raw"])?;
        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        let name = format!("b{round}");
        let add = json!({ "node": "disk", "name": name, "granularity": 4096 });
        daemon.qmp.execute("block-dirty-bitmap-add", add)?;
        let load = Load::start(daemon.export()?, 8, round);
        load.wait_for(20 + round % 3 * 20)?;
        daemon.kill()?;
        load.join()?;

        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        backup::require_good_bitmap(&mut daemon.qmp, &name)?;
        daemon.quit()?;
        let bitmap = bench.descriptor("disk.qbm")?.bitmap(&name)?;
        let disk = bench.path("disk.qbm.raw");
        let verdict = judge(&bench.path("earlier.raw"), &disk, &bitmap)?;
        verdict.require_complete()?;
        ensure!(verdict.changed_count > 0, "nothing was written");
    }
    Ok(())
}

/// The guest writes all the time: what it wrote after the bitmap was there, the bitmap has.
#[test]
fn a_bitmap_that_is_added_under_load_misses_nothing() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm -o persist_bitmaps=all disk.qbm 16M")?;
    bench.sparse("copy.raw", 16 << 20, &[])?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::open_target(&mut daemon.qmp, "copy", "raw", "copy.raw")?;
    let load = Load::start(daemon.export()?, 16, 5);
    load.wait_for(100)?;
    let actions = [
        bitmap_action("add", "daily"),
        backup::full_backup_action("copy"),
    ];
    transaction(&mut daemon.qmp, &actions)?;
    assert_eq!(stored(&bench)?, ["daily"]);
    backup::wait(&mut daemon.qmp)?;
    load.wait_for_more(100)?;
    daemon.kill()?;
    load.join()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "daily")?;
    daemon.quit()?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("daily")?;
    judge(
        &bench.path("copy.raw"),
        &bench.path("disk.qbm.raw"),
        &bitmap,
    )?
    .require_complete()
}

#[test]
fn transactions_add_and_take_back() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let adds = [bitmap_action("add", "one"), bitmap_action("add", "two")];
    transaction(&mut daemon.qmp, &adds)?;
    assert_eq!(stored(&bench)?, ["one", "two"]);

    let aborted = [
        bitmap_action("add", "three"),
        bitmap_action("remove", "one"),
        bitmap_action("disable", "two"),
        bitmap_action("add", "two"),
    ];
    let words = transaction_fails(&mut daemon.qmp, &aborted)?;
    ensure!(words.contains("already exists: two"), "{words}");
    assert_eq!(stored(&bench)?, ["one", "two"]);
    daemon.export()?.write(0, b"both")?;
    assert_eq!(daemon.quit()?, "");

    let descriptor = bench.descriptor("disk.qbm")?;
    for name in ["one", "two"] {
        assert_eq!(descriptor.bitmap(name)?.granules(), [0], "{name}");
    }
    Ok(())
}

#[test]
fn without_it_only_marked_bitmaps_are_stored() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    add_plain(&mut daemon.qmp, "plain")?;
    bitmaps::add(&mut daemon.qmp, "marked", 64 * KIB)?;
    for verb in ["disable", "enable", "clear"] {
        bitmaps::run(&mut daemon.qmp, verb, "plain")?;
    }
    assert_eq!(stored(&bench)?, ["marked"]);
    assert_eq!(query(&mut daemon.qmp, "plain")?["persistent"], false);
    daemon.quit()?;
    assert_eq!(stored(&bench)?, ["marked"]);
    Ok(())
}

#[test]
fn the_option_given_at_open_wins() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let policy = |value: &str| json!({ "persist-bitmaps": value });
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &policy("marked"))?;
    add_plain(&mut daemon.qmp, "plain")?;
    assert!(!is_persistent(&mut daemon.qmp, "plain")?);
    daemon.quit()?;
    assert!(stored(&bench)?.is_empty());

    bench.img("amend -f qbm -o persist_bitmaps=marked disk.qbm")?;
    let mut daemon = StorageDaemon::with_image_options(&bench, "disk.qbm", &policy("all"))?;
    add_plain(&mut daemon.qmp, "plain")?;
    assert!(is_persistent(&mut daemon.qmp, "plain")?);
    daemon.quit()?;
    assert_eq!(stored(&bench)?, ["plain"]);
    Ok(())
}

#[test]
fn a_wrong_value_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    let output = bench.run(
        "qemu-io",
        "-c quit -r --image-opts driver=qbm,file.filename=disk.qbm,persist-bitmaps=some",
    )?;
    let words = output.refused()?.stderr;
    ensure!(
        words.contains("persist-bitmaps must be 'marked' or 'all', not 'some'"),
        "{words}"
    );
    Ok(())
}

#[test]
fn qemu_img_adds_bitmaps_that_are_stored_anyhow() -> Result<()> {
    let bench = Bench::new()?;
    create(&bench)?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    bench.img("bitmap --add --disable -f qbm disk.qbm b1")?;
    assert_eq!(stored(&bench)?, ["b0", "b1"]);
    Ok(())
}
