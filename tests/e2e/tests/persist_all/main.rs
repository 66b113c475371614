// SPDX-License-Identifier: MIT OR Apache-2.0
//! `persist-bitmaps=all`: every bitmap that has a name is stored as soon as it is there.

mod limits;
mod migration;
mod nodes;
mod qmp;

use anyhow::{Context, Result};
use qbm_testkit::qmp::Qmp;
use qbm_testkit::{Bench, backup, bitmaps};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// An image that stores all bitmaps.
fn create(bench: &Bench) -> Result<()> {
    bench.img("create -q -f qbm -o persist_bitmaps=all disk.qbm 64M")?;
    Ok(())
}

/// Adds a bitmap to node `disk` as software does that knows nothing of persistence.
fn add_plain(qmp: &mut Qmp, name: &str) -> Result<()> {
    bitmaps::run(qmp, "add", name)
}

fn query(qmp: &mut Qmp, name: &str) -> Result<Value> {
    backup::query_bitmap(qmp, name)?.with_context(|| format!("no bitmap {name:?}"))
}

fn is_persistent(qmp: &mut Qmp, name: &str) -> Result<bool> {
    Ok(query(qmp, name)?["persistent"] == json!(true))
}

/// The names of the stored bitmaps, sorted.
fn stored(bench: &Bench) -> Result<Vec<String>> {
    let mut names = bench.descriptor("disk.qbm")?.bitmap_names();
    names.sort();
    Ok(names)
}
