// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole images in each state: what is found, what an opening for writing and a clean close make of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use qbm_conformance::case::{After, Case, Found, Refusal, read};
use qbm_conformance::members::squeezed;
use qbm_conformance::observe::{self, Seen};
use qbm_conformance::sandbox::Sandbox;
use qbm_conformance::{compare, fixtures};
use qbm_core::check::{check, repair};
use qbm_core::storage::OsStorage;

/// Every image of one state; the state is a folder.
fn state(name: &str) -> Result<()> {
    let folder = fixtures().join("images").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    ensure!(!paths.is_empty(), "{} is empty", folder.display());
    let mut failures = Vec::new();
    for path in paths {
        if let Err(error) = image(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            failures.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
    Ok(())
}

fn image(fixture: &Path) -> Result<()> {
    let case: Case = read(&fixture.join("case.json"))?;
    match (&case.found, &case.refused) {
        (Some(found), None) => {
            found_for_reading(fixture, &case, found).context("opened for reading")?;
            found_for_writing(fixture, &case, found).context("opened for writing")?;
            // A check asks for no override.
            if !case.trust_data {
                found_by_check(fixture, &case, found).context("checked")?;
                left_by_repair(fixture, &case, found).context("repaired")?;
            }
            Ok(())
        }
        (None, Some(refusal)) => [true, false]
            .into_iter()
            .try_for_each(|read_only| refused(fixture, &case, refusal, read_only)),
        _ => bail!("case.json: exactly one of \"found\" and \"refused\" is needed"),
    }
}

fn opened(
    sandbox: &Sandbox,
    case: &Case,
    read_only: bool,
) -> qbm_core::Result<(qbm_core::Image, Seen)> {
    let image = observe::open(&sandbox.descriptor(), read_only)?;
    image.activate(&observe::activation(case, read_only))?;
    let seen = observe::look(&image)?;
    Ok((image, seen))
}

/// FORMAT: S3
fn refused(fixture: &Path, case: &Case, refusal: &Refusal, read_only: bool) -> Result<()> {
    let sandbox = Sandbox::of_image(fixture, case)?;
    let before = sandbox.snapshot()?;
    match opened(&sandbox, case, read_only) {
        Ok(_) => bail!("accepted"),
        Err(error) => compare::ensure_refused(refusal, &error)?,
    }
    before.ensure_same(&sandbox.snapshot()?)
}

/// FORMAT: S3, C1
fn found_for_reading(fixture: &Path, case: &Case, found: &Found) -> Result<()> {
    let sandbox = Sandbox::of_image(fixture, case)?;
    let before = sandbox.snapshot()?;
    let (image, seen) = opened(&sandbox, case, true)?;
    compare::ensure_found(found, &seen, sandbox.path())?;
    image.inactivate()?;
    drop(image);
    before.ensure_same(&sandbox.snapshot()?)
}

/// FORMAT: C1
fn found_by_check(fixture: &Path, case: &Case, found: &Found) -> Result<()> {
    let sandbox = Sandbox::of_image(fixture, case)?;
    let before = sandbox.snapshot()?;
    let report = check(
        Arc::new(OsStorage),
        &sandbox.descriptor(),
        &observe::check_options(case),
    )?;
    let lost = report
        .findings
        .iter()
        .filter(|finding| finding.kind.costs_bitmap());
    let lost: BTreeSet<_> = lost.filter_map(|finding| finding.bitmap.as_ref()).collect();
    let expected: BTreeSet<_> = found.inconsistent.keys().collect();
    // Without the data image nothing is said of the bitmaps.
    let is_there = case.data.is_some() || case.data_is_given;
    ensure!(
        lost == expected || !is_there,
        "lost are {lost:?}, not {expected:?}: {report:?}"
    );
    before.ensure_same(&sandbox.snapshot()?)
}

/// FORMAT: C2, C3
fn left_by_repair(fixture: &Path, case: &Case, found: &Found) -> Result<()> {
    let sandbox = Sandbox::of_image(fixture, case)?;
    let before = sandbox.snapshot()?;
    let path = sandbox.descriptor();
    let result = repair(Arc::new(OsStorage), &path, &observe::check_options(case));
    if case.data.is_none() && !case.data_is_given {
        // What the bitmaps are worth cannot be told without the data image.
        ensure!(result.is_err(), "repaired without its data image");
        return before.ensure_same(&sandbox.snapshot()?);
    }
    result?;
    if let Some(data) = &case.data {
        before.ensure_file_same(&data.file, &sandbox.snapshot()?)?;
    }
    // What was usable is so still, with the same bits; what was not is not.
    let (_, seen) = opened(&sandbox, case, true)?;
    compare::ensure_found(&once_told(found), &seen, sandbox.path())
}

/// What the next opening finds after one for writing: the same, without telling it again.
fn once_told(found: &Found) -> Found {
    let inconsistent = found.inconsistent.keys();
    Found {
        notices: Vec::new(),
        durability: None,
        size_bytes: None,
        inconsistent: inconsistent
            .map(|name| (name.clone(), Vec::new()))
            .collect(),
        ..found.clone()
    }
}

/// FORMAT: S2, O15, J12
fn found_for_writing(fixture: &Path, case: &Case, found: &Found) -> Result<()> {
    let sandbox = Sandbox::of_image(fixture, case)?;
    let before = sandbox.snapshot()?;
    let (image, seen) = opened(&sandbox, case, false)?;
    compare::ensure_found(found, &seen, sandbox.path())?;
    image.inactivate()?;
    drop(image);
    let closed = sandbox.snapshot()?;
    if let Some(data) = &case.data {
        before.ensure_file_same(&data.file, &closed)?;
    }
    ensure_after(&sandbox, &case.after, before.names())?;
    // What was found once is on record now: the next opening finds the same, and needs no override.
    let next = Case {
        trust_data: false,
        ..case.clone()
    };
    let (_, seen) = opened(&sandbox, &next, true).context("opened again")?;
    compare::ensure_found(&once_told(found), &seen, sandbox.path()).context("opened again")?;
    closed.ensure_same(&sandbox.snapshot()?)
}

fn ensure_after(sandbox: &Sandbox, after: &After, files_before: Vec<String>) -> Result<()> {
    let text = squeezed(&sandbox.text()?);
    for piece in &after.has {
        ensure!(text.contains(piece), "afterwards it lacks {piece}: {text}");
    }
    for piece in &after.lacks {
        ensure!(!text.contains(piece), "afterwards it has {piece}: {text}");
    }
    let files = after.files.clone().unwrap_or(files_before);
    let listing = sandbox.listing()?;
    ensure!(listing == files, "files are {listing:?}, not {files:?}");
    for (name, expected) in &after.bits {
        let bits = fs::read(sandbox.file(name))?;
        let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(hex == *expected, "{name} is {hex}, not {expected}");
    }
    Ok(())
}

macro_rules! states {
    ($($test:ident: $folder:literal,)*) => {
        $(#[test]
        fn $test() -> Result<()> {
            state($folder)
        })*

        #[test]
        fn every_state_is_listed() -> Result<()> {
            let mut folders: Vec<String> = fs::read_dir(fixtures().join("images"))?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<_>>()?;
            folders.sort();
            let mut listed = [$($folder),*];
            listed.sort_unstable();
            ensure!(folders == listed, "{folders:?}");
            Ok(())
        }
    };
}

states! {
    as_proposed: "as-proposed",
    clean: "clean",
    changed_while_closed: "changed",
    crashed: "crashed",
    resize_cut_short: "resize",
    bitmap_files: "bitmap-files",
    inconsistent: "inconsistent",
    torn: "torn",
    refused_images: "refused",
    trust_override: "override",
    generations: "generations",
}
