// SPDX-License-Identifier: MIT OR Apache-2.0
//! Step 4: QEMU is killed while the guest writes; the next backup is incremental still.

use anyhow::Result;

use super::boot::{boot, boot_after_crash};
use super::session::Written;
use super::transcript::Transcript;

/// Writes until the end of the world, and says how far it got.
const WRITE_FOR_EVER: &str = "mkdir -p /mnt/crash; n=0; while :; do n=$((n+1)); \
     dd if=/dev/urandom of=/mnt/crash/$((n%20)) bs=64k count=8 conv=fsync 2>/dev/null; \
     echo \"@qbm wrote $n\"; done";

/// The kill comes when this many files were written, and more are under way.
const FILES_BEFORE_KILL: &str = "wrote 25";

pub(super) fn run(transcript: &mut Transcript<'_>) -> Result<Written> {
    transcript.step(
        4,
        "Third boot: killed while it writes. Fourth boot: no harm done",
    );
    let mut session = boot(transcript)?;
    session.require_bitmap()?;
    transcript.typed_in_guest(
        "while :; do dd if=/dev/urandom of=/mnt/crash/... conv=fsync; done",
        "",
    );
    session.guest.start(WRITE_FOR_EVER)?;
    session.guest.wait_for(FILES_BEFORE_KILL)?;
    let kill = format!("kill -9 {}", session.guest.process_id());
    session.guest.kill()?;
    transcript.typed(&kill, "");
    transcript.qemu("qemu-img", "info disk.qbm")?;

    let mut session = boot_after_crash(transcript)?;
    session.require_bitmap()?;
    let written = session.write("fourth-boot", 2)?;
    session.incremental("inc1.qcow2", "inc2.qcow2")?;
    session.power_off()?;
    Ok(written)
}
