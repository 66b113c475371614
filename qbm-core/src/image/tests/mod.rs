// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole images on the operating system's files, one topic a file.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files from outside"
)]

mod bitmaps;
mod check;
mod crash;
mod create;
mod damage;
mod defaults;
mod freeze;
mod model;
mod neighbours;
mod operations;
mod resize;
mod seal;
mod stubborn;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::storage::OsStorage;

pub(super) const MIB: u64 = 1 << 20;

/// A directory with an image `x.qbm` in it.
pub(super) struct Disk {
    pub(super) directory: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Disk {
    pub(super) fn new(size_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.qbm");
        let disk = Self { directory, path };
        Image::create(&OsStorage, &disk.path, &options(size_bytes)).unwrap();
        disk
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn data_bytes(&self) -> u64 {
        fs::metadata(self.file("x.qbm.raw")).unwrap().len()
    }

    pub(super) fn open(&self) -> Image {
        Image::open(Arc::new(OsStorage), &self.path, OpenOptions::default()).unwrap()
    }

    pub(super) fn activated(&self) -> Image {
        self.activated_as(Durability::Process)
    }

    pub(super) fn activated_as(&self, durability: Durability) -> Image {
        let image = self.open();
        image
            .activate(&Activation {
                size_bytes: self.data_bytes(),
                read_only: false,
                durability: Some(durability),
                ..Activation::default()
            })
            .unwrap();
        image
    }

    pub(super) fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// Replaces text in the descriptor, as a person with an editor would.
    pub(super) fn edit(&self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(&self.path, text.replace(from, to)).unwrap();
    }

    /// Names in the directory, sorted.
    pub(super) fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(super) fn options(size_bytes: u64) -> CreateOptions {
    CreateOptions {
        size_bytes,
        data_file: None,
        data_format: "raw".into(),
        durability: None,
        persist_bitmaps: None,
        no_lock: false,
        exclusive: false,
    }
}

/// Announces a write and says that it is over.
pub(super) fn write(image: &Image, offset_bytes: u64, length_bytes: u64) {
    let (ticket, begun) = image.begin_write(offset_bytes, length_bytes).unwrap();
    assert_eq!(begun, Begun::Ready);
    image.end_write(ticket);
}

/// Dirty granules of a loaded bitmap, as offsets.
pub(super) fn dirty(image: &Image, name: &str, granularity_bytes: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    let mut next = 0;
    while let Some(offset) = image.next_dirty(name, next).unwrap() {
        offsets.push(offset);
        next = offset + granularity_bytes;
    }
    offsets
}

pub(super) fn inconsistent(image: &Image, name: &str) -> bool {
    let bitmaps = image.bitmaps();
    let bitmap = bitmaps.iter().find(|bitmap| bitmap.name == name).unwrap();
    bitmap.inconsistent
}

pub(super) fn notices(image: &Image) -> Vec<String> {
    std::iter::from_fn(|| image.take_notice()).collect()
}
