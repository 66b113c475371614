// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demonstration's guest: one disk, the same for every boot.

use anyhow::Result;
use qbm_testkit::Guest;

use super::session::Session;
use super::transcript::Transcript;

const DISK: &str = "-drive driver=qbm,file=disk.qbm,node-name=disk,discard=unmap,if=virtio";

/// Boots the guest and mounts its disk.
pub(super) fn boot<'a>(transcript: &'a Transcript<'a>) -> Result<Session<'a>> {
    transcript.typed(&format!("qemu-system-x86_64 ... {DISK}"), "");
    let guest = Guest::boot(transcript.bench(), DISK)?;
    let mut session = Session::new(transcript, guest);
    session.run("uname -sr")?;
    session.run("mount -t ext4 /dev/vda /mnt")?;
    Ok(session)
}
