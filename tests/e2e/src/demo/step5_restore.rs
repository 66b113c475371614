// SPDX-License-Identifier: MIT OR Apache-2.0
//! Step 5: the chain of backups is restored, and is the disk.

use anyhow::{Result, ensure};

use super::session::Written;
use super::transcript::Transcript;

pub(super) fn run(transcript: &mut Transcript<'_>, written: &[Written]) -> Result<()> {
    transcript.step(
        5,
        "Restore: full backup and both increments, into a fresh image",
    );
    transcript.qemu("qemu-img", "convert -O raw inc2.qcow2 restored.raw")?;
    transcript.host("cmp", "restored.raw disk.raw")?;
    transcript.checked("the restored disk is the guest's disk, byte for byte");

    transcript.host("e2fsck", "-fn restored.raw")?;
    transcript.checked("its file system is clean");
    for file in written {
        let dump = format!("dump {} restored-file", file.path);
        transcript.host("debugfs", ["-R", &dump, "restored.raw"])?;
        let sha256 = transcript.sha256("restored-file")?;
        ensure!(
            sha256 == file.sha256,
            "{} is not what the guest wrote",
            file.path
        );
    }
    transcript.checked("the files in it are what the guest wrote");
    Ok(())
}
