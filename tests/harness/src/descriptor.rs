// SPDX-License-Identifier: MIT OR Apache-2.0
//! A descriptor as its text says, read without any of QBM's code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bitmap_file::BitmapFile;

/// A descriptor's JSON and where it was found.
#[derive(Debug, Clone)]
pub struct Descriptor {
    path: PathBuf,
    json: Value,
}

impl Descriptor {
    /// Reads the descriptor at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let json =
            serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            json,
        })
    }

    /// The object under the key `QBM`; null when there is none.
    #[must_use]
    pub fn qbm(&self) -> &Value {
        &self.json["QBM"]
    }

    /// The whole text's JSON, to be changed and written back by a test.
    pub fn json_mut(&mut self) -> &mut Value {
        &mut self.json
    }

    /// Writes the JSON back where it came from.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<()> {
        fs::write(&self.path, serde_json::to_vec_pretty(&self.json)?)
            .with_context(|| format!("write {}", self.path.display()))
    }

    /// The record of an image that is open, or was when its writer died.
    #[must_use]
    pub fn session(&self) -> Option<&Value> {
        self.qbm().get("ext-hard-qbm-session")
    }

    /// The data image's path.
    ///
    /// # Errors
    /// When the descriptor names none.
    pub fn data_file(&self) -> Result<PathBuf> {
        self.resolve(&self.qbm()["image"]["file"])
    }

    /// The path of a bitmap's file.
    ///
    /// # Errors
    /// When the descriptor has no bitmap of the name.
    pub fn bitmap_path(&self, name: &str) -> Result<PathBuf> {
        self.resolve(&self.qbm()["bitmaps"][name]["file"])
            .with_context(|| format!("bitmap {name:?}"))
    }

    /// The names under `bitmaps`: those that can be used.
    #[must_use]
    pub fn bitmap_names(&self) -> Vec<String> {
        let bitmaps = self.qbm()["bitmaps"].as_object();
        bitmaps
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The bits of one bitmap, from its file.
    ///
    /// # Errors
    /// When the descriptor has no such bitmap or its file cannot be read.
    pub fn bitmap(&self, name: &str) -> Result<BitmapFile> {
        let granularity_bytes = self.qbm()["bitmaps"][name]["granularity-bytes"]
            .as_u64()
            .with_context(|| format!("bitmap {name:?} has no granularity-bytes"))?;
        BitmapFile::read(&self.bitmap_path(name)?, granularity_bytes)
    }

    /// A name in a descriptor is relative to the descriptor's directory.
    fn resolve(&self, file: &Value) -> Result<PathBuf> {
        let file = file
            .as_str()
            .with_context(|| format!("{}: names no file", self.path.display()))?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        Ok(directory.join(file))
    }
}
