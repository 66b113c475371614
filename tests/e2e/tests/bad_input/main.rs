// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input: each gives one clear line, or costs one bitmap; never the disk, and never
//! a byte of a file that was there.

mod bitmap_file;
mod descriptor;
mod place;
mod surroundings;

use anyhow::{Context, Result, ensure};
use qbm_testkit::{Bench, Output, Snapshot, StorageDaemon, backup};

/// An image of 1 MiB with data in it and two bitmaps, `b0` and `b1`.
fn image() -> Result<Bench> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "1M", "64k")?;
    bench.img("bitmap --add -f qbm disk.qbm b1")?;
    bench.io("disk.qbm", &["write -P 7 0 64k"])?;
    Ok(bench)
}

/// Requires that the image opens neither for reading nor for writing, with one line
/// that holds all of `words`, and that no file is touched.
fn require_refused(bench: &Bench, words: &[&str]) -> Result<()> {
    let before = Snapshot::of(bench.directory())?;
    for args in ["-r -f qbm -c quit disk.qbm", "-f qbm -c quit disk.qbm"] {
        let output = bench.run("qemu-io", args)?;
        // qemu-io ends with 1 when it cannot open, and 0 when it can.
        require_one_line(output.refused()?, words)?;
    }
    before.require_untouched()
}

/// Requires that the image opens with the bitmap `b0` lost and nothing else: b1 is good,
/// the disk is read and written, the operator is told with all of `words`, and no
/// file but the descriptor, b1's and the data image is touched.
fn require_bitmap_lost(bench: &Bench, words: &[&str]) -> Result<()> {
    let before = Snapshot::of(bench.directory())?;
    let read = ["-r", "-f", "qbm", "-c", "read -P 7 0 64k", "disk.qbm"];
    bench.run("qemu-io", read)?.succeeded()?;
    before.require_untouched().context("opened for reading")?;

    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    let b0 = backup::query_bitmap(&mut daemon.qmp, "b0")?;
    let inconsistent = b0.as_ref().is_some_and(|b0| b0["inconsistent"] == true);
    // Without a valid granularity there is nothing that QEMU could show.
    ensure!(inconsistent || b0.is_none(), "b0 is in use: {b0:?}");
    backup::require_good_bitmap(&mut daemon.qmp, "b1")?;
    let mut client = daemon.export()?;
    ensure!(client.read(0, 4)? == [7; 4], "the disk's data is gone");
    client.write(512 << 10, b"new")?;
    drop(client);
    let log = daemon.quit()?;
    for word in words.iter().chain(&["b0"]) {
        ensure!(
            log.contains(word),
            "the operator was not told {word:?}: {log:?}"
        );
    }

    let descriptor = bench.descriptor("disk.qbm")?;
    ensure!(descriptor.bitmap_names() == ["b1"], "{}", descriptor.qbm());
    ensure!(
        descriptor.bitmap("b1")?.granules() == [0, 8],
        "b1 lost its bits"
    );
    let raw = bench.read("disk.qbm.raw")?;
    ensure!(
        raw.get(512 << 10..)
            .is_some_and(|tail| tail.starts_with(b"new")),
        "the write is lost"
    );
    let others = before
        .without("disk.qbm")
        .without("disk.qbm.raw")
        .without("disk.qbm.b1.bitmap");
    others.require_kept().context("opened for writing")
}

/// Requires one line on standard error, with all of `words` in it.
fn require_one_line(output: Output, words: &[&str]) -> Result<()> {
    ensure!(output.stderr.lines().count() == 1, "not one line: {output}");
    for word in words {
        ensure!(
            output.stderr.contains(word),
            "does not say {word:?}: {output}"
        );
    }
    Ok(())
}

/// Runs `check` on every row of a table, and says which rows failed, not only the first.
fn for_each_row<R>(
    rows: impl IntoIterator<Item = (&'static str, R)>,
    check: impl Fn(R) -> Result<()>,
) -> Result<()> {
    let mut failures = Vec::new();
    for (what, row) in rows {
        if let Err(error) = check(row).with_context(|| what.to_owned()) {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(
        failures.is_empty(),
        "{} rows:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    Ok(())
}
