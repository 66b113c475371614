// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold of every kind of data image.

use anyhow::{Result, ensure};
use qbm_testkit::load::Load;
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup, bitmaps};
use serde_json::{Value, json};

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;
pub(crate) const DISK_BYTES: u64 = 24 * MIB;
const GRANULARITY_BYTES: u64 = 64 * KIB;

/// How the data image of `disk.qbm` is got at.
#[derive(Debug, Default)]
pub(crate) struct DataImage {
    /// What the node needs, for `object-add`.
    pub(crate) objects: Vec<Value>,
    /// The option `data-file`; nothing when the descriptor's name is enough.
    pub(crate) node: Option<Value>,
    /// How qemu-img is told of its content.
    pub(crate) for_qemu_img: Vec<String>,
}

impl DataImage {
    /// Starts a daemon that has `disk.qbm` open over it.
    pub(crate) fn open(&self, bench: &Bench) -> Result<StorageDaemon> {
        let mut daemon = StorageDaemon::start(bench)?;
        for object in &self.objects {
            daemon.qmp.execute("object-add", object.clone())?;
        }
        let options = match &self.node {
            Some(node) => json!({ "data-file": node }),
            None => json!({}),
        };
        daemon.add_image("disk.qbm", &options)?;
        Ok(daemon)
    }

    /// Copies what a guest sees to a raw file.
    fn copy(&self, bench: &Bench, to: &str) -> Result<()> {
        let mut args = vec!["convert".to_owned(), "-O".to_owned(), "raw".to_owned()];
        args.extend(self.for_qemu_img.clone());
        args.push(to.to_owned());
        bench.img(args.as_slice()).map(drop)
    }
}

/// Opens, writes, closes, opens again, and kills under load.
pub(crate) fn keeps_bitmaps(bench: &Bench, image: &DataImage) -> Result<()> {
    exact_after_a_clean_close(bench, image)?;
    image.copy(bench, "before.raw")?;
    nothing_missed_after_a_kill(bench, image)?;
    // What the kill left can be used: it is closed in order, and is as it was.
    let count = settled_count(bench, image)?;
    ensure!(count == settled_count(bench, image)?, "it has changed");
    Ok(())
}

fn exact_after_a_clean_close(bench: &Bench, image: &DataImage) -> Result<()> {
    let mut daemon = image.open(bench)?;
    bitmaps::add(&mut daemon.qmp, "b0", GRANULARITY_BYTES)?;
    let mut client = daemon.export()?;
    ensure!(client.size_bytes() == DISK_BYTES, "{}", client.size_bytes());
    client.write(MIB, &[1; 100])?;
    client.write_zeroes(2 * MIB, 128 * 1024)?;
    client.trim(4 * MIB, 64 * 1024)?;
    client.write(DISK_BYTES - 512, &[2; 512])?;
    client.flush()?;
    drop(client);
    ensure!(daemon.quit()?.is_empty(), "it complained");

    let descriptor = bench.descriptor("disk.qbm")?;
    ensure!(descriptor.session().is_none(), "still in use");
    let expected = [16, 32, 33, 64, DISK_BYTES / GRANULARITY_BYTES - 1];
    assert_eq!(descriptor.bitmap("b0")?.granules(), expected);

    let mut daemon = image.open(bench)?;
    let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    assert_eq!(count, expected.len() as u64 * GRANULARITY_BYTES);
    let mut client = daemon.export()?;
    assert_eq!(client.read(MIB, 100)?, [1; 100]);
    assert_eq!(client.read(DISK_BYTES - 512, 512)?, [2; 512]);
    drop(client);
    bitmaps::run(&mut daemon.qmp, "clear", "b0")?;
    ensure!(daemon.quit()?.is_empty(), "it complained");
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.set_count(), 0);
    Ok(())
}

fn nothing_missed_after_a_kill(bench: &Bench, image: &DataImage) -> Result<()> {
    let mut daemon = image.open(bench)?;
    let load = Load::start_by_sector(daemon.export()?, 16, 42);
    if let Err(stuck) = load.wait_for(200) {
        let failed = load.join().err().unwrap_or(stuck);
        return Err(failed.context(daemon.stderr()));
    }
    daemon.kill()?;
    load.join()?;
    require_complete(bench, image)
}

/// Holds `b0` against what changed since `before.raw`.
pub(crate) fn require_complete(bench: &Bench, image: &DataImage) -> Result<()> {
    image.copy(bench, "after.raw")?;
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    let verdict = judge(&bench.path("before.raw"), &bench.path("after.raw"), &bitmap)?;
    ensure!(verdict.changed_count > 10, "nothing changed: {verdict:?}");
    verdict.require_complete()
}

/// What `b0` marks, in memory and in its file.
fn settled_count(bench: &Bench, image: &DataImage) -> Result<u64> {
    let mut daemon = image.open(bench)?;
    let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    bitmaps::require_settled(bench, &mut daemon.qmp, "b0")?;
    daemon.quit()?;
    Ok(count)
}

/// Is `b0` refused when the image is opened?
pub(crate) fn is_inconsistent(bench: &Bench, image: &DataImage) -> Result<bool> {
    let mut daemon = image.open(bench)?;
    let bitmap = backup::query_bitmap(&mut daemon.qmp, "b0")?.unwrap_or_default();
    ensure!(bitmap["persistent"] == true, "{bitmap}");
    daemon.quit()?;
    Ok(bitmap["inconsistent"] == true)
}

/// A bitmap `b0` with the one granule 1, closed in order.
pub(crate) fn with_one_granule(bench: &Bench, image: &DataImage) -> Result<()> {
    let mut daemon = image.open(bench)?;
    bitmaps::add(&mut daemon.qmp, "b0", GRANULARITY_BYTES)?;
    daemon.export()?.write(GRANULARITY_BYTES, &[1; 512])?;
    daemon.quit()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [1]);
    Ok(())
}

/// Requires that `b0` marks granule 1 when the image is opened, and all from `from` to `end`.
pub(crate) fn require_dirty_from(
    bench: &Bench,
    image: &DataImage,
    from: u64,
    end: u64,
) -> Result<()> {
    let mut daemon = image.open(bench)?;
    let count = backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    assert_eq!(count, (1 + end - from) * GRANULARITY_BYTES);
    daemon.quit()?;
    let expected: Vec<u64> = std::iter::once(1).chain(from..end).collect();
    assert_eq!(
        bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(),
        expected
    );
    Ok(())
}
