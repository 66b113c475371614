// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors below 1 MiB that ask for as much as they can: each takes less than 64 MiB, and the disk opens (I5).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peak_alloc::PeakAlloc;
use qbm_core::storage::OsStorage;
use qbm_core::{Activation, Image, OpenOptions};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const INPUT_BYTES_MAX: usize = 1 << 20;
const LIVE_BYTES_MAX: usize = 64 << 20;

/// The allocator counts for the whole process, so this is one after the other.
#[test]
fn small_files_cost_little() {
    a_kept_member_of_many_short_lines();
    as_many_bitmaps_as_there_may_be_on_a_disk_that_grew();
    one_bitmap_on_a_disk_that_grew_beyond_measure();
    user_data_by_the_mebibyte();
}

fn write_descriptor(directory: &Path, text: &str) -> PathBuf {
    assert!(text.len() < INPUT_BYTES_MAX, "{} bytes", text.len());
    let path = directory.join("x.qbm");
    fs::write(&path, text).unwrap();
    fs::write(directory.join("data"), "").unwrap();
    path
}

/// Opens for reading, then for writing, and closes; returns what has become of the bitmaps.
fn visit(path: &Path, size_bytes: u64) -> Vec<qbm_core::BitmapInfo> {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut bitmaps = Vec::new();
    for read_only in [true, false] {
        let options = OpenOptions {
            read_only,
            ..OpenOptions::default()
        };
        let image = Image::open(Arc::new(OsStorage), path, options).unwrap();
        let activation = Activation {
            size_bytes,
            read_only,
            ..Activation::default()
        };
        image.activate(&activation).unwrap();
        bitmaps = image.bitmaps();
        image.inactivate().unwrap();
    }
    let live = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(live < LIVE_BYTES_MAX, "{live} bytes");
    bitmaps
}

fn text(bitmaps: &str, more: &str) -> String {
    format!(
        r#"{{"QBM":{{"version":1,"image":{{"file":"data","format":"qcow2"}},"bitmaps":{{{bitmaps}}}{more}}}}}"#
    )
}

fn seal(size_bytes: u64) -> String {
    format!(r#","ext-soft-qbm-seal":{{"generation":1,"size-bytes":{size_bytes}}}"#)
}

fn a_kept_member_of_many_short_lines() {
    let directory = tempfile::tempdir().unwrap();
    let depth = 100;
    let member = format!(
        "{}1{}{}",
        "[".repeat(depth),
        ",1".repeat(400_000),
        "]".repeat(depth)
    );
    let path = write_descriptor(
        directory.path(),
        &text("", &format!(r#","ext-soft-other":{member}"#)),
    );
    visit(&path, 1 << 30);
    let after = fs::read_to_string(path).unwrap();
    assert!(after.matches('1').count() > 400_000, "the member is kept");
}

fn as_many_bitmaps_as_there_may_be_on_a_disk_that_grew() {
    const COUNT: u64 = 4096;
    const GROWN_BITS: u64 = (1 << 27) / COUNT;
    const OLD_BYTES: u64 = (1 << 30) - 512 * 100;
    let directory = tempfile::tempdir().unwrap();
    let mut bitmaps = String::new();
    for index in 0..COUNT {
        let comma = if index == 0 { "" } else { "," };
        write!(
            bitmaps,
            r#"{comma}"b{index}":{{"file":"b{index}","granularity-bytes":512,"type":"dirty"}}"#
        )
        .unwrap();
        let file = File::create(directory.path().join(format!("b{index}"))).unwrap();
        file.set_len((OLD_BYTES / 512).div_ceil(8)).unwrap();
    }
    let path = write_descriptor(directory.path(), &text(&bitmaps, &seal(OLD_BYTES)));
    // As much as all bitmaps together may take; each gets bits in as many chunks as can be.
    let found = visit(&path, OLD_BYTES + GROWN_BITS * 512);
    assert_eq!(found.len() as u64, COUNT);
    assert!(found.iter().all(|bitmap| !bitmap.inconsistent));
}

fn one_bitmap_on_a_disk_that_grew_beyond_measure() {
    let directory = tempfile::tempdir().unwrap();
    let bitmap = r#""b":{"file":"b","granularity-bytes":512,"type":"dirty"}"#;
    File::create(directory.path().join("b")).unwrap();
    let path = write_descriptor(directory.path(), &text(bitmap, &seal(0)));
    let found = visit(&path, 512 << 36);
    assert!(found[0].inconsistent);
}

fn user_data_by_the_mebibyte() {
    let directory = tempfile::tempdir().unwrap();
    let data = "QUFB".repeat(65_000 / 3);
    let mut bitmaps = Vec::new();
    for index in 0..11 {
        bitmaps.push(format!(
            r#""b{index}":{{"file":"b{index}","granularity-bytes":65536,"type":"dirty","ext-soft-qbm-user-data":"{data}"}}"#
        ));
        File::create(directory.path().join(format!("b{index}"))).unwrap();
    }
    let path = write_descriptor(directory.path(), &text(&bitmaps.join(","), &seal(0)));
    let found = visit(&path, 0);
    assert!(found.iter().all(|bitmap| !bitmap.inconsistent));
}
