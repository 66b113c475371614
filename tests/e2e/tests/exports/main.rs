// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage daemon's exports other than NBD: what is written through them is marked.

use anyhow::{Result, ensure};
use qbm_testkit::oracle::{Verdict, judge};
use qbm_testkit::{Bench, StorageDaemon, backup};

mod fuse;
mod vhost_user_blk;

/// Holds `b0` against what is not as in `before.raw`.
fn verdict(bench: &Bench) -> Result<Verdict> {
    let descriptor = bench.descriptor("disk.qbm")?;
    let (before, now) = (bench.path("before.raw"), descriptor.data_file()?);
    judge(&before, &now, &descriptor.bitmap("b0")?)
}

/// After a kill, `b0` has all that is not as in `before.raw`, and counts as good.
fn require_recovered(bench: &Bench) -> Result<()> {
    let verdict = verdict(bench)?;
    ensure!(verdict.changed_count > 10, "nothing changed: {verdict:?}");
    verdict.require_complete()?;
    let mut daemon = StorageDaemon::with_image(bench, "disk.qbm")?;
    backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
    daemon.quit().map(drop)
}
