// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many bitmaps, and large ones.

use anyhow::{Context, Result, ensure};
use qbm_testkit::bitmaps::{self, on_disk, transaction};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

const TIB: u64 = 1 << 40;

#[test]
fn a_thousand_bitmaps_on_one_node() -> Result<()> {
    const COUNT: usize = 1024;
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let names: Vec<String> = (0..COUNT).map(|number| format!("b{number}")).collect();
    // Half of them at once, half one by one.
    let actions: Vec<Value> = names[..COUNT / 2]
        .iter()
        .map(|name| backup::add_action(name, 65536))
        .collect();
    transaction(&mut daemon.qmp, &actions)?;
    for name in &names[COUNT / 2..] {
        bitmaps::add(&mut daemon.qmp, name, 65536)?;
    }
    daemon.export()?.write(1 << 20, &[1; 100])?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let list = bitmaps::list(&mut daemon.qmp, "disk")?;
    ensure!(list.len() == COUNT, "{} bitmaps", list.len());
    for bitmap in &list {
        ensure!(bitmap.get("inconsistent").is_none(), "{bitmap}");
        ensure!(bitmap["count"] == 65536, "{bitmap}");
    }
    for name in &names[..10] {
        bitmaps::run(&mut daemon.qmp, "remove", name)?;
    }
    daemon.quit()?;
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.bitmap_names().len(), COUNT - 10);
    assert_eq!(descriptor.bitmap("b10")?.granules(), [16]);
    Ok(())
}

/// A disk of 64 TiB: qcow2 holds it, few file systems could.
fn huge(bench: &Bench) -> Result<StorageDaemon> {
    bench.img("create -q -f qcow2 disk.qcow2 64T")?;
    bench.img("create -q -f qbm -o data_file=disk.qcow2,data_file_format=qcow2 disk.qbm")?;
    StorageDaemon::with_image(bench, "disk.qbm")
}

#[test]
fn bitmaps_of_64_tib() -> Result<()> {
    let bench = Bench::new()?;
    let mut daemon = huge(&bench)?;
    for name in ["b0", "b1"] {
        bitmaps::add(&mut daemon.qmp, name, 65536)?;
    }
    let mut client = daemon.export()?;
    client.write(0, &[1; 100])?;
    client.write(40 * TIB, &[1; 100])?;
    client.write(64 * TIB - 100, &[1; 100])?;
    bitmaps::run(&mut daemon.qmp, "disable", "b1")?;
    bitmaps::run(&mut daemon.qmp, "clear", "b0")?;
    client.write(64 * TIB - 100, &[1; 100])?;
    daemon.kill()?;

    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let counts = [("b0", 65536), ("b1", 3 * 65536)];
    for (name, count) in counts {
        let bitmap = backup::query_bitmap(&mut daemon.qmp, name)?.context("it is gone")?;
        assert_eq!(bitmap["count"], count, "{bitmap}");
        assert!(bitmap.get("inconsistent").is_none(), "{bitmap}");
    }
    daemon.quit()?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    for (name, count) in counts {
        let bitmap = backup::query_bitmap(&mut daemon.qmp, name)?.context("it is gone")?;
        assert_eq!(bitmap["count"], count, "{bitmap}");
    }
    daemon.quit().map(drop)
}

/// The finest granularity that memory holds is qcow2's; beyond, the error says what is
/// wrong.
#[test]
fn the_smallest_granularity_for_a_disk() -> Result<()> {
    let bench = Bench::new()?;
    for (size_tib, fits) in [(1, true), (2, true), (3, false)] {
        let (qcow2, qbm) = (format!("{size_tib}.qcow2"), format!("{size_tib}.qbm"));
        let size = format!("{size_tib}T");
        bench.img(["create", "-q", "-f", "qcow2", &qcow2, &size])?;
        bench.img(["create", "-q", "-f", "qbm", &qbm, &size])?;
        let mut daemon = StorageDaemon::with_image(&bench, &qbm)?;
        let cow = json!({
            "driver": "qcow2", "node-name": "cow",
            "file": { "driver": "file", "filename": qcow2 },
        });
        daemon.qmp.execute("blockdev-add", cow)?;
        for node in ["cow", "disk"] {
            let mut add = on_disk("fine");
            add["node"] = json!(node);
            add["persistent"] = json!(true);
            add["granularity"] = json!(512);
            if fits {
                daemon.qmp.execute("block-dirty-bitmap-add", add)?;
            } else {
                let refusal = daemon.qmp.refuses("block-dirty-bitmap-add", add)?;
                let words = if node == "cow" {
                    "Too much space will be occupied".to_owned()
                } else {
                    format!(
                        "Granularity 512 is too small for an image of {} bytes",
                        size_tib * TIB
                    )
                };
                assert!(refusal.contains(&words), "{refusal}");
            }
        }
        daemon.quit()?;
    }
    Ok(())
}
