// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of features names tests that exist, and that are run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The rows of the document's tables, without their heads, each with its cells.
fn rows() -> Result<Vec<Vec<String>>> {
    let text = read(&root().join("qemu-glue/FEATURES.md"))?;
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---");
    Ok(text
        .lines()
        .filter(is_row)
        .filter(|line| !line.starts_with("| feature |"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect())
}

/// The names in a cell: what stands between backquotes.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The functions marked as tests in a file, and run, as `file::function`;
/// in a directory, `directory::file::function`.
fn functions(file: &str, path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    let marked = text.split("#[test]").skip(1);
    marked
        .map(|rest| {
            let (marks, rest) = rest.split_once("fn ").context("a test without a name")?;
            let name = rest.split('(').next().unwrap_or_default();
            ensure!(!marks.contains("ignore"), "{file}::{name} is not run");
            Ok(format!("{file}::{name}"))
        })
        .collect()
}

/// Each test, and how many have that name.
fn end_to_end_tests() -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    let mut add = |names: Vec<String>| {
        for name in names {
            *found.entry(name).or_default() += 1;
        }
    };
    for entry in fs::read_dir(root().join("tests/e2e/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().context("no name")?.to_string_lossy();
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                let module = path.file_stem().context("no name")?.to_string_lossy();
                add(functions(&format!("{name}::{module}"), &path)?);
            }
        } else {
            add(functions(&name, &path)?);
        }
    }
    Ok(found)
}

/// Those that the list of QEMU's tests wants to pass.
fn passing_iotests() -> Result<BTreeMap<String, u32>> {
    let list = read(&root().join("qemu-glue/iotests/list"))?;
    Ok(list
        .lines()
        .filter_map(|line| match line.strip_prefix("flaky ") {
            Some(flaky) => flaky.split(' ').next(),
            None => line.strip_prefix("pass "),
        })
        .map(|name| (format!("iotests:{name}"), 1))
        .collect())
}

#[test]
fn each_row_is_shown_by_tests() -> Result<()> {
    let mut known = end_to_end_tests()?;
    known.extend(passing_iotests()?);
    let rows = rows()?;
    ensure!(rows.len() > 20, "only {} rows", rows.len());
    for row in rows {
        ensure!(row.len() == 4, "not four cells: {row:?}");
        let shown_by = names(&row[3]);
        ensure!(!shown_by.is_empty(), "no test: {row:?}");
        for name in shown_by {
            let count = known.get(name).copied().unwrap_or_default();
            ensure!(count == 1, "there are {count} tests {name:?}: {row:?}");
        }
    }
    Ok(())
}
