// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmap files, byte by byte, in both directions.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use qbm_conformance::case::{Bits, read_table};
use qbm_conformance::sandbox::Sandbox;
use qbm_conformance::{fixtures, observe};
use qbm_core::{Activation, Durability, Image};
use serde_json::json;

fn for_each(check: impl Fn(&Sandbox, &Bits, &[u8]) -> Result<()>) -> Result<()> {
    let folder = fixtures().join("bitmaps");
    let table: BTreeMap<String, Bits> = read_table(&folder.join("expected.json"))?;
    ensure!(
        fs::read_dir(&folder)?.count() == table.len() + 1,
        "a file is not in expected.json"
    );
    for (name, row) in table {
        let bits = fs::read(folder.join(&name)).with_context(|| name.clone())?;
        check(&Sandbox::new()?, &row, &bits).with_context(|| name)?;
    }
    Ok(())
}

fn describe(sandbox: &Sandbox, bitmaps: &serde_json::Value) -> Result<()> {
    let image = json!({"file": "disk.raw", "format": "raw"});
    let descriptor = json!({"QBM": {"version": 1, "image": image, "bitmaps": bitmaps}});
    fs::write(sandbox.descriptor(), descriptor.to_string())?;
    Ok(())
}

fn activated(
    sandbox: &Sandbox,
    row: &Bits,
    read_only: bool,
    durability: Durability,
) -> Result<Image> {
    let image = observe::open(&sandbox.descriptor(), read_only)?;
    image.activate(&Activation {
        size_bytes: row.size_bytes,
        read_only,
        durability: Some(durability),
        ..Activation::default()
    })?;
    Ok(image)
}

#[test]
fn bits_that_are_read() -> Result<()> {
    for_each(|sandbox, row, bits| {
        fs::write(sandbox.file("b"), bits)?;
        let bitmap =
            json!({"file": "b", "granularity-bytes": row.granularity_bytes, "type": "dirty"});
        describe(sandbox, &json!({"b": bitmap}))?;
        let image = activated(sandbox, row, true, Durability::Process)?;
        let seen = observe::look(&image)?;
        let dirty = seen
            .bitmaps
            .get("b")
            .and_then(|bitmap| bitmap.dirty.clone());
        ensure!(dirty.as_ref() == Some(&row.dirty), "{dirty:?}");
        Ok(())
    })
}

#[test]
fn bits_that_are_written() -> Result<()> {
    for durability in [Durability::Close, Durability::Process] {
        for_each(|sandbox, row, bits| {
            describe(sandbox, &json!({}))?;
            let image = activated(sandbox, row, false, durability)?;
            image.add_bitmap("b", row.granularity_bytes, true)?;
            for (offset, length) in &row.writes {
                let (ticket, _) = image.begin_write(*offset, *length)?;
                image.end_write(ticket);
            }
            image.inactivate()?;
            let written = fs::read(sandbox.file("x.qbm.b.bitmap"))?;
            ensure!(
                written == bits,
                "{durability:?}: {written:02x?}, not {bits:02x?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}
