// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trace events tell what becomes of bitmaps.

use anyhow::{Result, ensure};
use qbm_testkit::Bench;

/// Runs qemu-img with the driver's events on; gives the lines that it printed.
fn traced(bench: &Bench, arguments: &str) -> Result<Vec<String>> {
    let traced = format!("-T qbm_* {arguments}");
    let output = bench.img(&traced)?;
    Ok(output.stderr.lines().map(str::to_owned).collect())
}

/// Requires a line of the event with these words in it, and of each only what was asked.
fn require(lines: &[String], event: &str, words: &[&str]) -> Result<()> {
    let found = lines.iter().any(|line| {
        let text = line.rsplit_once(&format!("{event} ")).map(|(_, text)| text);
        text.is_some_and(|text| words.iter().all(|word| text.contains(word)))
    });
    ensure!(found, "no {event} with {words:?} in {lines:#?}");
    Ok(())
}

#[test]
fn the_life_of_a_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let lines = traced(&bench, "bitmap --add -g 4k -f qbm disk.qbm b0")?;
    require(&lines, "qbm_open", &["disk.qbm"])?;
    require(&lines, "qbm_activate", &["size 67108864", "read_only 0"])?;
    require(&lines, "qbm_bitmap_add", &["bitmap b0", "granularity 4096"])?;
    require(&lines, "qbm_bitmap_changed", &["bitmap b0"])?;
    require(&lines, "qbm_bitmap_store", &["bitmap b0", "exact 1"])?;
    require(&lines, "qbm_inactivate", &["bs "])?;

    let lines = traced(&bench, "bitmap --clear -f qbm disk.qbm b0")?;
    let loaded = ["bitmap b0", "granularity 4096", "usable 1", "recording 1"];
    require(&lines, "qbm_bitmap_load", &loaded)?;
    require(&lines, "qbm_bitmap_changed", &["bitmap b0"])?;

    let lines = traced(&bench, "bitmap --remove -f qbm disk.qbm b0")?;
    require(&lines, "qbm_bitmap_remove", &["disk.qbm", "bitmap b0"])
}

/// What the operator is told is in the trace as well.
#[test]
fn a_bitmap_that_is_lost() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.write("disk.qbm.b0.bitmap", "too short")?;
    let lines = traced(&bench, "bitmap --add -f qbm disk.qbm b1")?;
    require(&lines, "qbm_notice", &["b0"])?;
    require(&lines, "qbm_bitmap_load", &["bitmap b0", "usable 0"])
}
