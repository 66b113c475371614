// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demonstration's guest: one disk, the same for every boot.

use anyhow::{Result, ensure};
use qbm_testkit::Guest;

use super::session::Session;
use super::transcript::Transcript;

const DISK: &str = "-drive driver=qbm,file=disk.qbm,node-name=disk,discard=unmap,if=virtio";

/// Boots the guest and mounts its disk.
pub(super) fn boot<'a>(transcript: &'a Transcript<'a>) -> Result<Session<'a>> {
    let session = boot_whatever_qemu_says(transcript)?;
    ensure!(
        session.said.is_empty(),
        "QEMU complained:\n{}",
        session.said
    );
    Ok(session)
}

/// As [`boot`], after a crash: QEMU has to tell the operator.
pub(super) fn boot_after_crash<'a>(transcript: &'a Transcript<'a>) -> Result<Session<'a>> {
    let session = boot_whatever_qemu_says(transcript)?;
    ensure!(
        session.said.contains("not closed cleanly"),
        "QEMU says nothing of the crash: {:?}",
        session.said
    );
    Ok(session)
}

fn boot_whatever_qemu_says<'a>(transcript: &'a Transcript<'a>) -> Result<Session<'a>> {
    let guest = Guest::boot(transcript.bench(), DISK)?;
    let said = guest.stderr();
    transcript.typed(&format!("qemu-system-x86_64 ... {DISK}"), &said);
    let mut session = Session {
        transcript,
        guest,
        said,
    };
    session.run("uname -sr")?;
    session.run("mount -t ext4 /dev/vda /mnt")?;
    Ok(session)
}
