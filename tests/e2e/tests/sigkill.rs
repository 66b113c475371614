// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fifty kills under load: no bitmap misses a block, none is lost.

use anyhow::Result;

#[test]
fn fifty_kills_lose_nothing() -> Result<()> {
    let summary = qbm_e2e::crash::run(50, 2016, |line| println!("{line}"))?;
    println!("{summary}");
    assert_eq!(summary.rounds_count, 50);
    // Else the run tested nothing.
    assert!(summary.backups_count > 0 && summary.changed_count > 0);
    Ok(())
}
