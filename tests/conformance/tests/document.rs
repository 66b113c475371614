// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the specification shows is what its rules say.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use qbm_conformance::case::{Bits, read_table};
use qbm_conformance::sandbox::Sandbox;
use qbm_conformance::{checksum, fixtures, observe, tree};

fn specification() -> Result<String> {
    let path = tree().join("qbm-core/FORMAT.md");
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// FORMAT: G2, A4 - the examples as a reader finds them
#[test]
fn every_example_opens_or_is_refused_for_its_allocation_bitmap() -> Result<()> {
    let text = specification()?;
    let examples: Vec<&str> = text
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    ensure!(examples.len() >= 5, "{} examples", examples.len());
    for example in examples {
        let sandbox = Sandbox::new()?;
        fs::write(sandbox.descriptor(), example)?;
        match observe::open(&sandbox.descriptor(), true) {
            Ok(_) => ensure!(!example.contains("\"allocation\""), "opened: {example}"),
            Err(error) => ensure!(example.contains("\"allocation\""), "{error}: {example}"),
        }
        if example.contains("ext-soft-qbm-crc32c\": \"") {
            ensure!(
                checksum::holds(example),
                "should be {:?}: {example}",
                checksum::of(example)
            );
        }
        // A reader of the proposal does not know our extensions: it must be able to tell what it may open.
        let json: serde_json::Value = serde_json::from_str(example)?;
        let members = json["QBM"].as_object().context("no object")?;
        let is_open = members.keys().any(|name| name.starts_with("ext-hard-"));
        ensure!(is_open == example.contains("qbm-session"), "{example}");
    }
    Ok(())
}

/// FORMAT: K1, K2
#[test]
fn the_checksum_step_by_step() -> Result<()> {
    let text = specification()?;
    let (_, rest) = text.split_once("Step by step").context("no steps")?;
    let mut blocks: Vec<String> = vec![String::new()];
    for line in rest.lines() {
        match line.strip_prefix("        ") {
            Some(code) => {
                if let Some(block) = blocks.last_mut() {
                    block.push_str(code);
                    block.push('\n');
                }
            }
            None if line.is_empty() => {}
            None => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| block.starts_with('{'));
    let [blank, whole] = &blocks[..2] else {
        anyhow::bail!("no two texts");
    };
    ensure!(blank.len() == 159, "{} bytes", blank.len());
    ensure!(
        checksum::of(blank).as_deref() == Some("bd585770"),
        "{:?}",
        checksum::of(blank)
    );
    ensure!(
        checksum::sealed(blank) == *whole && checksum::holds(whole),
        "{whole}"
    );
    Ok(())
}

/// FORMAT: K5 - the numbers of section 6
#[test]
fn checksums_of_bitmaps() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c::crc32c(b""), 0);
    assert_eq!(crc32c::crc32c(&[9, 4]), 0xb84d_bb02);
    assert_eq!(crc32c::crc32c(&[0, 0]), 0xf161_77d2);
    assert_eq!(crc32c::crc32c(&[0; 4096]), 0x98f9_4189);
}

/// FORMAT: B1, B2, B9 - the table of section 4
#[test]
fn bitmap_files_of_the_table() -> Result<()> {
    let text = specification()?;
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.starts_with("| size | granularity | bits |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    ensure!(rows.len() == 5, "{rows:?}");
    let table: BTreeMap<String, Bits> = read_table(&fixtures().join("bitmaps/expected.json"))?;
    for row in rows {
        let number = |index: usize| -> Result<u64> { Ok(row[index].parse()?) };
        let (size, granularity, bits, bytes) = (number(0)?, number(1)?, number(2)?, number(3)?);
        ensure!(
            bits == size.div_ceil(granularity) && bytes == bits.div_ceil(8),
            "{row:?}"
        );
        let is_same =
            |fixture: &Bits| fixture.size_bytes == size && fixture.granularity_bytes == granularity;
        let fixture = table.iter().find(|(_, fixture)| is_same(fixture));
        let (name, _) = fixture.with_context(|| format!("no fixture for {row:?}"))?;
        let content = fs::read(fixtures().join("bitmaps").join(name))?;
        let hex: Vec<String> = content.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(
            row[5] == format!("`{}`", hex.join(" ")) || (row[5].is_empty() && hex.is_empty()),
            "{name}: {hex:?}"
        );
    }
    Ok(())
}
