// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory's files as they were, to be compared later.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

/// The content and modification time of every file in a directory.
///
/// Names that begin with a dot are left out: the bench's own sockets and logs.
#[derive(Debug, Clone)]
pub struct Snapshot {
    directory: PathBuf,
    files: BTreeMap<String, (Vec<u8>, SystemTime)>,
}

impl Snapshot {
    /// Takes in what is there now.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn of(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let about = entry.metadata()?;
            if name.starts_with('.') || !about.is_file() {
                continue;
            }
            let content = fs::read(entry.path()).with_context(|| format!("read {name}"))?;
            files.insert(name, (content, about.modified()?));
        }
        Ok(Self {
            directory: directory.to_owned(),
            files,
        })
    }

    /// Requires that the directory's files are what they were: same names, bytes and
    /// modification times.
    ///
    /// # Errors
    /// When one was changed, removed or added; the message names it.
    pub fn require_untouched(&self) -> Result<()> {
        let now = Self::of(&self.directory)?;
        self.require_kept_in(&now)?;
        for name in now.files.keys() {
            ensure!(self.files.contains_key(name), "{name} was left behind");
        }
        Ok(())
    }

    /// Requires that every file that was there still is what it was; new ones may
    /// have come.
    ///
    /// # Errors
    /// When one was changed or removed; the message names it.
    pub fn require_kept(&self) -> Result<()> {
        self.require_kept_in(&Self::of(&self.directory)?)
    }

    /// Forgets a file: it may change.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.files.remove(name);
        self
    }

    /// The names of files that came since.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn added(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = Self::of(&self.directory)?.files.into_keys().collect();
        names.retain(|name| !self.files.contains_key(name));
        Ok(names)
    }

    fn require_kept_in(&self, now: &Self) -> Result<()> {
        for (name, (content, modified)) in &self.files {
            let Some((content_now, modified_now)) = now.files.get(name) else {
                bail!("{name} is gone");
            };
            ensure!(content == content_now, "{name} was changed");
            ensure!(modified == modified_now, "{name} was written to");
        }
        Ok(())
    }
}
