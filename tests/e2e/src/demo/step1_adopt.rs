// SPDX-License-Identifier: MIT OR Apache-2.0
//! Step 1: a raw disk with a file system on it is adopted, and stays as it is.

use anyhow::{Result, ensure};

use super::transcript::Transcript;
use super::{DISK_BYTES, files};
use crate::size;

pub(super) fn run(transcript: &mut Transcript<'_>) -> Result<()> {
    transcript.step(1, "A raw disk, adopted as it is");
    let (files_count, bytes) = files::gather(&transcript.bench().path("files"))?;
    transcript.host("truncate", &format!("-s {DISK_BYTES} disk.raw"))?;
    transcript.host("mkfs.ext4", "-q -d files disk.raw")?;
    transcript.checked(&format!(
        "an ext4 file system with {files_count} files, {}",
        size(bytes)
    ));

    let before = transcript.sha256("disk.raw")?;
    transcript.qemu(
        "qemu-img",
        "create -q -f qbm -o data_file=disk.raw disk.qbm",
    )?;
    let after = transcript.sha256("disk.raw")?;
    ensure!(before == after, "adopting the disk changed it");
    transcript.checked("not a byte of disk.raw has changed");

    let info = transcript.qemu("qemu-img", "info disk.qbm")?;
    ensure!(
        info.stdout.contains("file format: qbm"),
        "the image is not recognized: {info}"
    );
    Ok(())
}
