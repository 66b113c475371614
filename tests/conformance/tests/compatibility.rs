// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a reader makes of our images that knows the proposal of 2016 and nothing else.

use anyhow::{Context, Result, bail, ensure};
use qbm_conformance::disk::{Disk, GRANULE_BYTES, write};
use qbm_core::Durability;
use serde_json::{Map, Value};

/// An object of the proposal: known members, and extensions as the proposal has them.
fn members<'a>(value: &'a Value, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let object = value.as_object().context("no object")?;
    for name in object.keys() {
        if name.starts_with("ext-hard-") {
            bail!("{name} is required and not known");
        }
        let is_known = known.contains(&name.as_str()) || name.starts_with("ext-soft-");
        ensure!(is_known, "{name} is no member of the proposal");
    }
    Ok(object)
}

/// The names of the bitmaps, as the proposal has them.
fn read_as_proposed(text: &str) -> Result<Vec<String>> {
    let json: Value = serde_json::from_str(text)?;
    let outer = members(&json, &["QBM"])?;
    let qbm = members(&outer["QBM"], &["version", "image", "bitmaps"])?;
    ensure!(qbm["version"] == 1, "another version");
    let image = members(&qbm["image"], &["file", "format"])?;
    ensure!(
        image["file"].is_string() && image["format"].is_string(),
        "no image"
    );
    let bitmaps = qbm["bitmaps"].as_object().context("no bitmaps")?;
    for bitmap in bitmaps.values() {
        let bitmap = members(bitmap, &["file", "granularity-bytes", "type", "backing"])?;
        ensure!(bitmap["file"].is_string(), "no file");
        ensure!(bitmap["granularity-bytes"].is_u64(), "no granularity");
        ensure!(bitmap["type"] == "dirty", "no type");
    }
    Ok(bitmaps.keys().cloned().collect())
}

/// FORMAT: G2, G4, X11
#[test]
fn a_reader_of_the_proposal_opens_what_was_closed_and_nothing_else() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    for name in ["disabled", "lost"] {
        image.add_bitmap(name, GRANULE_BYTES, true)?;
    }
    image.set_recording("disabled", false)?;
    image.set_user_data("b", Some(b"17"))?;
    image.set_inconsistent("lost", "for the test")?;
    write(&image, &disk.log, 0, 1)?;
    let error = read_as_proposed(&disk.text()?)
        .err()
        .context("read while open")?;
    ensure!(
        error.to_string().contains("ext-hard-qbm-session"),
        "{error}"
    );
    image.inactivate()?;
    drop(image);
    let names = read_as_proposed(&disk.text()?)?;
    ensure!(names == ["b", "disabled"], "{names:?}");
    // A crash leaves it refused.
    drop(disk.activated()?);
    ensure!(
        read_as_proposed(&disk.text()?).is_err(),
        "read after a crash"
    );
    Ok(())
}
