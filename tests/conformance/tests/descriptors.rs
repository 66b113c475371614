// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors by themselves: which are accepted, and what is read in them; which are refused, and in what words.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use qbm_conformance::case::{Found, Refusal, read_table};
use qbm_conformance::sandbox::Sandbox;
use qbm_conformance::{compare, fixtures, members, observe};

/// Runs `check` for every descriptor of a folder, and demands that table and folder list the same.
fn for_each<T: serde::de::DeserializeOwned>(
    folder: &str,
    check: impl Fn(&Sandbox, &T) -> Result<()>,
) -> Result<()> {
    let folder = fixtures().join("descriptors").join(folder);
    let mut table: BTreeMap<String, T> = read_table(&folder.join("expected.json"))?;
    let mut failures = Vec::new();
    let mut names: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    names.sort();
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "expected.json" {
            continue;
        }
        let Some(expected) = table.remove(&*name) else {
            bail!("{name} is not in expected.json");
        };
        let sandbox = Sandbox::new()?;
        fs::copy(&path, sandbox.descriptor())?;
        let before = sandbox.snapshot()?;
        let result = check(&sandbox, &expected).and_then(|()| {
            // FORMAT: S3 - whatever came of it, nothing was changed.
            before.ensure_same(&sandbox.snapshot()?)
        });
        if let Err(error) = result {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(
        table.is_empty(),
        "only in expected.json: {:?}",
        table.keys()
    );
    ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
    Ok(())
}

#[test]
fn valid_descriptors_are_accepted() -> Result<()> {
    for_each("valid", |sandbox, expected: &Found| {
        for read_only in [true, false] {
            let image = observe::open(&sandbox.descriptor(), read_only)?;
            let seen = observe::look(&image)?;
            compare::ensure_found(expected, &seen, sandbox.path())?;
        }
        if let Some(recognised) = expected.recognised {
            let head = sandbox.text()?;
            ensure!(qbm_core::probe(head.as_bytes()) == recognised, "probe");
        }
        Ok(())
    })
}

#[test]
fn invalid_descriptors_are_refused() -> Result<()> {
    for_each("invalid", |sandbox, expected: &Refusal| {
        for read_only in [true, false] {
            match observe::open(&sandbox.descriptor(), read_only) {
                Ok(_) => bail!("accepted"),
                Err(error) => compare::ensure_refused(expected, &error)?,
            }
        }
        Ok(())
    })
}

/// FORMAT: X2, D9, D22, K1, K2, K3
#[test]
fn a_session_keeps_what_it_does_not_know_where_it_stood() -> Result<()> {
    let folder = fixtures().join("descriptors/valid");
    let table: BTreeMap<String, Found> = read_table(&folder.join("expected.json"))?;
    let mut failures = Vec::new();
    for (name, expected) in table {
        let sandbox = Sandbox::new()?;
        fs::copy(folder.join(&name), sandbox.descriptor())?;
        let before = sandbox.text()?;
        let result = session(&sandbox, &expected)
            .and_then(|()| kept(&before, &sandbox.text()?))
            .with_context(|| name.clone());
        if let Err(error) = result {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
    Ok(())
}

/// Opens for writing a disk of 1 MiB and closes. What the descriptor names is not there: its bitmaps become inconsistent.
fn session(sandbox: &Sandbox, expected: &Found) -> Result<()> {
    let image = observe::open(&sandbox.descriptor(), false)?;
    let activation = qbm_core::Activation {
        size_bytes: expected.size_bytes.unwrap_or(1 << 20),
        ..qbm_core::Activation::default()
    };
    image.activate(&activation)?;
    image.inactivate()?;
    Ok(())
}

fn kept(before: &str, after: &str) -> Result<()> {
    ensure!(after.ends_with("}\n"), "the text ends with a line feed");
    ensure!(
        qbm_conformance::checksum::holds(after),
        "the checksum does not hold: {after}"
    );
    let outer_is_foreign =
        |name: &str| name.starts_with("ext-soft-") && name != "ext-soft-qbm-crc32c";
    // The checksum moves to the end; all others stay.
    let without_checksum = |text: &str| -> Result<String> {
        let members = members::Members::read(text)?.0;
        let rest = members
            .iter()
            .filter(|(name, _)| name != "ext-soft-qbm-crc32c");
        let rest: Vec<String> = rest
            .map(|(name, value)| format!("{}:{}", serde_json::json!(name), value.get()))
            .collect();
        Ok(format!("{{{}}}", rest.join(",")))
    };
    let (before, after) = (without_checksum(before)?, without_checksum(after)?);
    members::ensure_kept("outermost", &before, &after, outer_is_foreign)?;
    let inner = |text: &str, path: &[&str]| -> Result<String> {
        let mut text = text.to_owned();
        for name in path {
            let object = members::Members::read(&text)?;
            text = object
                .get(name)
                .with_context(|| (*name).to_owned())?
                .to_owned();
        }
        Ok(text)
    };
    let before = before.replacen("\"BITMAPS\"", "\"bitmaps\"", 1);
    let qbm_is_foreign = |name: &str| {
        let ours = ["inconsistent", "seal", "trusted"].map(|key| format!("ext-soft-qbm-{key}"));
        name.starts_with("ext-soft-") && !ours.iter().any(|key| key == name)
    };
    members::ensure_kept(
        "QBM",
        &inner(&before, &["QBM"])?,
        &inner(&after, &["QBM"])?,
        qbm_is_foreign,
    )?;
    let image = ["QBM", "image"];
    members::ensure_kept(
        "image",
        &inner(&before, &image)?,
        &inner(&after, &image)?,
        |_| true,
    )?;
    // Every BITMAP is in the list now, to the letter.
    let Ok(bitmaps) = inner(&before, &["QBM", "bitmaps"]) else {
        return Ok(());
    };
    let list = inner(&after, &["QBM", "ext-soft-qbm-inconsistent"]).unwrap_or("{}".to_owned());
    let list = members::Members::read(&list)?.0.into_iter();
    let list: BTreeMap<String, _> = list.collect();
    for (name, value) in members::Members::read(&bitmaps)?.0 {
        let listed = list
            .get(&name)
            .with_context(|| format!("{name:?} is not listed"))?;
        let listed = members::squeezed(&inner(listed.get(), &["bitmap"])?);
        // FORMAT: X15 - what says nothing new is left out.
        let value = value.get().replace(",\"ext-soft-qbm-recording\":true", "");
        ensure!(
            listed == members::squeezed(&value),
            "bitmap {name:?} was {value}, is listed as {listed}"
        );
    }
    Ok(())
}
