// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small disk whose storage is recorded.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use qbm_core::{Activation, Begun, CreateOptions, Durability, Image, OpenOptions};

use crate::recording::{Log, Recording};
use crate::sandbox::Sandbox;

/// Size of the disk: sixteen granules of 64 KiB.
pub const SIZE_BYTES: u64 = 1 << 20;
/// Granularity of its bitmaps.
pub const GRANULE_BYTES: u64 = 65536;

/// What `Image::create` is asked for: a data image, which is made when none is named.
#[must_use]
pub fn create_options(size_bytes: u64, data_file: Option<&str>, format: &str) -> CreateOptions {
    CreateOptions {
        size_bytes,
        data_file: data_file.map(str::to_owned),
        data_format: format.to_owned(),
        durability: None,
        persist_bitmaps: None,
        no_lock: false,
        exclusive: false,
    }
}

/// `x.qbm` and `x.qbm.raw` in a directory of their own.
#[derive(Debug)]
pub struct Disk {
    /// The directory.
    pub sandbox: Sandbox,
    /// What happens there.
    pub log: Log,
    storage: Arc<Recording>,
}

impl Disk {
    /// A new one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        let storage = Recording::default();
        let disk = Self {
            sandbox: Sandbox::new()?,
            log: storage.log.clone(),
            storage: Arc::new(storage),
        };
        let options = create_options(SIZE_BYTES, None, "raw");
        Image::create(&*disk.storage, &disk.sandbox.descriptor(), &options)?;
        Ok(disk)
    }

    /// A new one with a bitmap `b` that records, open for writing; the log is empty.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn with_bitmap(durability: Durability) -> Result<(Self, Arc<Image>)> {
        let disk = Self::new()?;
        let image = disk.activated_as(durability)?;
        image.add_bitmap("b", GRANULE_BYTES, true)?;
        disk.log.clear();
        Ok((disk, image))
    }

    /// A file in its directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.sandbox.file(name)
    }

    /// The descriptor's text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self) -> Result<String> {
        self.sandbox.text()
    }

    /// Opened, not activated.
    ///
    /// # Errors
    /// It is refused.
    pub fn opened(&self, options: OpenOptions) -> qbm_core::Result<Arc<Image>> {
        let path = self.sandbox.descriptor();
        Image::open(self.storage.clone(), &path, options).map(Arc::new)
    }

    /// Open for writing, at the size of the data image now.
    ///
    /// # Errors
    /// It is refused.
    pub fn activated(&self) -> Result<Arc<Image>> {
        self.activated_as(Durability::Process)
    }

    /// As [`activated`](Self::activated), of a durability.
    ///
    /// # Errors
    /// It is refused.
    pub fn activated_as(&self, durability: Durability) -> Result<Arc<Image>> {
        let image = self.opened(OpenOptions::default())?;
        image.activate(&Activation {
            size_bytes: fs::metadata(self.file("x.qbm.raw"))?.len(),
            durability: Some(durability),
            ..Activation::default()
        })?;
        Ok(image)
    }

    /// The data image gets another length, as a resize by QEMU gives it.
    ///
    /// # Errors
    /// The system's.
    pub fn resize_data(&self, size_bytes: u64) -> Result<()> {
        let data = fs::File::options()
            .write(true)
            .open(self.file("x.qbm.raw"))?;
        data.set_len(size_bytes)?;
        self.log.note("data resized");
        Ok(())
    }
}

/// A guest's write: announced, moved, ended.
///
/// # Errors
/// It could not be announced, or had to wait.
pub fn write(image: &Image, log: &Log, offset_bytes: u64, length_bytes: u64) -> Result<()> {
    let (ticket, begun) = image.begin_write(offset_bytes, length_bytes)?;
    anyhow::ensure!(begun == Begun::Ready, "the write has to wait");
    log.note("data moved");
    image.end_write(ticket);
    Ok(())
}

/// Dirty granules of a bitmap, as numbers.
///
/// # Errors
/// There is no such bitmap.
pub fn dirty(image: &Image, name: &str) -> Result<Vec<u64>> {
    let mut granules = Vec::new();
    let mut offset = 0;
    while let Some(extent) = image.next_dirty_extent(name, offset)? {
        let granules_of_it =
            extent.offset_bytes / GRANULE_BYTES..extent.end_bytes().div_ceil(GRANULE_BYTES);
        granules.extend(granules_of_it);
        offset = extent.end_bytes();
    }
    Ok(granules)
}
