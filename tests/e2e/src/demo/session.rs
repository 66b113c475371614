// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running guest, with all that is done to it shown.

use anyhow::{Result, ensure};
use qbm_testkit::{Guest, backup};

use super::transcript::Transcript;
use super::{BITMAP, DISK_BYTES};
use crate::{percent, size};

/// A file that the guest wrote, and the checksum that the guest computed of it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Where, from the root of the disk's file system.
    pub(super) path: String,
    /// The SHA-256 in hexadecimal digits.
    pub(super) sha256: String,
}

/// A running guest.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) transcript: &'a Transcript<'a>,
    pub(super) guest: Guest,
    /// What QEMU said while it started.
    pub(super) said: String,
}

impl Session<'_> {
    /// Runs a command in the guest.
    pub(super) fn run(&mut self, command: &str) -> Result<String> {
        let output = self.guest.run(command)?;
        self.transcript.typed_in_guest(command, &output);
        Ok(output)
    }

    /// Writes a file of `mebibytes` random MiB.
    pub(super) fn write(&mut self, name: &str, mebibytes: u32) -> Result<Written> {
        self.run(&format!(
            "dd if=/dev/urandom of=/mnt/{name} bs=1M count={mebibytes} 2>/dev/null"
        ))?;
        let sum = self.run(&format!("sha256sum /mnt/{name}"))?;
        let sha256 = sum.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Written {
            path: format!("/{name}"),
            sha256,
        })
    }

    /// Requires that the bitmap is there and can be used; gives the bytes it marks.
    pub(super) fn require_bitmap(&mut self) -> Result<u64> {
        let marked_bytes = backup::require_good_bitmap(&mut self.guest.qmp, BITMAP)?;
        self.transcript.qmp("query-named-block-nodes");
        self.transcript.checked(&format!(
            "the bitmap \"{BITMAP}\" is there, consistent, and marks {}",
            size(marked_bytes)
        ));
        Ok(marked_bytes)
    }

    /// Unmounts, backs up what changed since the backup `base`, and holds the result
    /// against the disk.
    pub(super) fn incremental(&mut self, base: &str, file: &str) -> Result<u64> {
        // Nothing is to change between the backup and the comparison.
        self.run("sync; umount /mnt")?;
        self.transcript.qemu(
            "qemu-img",
            &format!("create -q -f qcow2 -b {base} -F qcow2 {file}"),
        )?;
        let qmp = &mut self.guest.qmp;
        self.transcript.qmp(&format!(
            "blockdev-backup sync=incremental bitmap={BITMAP} target={file}"
        ));
        backup::open_target(qmp, "target", "qcow2", file)?;
        let copied_bytes = backup::incremental(qmp, BITMAP, "target")?;
        backup::close_target(qmp, "target")?;
        ensure!(
            copied_bytes > 0 && copied_bytes < DISK_BYTES / 4,
            "an incremental backup of {copied_bytes} bytes"
        );
        self.transcript.checked(&format!(
            "copied {} of {}: {} of the disk",
            size(copied_bytes),
            size(DISK_BYTES),
            percent(copied_bytes, DISK_BYTES)
        ));
        Ok(copied_bytes)
    }

    /// Shuts down in order.
    pub(super) fn power_off(self) -> Result<()> {
        self.transcript.typed_in_guest("poweroff", "");
        let stderr = self.guest.power_off()?;
        ensure!(stderr == self.said, "QEMU complained:\n{stderr}");
        Ok(())
    }
}
