// SPDX-License-Identifier: MIT OR Apache-2.0
//! Step 3: the bitmap outlived the shutdown; one incremental backup holds both boots.

use anyhow::{Result, ensure};

use super::boot::boot;
use super::session::Written;
use super::transcript::Transcript;

pub(super) fn run(transcript: &mut Transcript<'_>, first: &Written) -> Result<()> {
    transcript.step(
        3,
        "Second boot: an incremental backup of both boots' changes",
    );
    let mut session = boot(transcript)?;
    let kept_bytes = session.require_bitmap()?;
    let sums = session.run(&format!("sha256sum /mnt{}", first.path))?;
    ensure!(
        sums.starts_with(&first.sha256),
        "the guest's file changed across the boot"
    );
    session.write("second-boot", 5)?;
    let copied_bytes = session.incremental("full.qcow2", "inc1.qcow2")?;
    ensure!(
        copied_bytes > kept_bytes,
        "the backup of both boots ({copied_bytes} bytes) is no larger than the first boot's part ({kept_bytes})"
    );
    session.power_off()?;
    transcript.qemu("qemu-img", "compare -f raw -F qcow2 disk.raw inc1.qcow2")?;
    transcript.checked("full backup and increment together are the disk");
    Ok(())
}
