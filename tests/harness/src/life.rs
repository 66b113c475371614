// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image's life leaves of its bitmaps: the same questions to qbm and qcow2.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Bench, StorageDaemon, bitmaps};

/// The formats that are held beside each other.
pub const FORMATS: [&str; 2] = ["qbm", "qcow2"];

/// The granularity of the bitmaps of [`image`].
pub const GRANULE: u64 = 65536;

/// A bitmap as the next start of a machine finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The bytes that it marks; nothing when it is inconsistent.
    pub dirty_bytes: Option<u64>,
    /// Whether it records.
    pub recording: bool,
}

/// A bitmap that records and marks so many granules.
#[must_use]
pub fn recording(name: &str, granules: u64) -> Found {
    Found {
        name: name.to_owned(),
        dirty_bytes: Some(granules * GRANULE),
        recording: true,
    }
}

/// A bitmap that does not record and marks so many granules.
#[must_use]
pub fn resting(name: &str, granules: u64) -> Found {
    Found {
        recording: false,
        ..recording(name, granules)
    }
}

/// A bitmap that cannot be used any more.
#[must_use]
pub fn inconsistent(name: &str) -> Found {
    Found {
        name: name.to_owned(),
        dirty_bytes: None,
        recording: false,
    }
}

/// Makes an image of 64 MiB with a bitmap that records, `b0`.
///
/// # Errors
/// When qemu-img fails.
pub fn image(bench: &Bench, format: &str, file: &str) -> Result<()> {
    bench.image_with_bitmap_as(format, file, "64M", &GRANULE.to_string())
}

/// The option that opens the image as node `disk`.
#[must_use]
pub fn blockdev(format: &str, file: &str) -> String {
    format!(
        "-blockdev driver=file,node-name=file,filename={file} \
         -blockdev driver={format},node-name=disk,file=file"
    )
}

/// Opens the image for writing, and lists the bitmaps that are there then, by name.
///
/// # Errors
/// When the image does not open.
pub fn found(bench: &Bench, format: &str, file: &str) -> Result<Vec<Found>> {
    let mut daemon = StorageDaemon::start(bench)?;
    let node = json!({
        "driver": format, "node-name": "disk", "file": { "driver": "file", "filename": file },
    });
    daemon.qmp.execute("blockdev-add", node)?;
    let mut list = Vec::new();
    for bitmap in bitmaps::list(&mut daemon.qmp, "disk")? {
        list.push(describe(&bitmap)?);
    }
    daemon.quit()?;
    list.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(list)
}

fn describe(bitmap: &Value) -> Result<Found> {
    ensure!(bitmap["persistent"] == true, "not persistent: {bitmap}");
    let usable = bitmap["inconsistent"] != true;
    let dirty_bytes = bitmap["count"].as_u64().context("no count")?;
    Ok(Found {
        name: bitmap["name"].as_str().context("no name")?.to_owned(),
        dirty_bytes: usable.then_some(dirty_bytes),
        recording: usable && bitmap["recording"] == true,
    })
}

/// The flags that `qemu-img info` shows for each bitmap, by name.  It changes nothing.
///
/// # Errors
/// When qemu-img fails.
pub fn flags(bench: &Bench, format: &str, file: &str) -> Result<Vec<(String, Vec<String>)>> {
    let output = bench.img(["info", "-U", "--output=json", "-f", format, file])?;
    let info: Value = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    let bitmaps = &info["format-specific"]["data"]["bitmaps"];
    let mut list = Vec::new();
    for bitmap in bitmaps.as_array().into_iter().flatten() {
        let flags = bitmap["flags"].as_array().context("no flags")?;
        let flags = flags.iter().filter_map(Value::as_str).map(str::to_owned);
        let name = bitmap["name"].as_str().context("no name")?.to_owned();
        list.push((name, flags.collect()));
    }
    list.sort();
    Ok(list)
}
