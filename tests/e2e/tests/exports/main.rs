// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage daemon's exports other than NBD: what is written through them is marked.

use anyhow::{Result, ensure};
use qbm_testkit::oracle::judge;
use qbm_testkit::{Bench, StorageDaemon, backup};

mod fuse;
mod vhost_user_blk;

/// After a kill, `b0` has all that is not as in `before.raw`, and counts as good.
fn require_recovered(bench: &Bench) -> Result<()> {
    let bitmap = bench.descriptor("disk.qbm")?.bitmap("b0")?;
    let verdict = judge(
        &bench.path("before.raw"),
        &bench.path("disk.qbm.raw"),
        &bitmap,
    )?;
    ensure!(verdict.changed_count > 10, "nothing changed: {verdict:?}");
    verdict.require_complete()?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit().map(drop)
}
