// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap files that are not what they should be: each costs its bitmap, no more.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use qbm_testkit::Bench;
use serde_json::json;

use super::{for_each_row, image, require_bitmap_lost};

/// The file of the bitmap `b0`.
const FILE: &str = "disk.qbm.b0.bitmap";

type Damage = fn(&Bench) -> Result<()>;

/// Rows: what is wrong with b0's file, and how to make it so.
const ROWS: &[(&str, Damage)] = &[
    ("missing", |bench| Ok(fs::remove_file(bench.path(FILE))?)),
    ("empty", |bench| bench.write(FILE, "")),
    ("a byte short", |bench| {
        let bits = bench.read(FILE)?;
        bench.write(
            FILE,
            bits.split_last().map(|(_, rest)| rest).unwrap_or_default(),
        )
    }),
    ("a byte long", |bench| {
        let bits = bench.read(FILE)?;
        bench.write(FILE, [bits.as_slice(), &[0]].concat())
    }),
    ("1 TiB long", |bench| bench.sparse(FILE, 1 << 40, &[])),
    ("a directory", |bench| {
        fs::remove_file(bench.path(FILE))?;
        Ok(fs::create_dir(bench.path(FILE))?)
    }),
    ("a device that never ends", |bench| {
        point_to(bench, "/dev/zero")
    }),
    ("a device that is always full", |bench| {
        point_to(bench, "/dev/full")
    }),
    ("a link into nothing", |bench| {
        fs::remove_file(bench.path(FILE))?;
        Ok(symlink("nowhere", bench.path(FILE))?)
    }),
    ("a pipe that nobody fills", |bench| {
        fs::remove_file(bench.path(FILE))?;
        bench.host("mkfifo", FILE).map(drop)
    }),
    ("the data image", |bench| point_to(bench, "disk.qbm.raw")),
    ("the descriptor itself", |bench| point_to(bench, "disk.qbm")),
    ("in a directory that is not there", |bench| {
        point_to(bench, "nowhere/b0.bitmap")
    }),
    ("no local file", |bench| {
        point_to(bench, "json:{\"driver\":\"null-co\"}")
    }),
];

/// Makes the descriptor say that b0's bits are in `file`.
fn point_to(bench: &Bench, file: &str) -> Result<()> {
    let mut descriptor = bench.descriptor("disk.qbm")?;
    descriptor.json_mut()["QBM"]["bitmaps"]["b0"]["file"] = json!(file);
    descriptor.write()
}

#[test]
fn each_costs_its_bitmap_and_never_the_disk() -> Result<()> {
    for_each_row(ROWS.iter().copied(), |damage| {
        let bench = image()?;
        damage(&bench)?;
        // A terabyte of zeroes is not to be read into a snapshot.
        if fs::metadata(bench.path(FILE)).is_ok_and(|about| about.len() > 1 << 30) {
            fs::rename(bench.path(FILE), bench.path(".huge"))?;
            symlink(".huge", bench.path(FILE))?;
        }
        require_bitmap_lost(&bench, &[])
    })
}
