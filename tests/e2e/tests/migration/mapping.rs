// SPDX-License-Identifier: MIT OR Apache-2.0
//! `block-bitmap-mapping`: bitmaps arrive under other names, and stored or not as it says.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, Found, GRANULE, found, recording};
use serde_json::{Value, json};

use crate::{Pair, what_stays, write};

fn map(pair: &mut Pair, source: &Value, destination: &Value) -> Result<()> {
    for (machine, bitmaps) in [
        (&mut pair.source, source),
        (&mut pair.destination, destination),
    ] {
        let node = json!({ "node-name": "disk", "alias": "the-disk", "bitmaps": bitmaps });
        let mapping = json!({ "block-bitmap-mapping": [node] });
        machine.qmp.execute("migrate-set-parameters", mapping)?;
    }
    Ok(())
}

fn alias(name: &str, alias: &str) -> Value {
    json!({ "name": name, "alias": alias })
}

fn persistent(name: &str, alias: &str, persistent: bool) -> Value {
    json!({ "name": name, "alias": alias, "transform": { "persistent": persistent } })
}

fn add_temporary(pair: &mut Pair, name: &str) -> Result<()> {
    let bitmap = json!({ "node": "disk", "name": name, "granularity": GRANULE });
    let add = "block-dirty-bitmap-add";
    pair.source.qmp.execute(add, bitmap).map(drop)
}

/// Moves the disk, with a write before and one after; gives what is stored in the end.
fn moved(mut pair: Pair, format: &str) -> Result<Vec<Found>> {
    write(&mut pair.source, 0)?;
    pair.start()?;
    pair.complete()?;
    write(&mut pair.destination, 1)?;
    pair.source.quit()?;
    pair.destination.quit()?;
    found(&pair.bench, format, "disk")
}

#[test]
fn another_name() -> Result<()> {
    for format in FORMATS {
        let mut pair = Pair::shared(format, &["dirty-bitmaps"])?;
        map(
            &mut pair,
            &json!([alias("b0", "x")]),
            &json!([alias("b1", "x")]),
        )?;
        let mut expected = what_stays(format, "b0");
        expected.push(recording("b1", 2));
        assert_eq!(moved(pair, format)?, expected, "{format}");
    }
    Ok(())
}

/// A temporary bitmap becomes a stored one on its way, and the other way round.
#[test]
fn persistence_is_transformed() -> Result<()> {
    for format in FORMATS {
        let mut pair = Pair::shared(format, &["dirty-bitmaps"])?;
        add_temporary(&mut pair, "t0")?;
        let both = json!([persistent("b0", "b0", false), persistent("t0", "t0", true)]);
        map(
            &mut pair,
            &both,
            &json!([alias("b0", "b0"), alias("t0", "t0")]),
        )?;
        let mut expected = what_stays(format, "b0");
        expected.push(recording("t0", 2));
        assert_eq!(moved(pair, format)?, expected, "{format}");
    }
    Ok(())
}

/// What the mapping does not name stays, stored in the image that both have.
#[test]
fn one_of_two_is_named() -> Result<()> {
    for format in FORMATS {
        let mut pair = Pair::shared(format, &["dirty-bitmaps"])?;
        let add = json!({
            "node": "disk", "name": "b1", "granularity": GRANULE, "persistent": true,
        });
        pair.source.qmp.execute("block-dirty-bitmap-add", add)?;
        let named = json!([alias("b1", "b1")]);
        map(&mut pair, &named, &named)?;
        let stored = moved(pair, format)?;
        assert_eq!(stored, [recording("b0", 2), recording("b1", 2)], "{format}");
    }
    Ok(())
}
