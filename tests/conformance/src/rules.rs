// SPDX-License-Identifier: MIT OR Apache-2.0
//! The specification's rules, and the tests that name them.
//!
//! A rule is a row of a table in qbm-core/FORMAT.md whose first cell is its number: a capital letter and digits. A test
//! names rules in a comment, `FORMAT: D7, X2` (what follows ` - ` is for the reader); a fixture names them at the beginning of its name, `d07-x02-...`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A rule's number, so that D9 comes before D10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    topic: char,
    number: u32,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}{}", self.topic, self.number)
    }
}

impl Rule {
    /// Reads `D7`, or (of a fixture's name) `d07`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        let topic = characters.next()?.to_ascii_uppercase();
        let digits = characters.as_str();
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !topic.is_ascii_uppercase() || !is_number {
            return None;
        }
        let number = digits.parse().ok()?;
        Some(Self { topic, number })
    }
}

/// Where each rule is named.
pub type Coverage = BTreeMap<Rule, BTreeSet<String>>;

/// Every rule of the specification.
///
/// # Errors
/// It cannot be read, or a number stands twice.
pub fn rules(specification: &Path) -> Result<BTreeSet<Rule>> {
    let text = fs::read_to_string(specification)
        .with_context(|| format!("read {}", specification.display()))?;
    let mut rules = BTreeSet::new();
    for line in text.lines() {
        let first = line
            .strip_prefix("| ")
            .and_then(|rest| rest.split(" |").next());
        if let Some(rule) = first.and_then(Rule::read) {
            ensure!(rules.insert(rule), "rule {rule} stands twice");
        }
    }
    Ok(rules)
}

/// Rules that sources below `root` and fixtures name.
///
/// # Errors
/// Something cannot be read, or what follows `FORMAT:` is no list of rules.
pub fn named(root: &Path, fixtures: &Path) -> Result<Coverage> {
    let mut coverage = Coverage::new();
    for folder in ["qbm-core", "qbm-ffi", "qemu-glue", "tests"] {
        for path in files(&root.join(folder))? {
            let extension = path.extension().unwrap_or_default();
            if ["rs", "c", "sh", "py"]
                .iter()
                .any(|known| extension == *known)
            {
                read_source(root, &path, &mut coverage)?;
            }
        }
    }
    read_fixtures(fixtures, &mut coverage)?;
    Ok(coverage)
}

fn read_source(root: &Path, path: &Path, coverage: &mut Coverage) -> Result<()> {
    // Built by hand, so that this line is none.
    let marker = ["FORMAT", ": "].concat();
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let shown = path
        .strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string();
    for (index, line) in text.lines().enumerate() {
        let comment = line
            .trim_start()
            .trim_start_matches(['/', '!', '#', '*', ' ']);
        let Some(list) = comment.strip_prefix(&marker) else {
            continue;
        };
        if comment == line.trim_start() {
            continue;
        }
        let list = list.split(" - ").next().unwrap_or(list);
        for name in list.split([',', ' ']).filter(|name| !name.is_empty()) {
            let Some(rule) = Rule::read(name) else {
                bail!("{shown}:{}: {name:?} is no rule's number", index + 1);
            };
            coverage.entry(rule).or_default().insert(shown.clone());
        }
    }
    Ok(())
}

/// A fixture is a file beside `expected.json`, or the folder of a `case.json`.
fn read_fixtures(root: &Path, coverage: &mut Coverage) -> Result<()> {
    for path in files(root)? {
        let folder = path.parent().unwrap_or(root);
        let is_case = folder.join("case.json").exists();
        let fixture = if is_case { folder } else { &path };
        let name = fixture.file_name().unwrap_or_default().to_string_lossy();
        if name == "expected.json" {
            continue;
        }
        let shown = fixture.strip_prefix(root).unwrap_or(fixture).display();
        let rules: Vec<Rule> = name.split('-').map_while(Rule::read).collect();
        ensure!(
            !rules.is_empty(),
            "{shown}: the name does not begin with a rule"
        );
        for rule in rules {
            coverage
                .entry(rule)
                .or_default()
                .insert(format!("fixtures/{shown}"));
        }
    }
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "target" {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
