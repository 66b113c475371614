// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of any size that take no space, for benchmarks and for tests of what size costs.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use qbm_core::storage::OsStorage;
use qbm_core::{Activation, CreateOptions, Durability, Image, OpenOptions};

/// The granularity of the bitmaps here, in bytes.
pub const GRANULARITY_BYTES: u64 = 65536;
/// Bits of a chunk, the piece in which a bitmap is in memory.
pub const CHUNK_BITS: u64 = 32768;
/// A disk at the upper end of what is in use.
pub const LARGE_BYTES: u64 = 64 << 40;

/// An image in a directory of its own. It is opened as a disk of `size_bytes`; its data image is empty.
#[derive(Debug)]
pub struct Disk {
    directory: tempfile::TempDir,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
}

impl Disk {
    /// A new image without bitmaps.
    pub fn new(size_bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = Self {
            directory,
            size_bytes,
        };
        // A file system may not take a raw file of 64 TiB, however sparse. QBM does not look into the data image, so an
        // empty file of another format does.
        fs::write(disk.path("data"), "").expect("a file in a directory of ours");
        let options = CreateOptions {
            size_bytes,
            data_file: Some("data".into()),
            data_format: "qcow2".into(),
            durability: None,
            persist_bitmaps: None,
            no_lock: false,
            exclusive: false,
        };
        Image::create(&OsStorage, &disk.path("x.qbm"), &options).expect("a new image");
        disk
    }

    /// A new image with clean bitmaps `b0`, `b1` and so on, as an image of the proposal that was never opened.
    pub fn with_bitmaps(size_bytes: u64, granularity_bytes: u64, count: u64) -> Self {
        let disk = Self::new(size_bytes);
        let length = size_bytes.div_ceil(granularity_bytes).div_ceil(8);
        let bitmaps = (0..count).map(|index| {
            let file = File::create(disk.path(&format!("b{index}.bitmap")));
            file.and_then(|file| file.set_len(length))
                .expect("a file in a directory of ours");
            format!(
                r#""b{index}":{{"file":"b{index}.bitmap","granularity-bytes":{granularity_bytes},"type":"dirty"}}"#
            )
        });
        let bitmaps = bitmaps.collect::<Vec<_>>().join(",");
        let image = r#"{"file":"data","format":"qcow2"}"#;
        let text = format!(r#"{{"QBM":{{"version":1,"image":{image},"bitmaps":{{{bitmaps}}}}}}}"#);
        fs::write(disk.path("x.qbm"), text).expect("a file in a directory of ours");
        disk
    }

    /// Where a file of the image is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The image, active.
    pub fn activated(&self, read_only: bool, durability: Durability) -> Image {
        let options = OpenOptions {
            read_only,
            ..OpenOptions::default()
        };
        let path = self.path("x.qbm");
        let image = Image::open(Arc::new(OsStorage), &path, options).expect("it is an image");
        let activation = Activation {
            size_bytes: self.size_bytes,
            read_only,
            durability: Some(durability),
            ..Activation::default()
        };
        image.activate(&activation).expect("it can be used");
        image
    }

    /// Adds an empty bitmap in a session of its own.
    pub fn add_bitmap(&self, name: &str, granularity_bytes: u64) {
        let image = self.activated(false, Durability::Process);
        image
            .add_bitmap(name, granularity_bytes, true)
            .expect("the name is free");
        image.inactivate().expect("the session ends");
    }

    /// Sets bits of a bitmap in a session of its own.
    pub fn set(&self, bitmap: &str, granularity_bytes: u64, bits: impl IntoIterator<Item = u64>) {
        let image = self.activated(false, Durability::Close);
        for bit in bits {
            image
                .mark_dirty(bitmap, bit * granularity_bytes, 1)
                .expect("the bit is within the disk");
        }
        image.inactivate().expect("the session ends");
    }

    /// What the image's files take on disk, in bytes.
    pub fn allocated_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.directory.path()).expect("a directory of ours");
        let files = entries.map(|entry| entry.and_then(|entry| entry.metadata()));
        files
            .map(|metadata| metadata.expect("a file of ours").blocks() * 512)
            .sum()
    }
}

/// A write from beginning to end.
pub fn write(image: &Image, offset_bytes: u64, length_bytes: u64) {
    let (ticket, _) = image
        .begin_write(offset_bytes, length_bytes)
        .expect("the image is writable");
    image.end_write(ticket);
}

/// `count` bits of `bits_count`, each in a chunk of its own and far from the others.
pub fn far_apart(count: u64, bits_count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |index| index * (bits_count / count) + index)
}
