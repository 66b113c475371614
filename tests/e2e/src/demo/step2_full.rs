// SPDX-License-Identifier: MIT OR Apache-2.0
//! Step 2: a guest runs on it; bitmap and full backup begin at the same instant.

use anyhow::Result;
use qbm_testkit::backup;

use super::boot::boot;
use super::session::Written;
use super::transcript::Transcript;
use super::{BITMAP, DISK_BYTES, GRANULARITY_BYTES};

pub(super) fn run(transcript: &mut Transcript<'_>) -> Result<Written> {
    transcript.step(
        2,
        "First boot: a full backup, and a bitmap that counts from it",
    );
    transcript.qemu(
        "qemu-img",
        &format!("create -q -f qcow2 full.qcow2 {DISK_BYTES}"),
    )?;
    let mut session = boot(transcript)?;
    session.run("ls /mnt | wc -l")?;

    let qmp = &mut session.guest.qmp;
    transcript.qmp(&format!(
        "transaction: block-dirty-bitmap-add name={BITMAP} persistent=true, \
         blockdev-backup sync=full target=full.qcow2"
    ));
    backup::open_target(qmp, "target", "qcow2", "full.qcow2")?;
    backup::full(qmp, BITMAP, GRANULARITY_BYTES, "target")?;
    backup::close_target(qmp, "target")?;
    transcript
        .checked("the full backup is done; the bitmap records what changes from its start on");

    let written = session.write("first-boot", 3)?;
    session.power_off()?;
    transcript.host("cat", "disk.qbm")?;
    Ok(written)
}
