// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data images of the operating system, and such as fail, one topic a file.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files from outside"
)]

mod block;
mod content;
mod failing;
mod refused;
mod resize;
mod threads;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::image::{CreateOptions, DataPath, OpenOptions};
use crate::storage::OsStorage;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
/// Of the bitmap `b`.
pub(super) const GRANULARITY: u64 = 64 * KIB;

/// A directory with an image `x.qbm`, its raw data image `x.qbm.raw`, and a recording bitmap `b`.
pub(super) struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    pub(super) fn new(size_bytes: u64) -> Self {
        Self::new_in(&std::env::temp_dir(), size_bytes)
    }

    pub(super) fn new_in(place: &Path, size_bytes: u64) -> Self {
        let disk = Self {
            directory: tempfile::tempdir_in(place).unwrap(),
        };
        let options = CreateOptions {
            size_bytes,
            data_file: None,
            data_format: "raw".into(),
            durability: None,
            persist_bitmaps: None,
            no_lock: false,
            exclusive: false,
        };
        Image::create(&OsStorage, &disk.file("x.qbm"), &options).unwrap();
        let (image, data) = disk.begin();
        image.add_bitmap("b", GRANULARITY, true).unwrap();
        data.inactivate(&image).unwrap();
        disk
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn content(&self) -> Vec<u8> {
        fs::read(self.file("x.qbm.raw")).unwrap()
    }

    pub(super) fn open(&self) -> Image {
        self.open_as(OpenOptions::default())
    }

    pub(super) fn open_as(&self, options: OpenOptions) -> Image {
        Image::open(Arc::new(OsStorage), &self.file("x.qbm"), options).unwrap()
    }

    pub(super) fn begin(&self) -> (Image, DataImage) {
        let image = self.open();
        let data = DataImage::activate(&image, &Activation::default()).unwrap();
        (image, data)
    }

    /// Why a data image is refused. Nothing may be left behind: the image is not active, and activates with its own.
    pub(super) fn refusal(&self, data_path: DataPath) -> Error {
        let image = self.open();
        let activation = Activation {
            data_path,
            ..Activation::default()
        };
        let error = DataImage::activate(&image, &activation).unwrap_err();
        assert!(!image.info().active);
        error
    }
}

/// Dirty granules of `b`, by number.
pub(super) fn dirty(image: &Image) -> Vec<u64> {
    let mut granules = Vec::new();
    let mut next = 0;
    while let Some(offset) = image.next_dirty("b", next).unwrap() {
        granules.push(offset / GRANULARITY);
        next = offset + GRANULARITY;
    }
    granules
}

pub(super) fn is_inconsistent(image: &Image) -> bool {
    image.bitmap("b").unwrap().inconsistent
}
