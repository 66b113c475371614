// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both sides have the same image: the source stores its bitmaps, the destination loads
//! them.

use anyhow::Result;
use qbm_testkit::life::{FORMATS, flags, found, recording};
use qbm_testkit::{Bench, oracle};

use crate::{Pair, write};

/// Writes before, during and after are all in the bitmap, and nothing else is.
fn every_write_is_marked(format: &str, capabilities: &[&str]) -> Result<()> {
    let mut pair = Pair::shared(format, capabilities)?;
    write(&mut pair.source, 0)?;
    pair.start()?;
    write(&mut pair.source, 10)?;
    pair.complete()?;
    write(&mut pair.destination, 20)?;
    let bench = pair.bench;
    pair.source.quit()?;
    pair.destination.quit()?;

    let stored = [("b0".to_owned(), vec!["auto".to_owned()])];
    assert_eq!(flags(&bench, format, "disk")?, stored, "{format}");
    assert_eq!(found(&bench, format, "disk")?, [recording("b0", 3)]);
    if format == "qbm" {
        require_exact(&bench)?;
    }
    Ok(())
}

/// The stored bitmap marks the three granules that were written, and no other.
fn require_exact(bench: &Bench) -> Result<()> {
    bench.sparse("before", 64 << 20, &[])?;
    let bitmap = bench.descriptor("disk")?.bitmap("b0")?;
    let verdict = oracle::judge(&bench.path("before"), &bench.path("disk.raw"), &bitmap)?;
    verdict.require_complete()?;
    assert_eq!((verdict.changed_count, verdict.over_reported_count), (3, 0));
    Ok(())
}

#[test]
fn the_source_stores_and_the_destination_loads() -> Result<()> {
    FORMATS
        .iter()
        .try_for_each(|format| every_write_is_marked(format, &[]))
}

/// The bitmaps go through the stream, though the image is the same.
#[test]
fn the_stream_carries_them() -> Result<()> {
    FORMATS
        .iter()
        .try_for_each(|format| every_write_is_marked(format, &["dirty-bitmaps"]))
}

/// The destination has the disk: killed, it leaves what a kill leaves.
#[test]
fn the_destination_is_killed() -> Result<()> {
    for capabilities in [&[][..], &["dirty-bitmaps"]] {
        let mut pair = Pair::shared("qbm", capabilities)?;
        write(&mut pair.source, 0)?;
        pair.start()?;
        pair.complete()?;
        pair.source.quit()?;
        write(&mut pair.destination, 20)?;
        pair.destination.kill()?;
        let stored = found(&pair.bench, "qbm", "disk")?;
        assert_eq!(stored, [recording("b0", 2)], "{capabilities:?}");
    }
    Ok(())
}

/// Whoever has no disk any more has nothing to store either.
#[test]
fn the_source_is_killed_afterwards() -> Result<()> {
    for format in FORMATS {
        let mut pair = Pair::shared(format, &[])?;
        write(&mut pair.source, 0)?;
        pair.start()?;
        pair.complete()?;
        write(&mut pair.destination, 20)?;
        pair.source.kill()?;
        write(&mut pair.destination, 30)?;
        pair.destination.quit()?;
        let stored = found(&pair.bench, format, "disk")?;
        assert_eq!(stored, [recording("b0", 3)], "{format}");
    }
    Ok(())
}

/// A machine that came by migration leaves by one.
#[test]
fn again_and_again() -> Result<()> {
    let mut pair = Pair::shared("qbm", &[])?;
    for granule in 0..3 {
        write(&mut pair.source, granule)?;
        pair.start()?;
        pair.complete()?;
        pair = pair.next("qbm", &[])?;
    }
    pair.source.quit()?;
    pair.destination.quit()?;
    assert_eq!(found(&pair.bench, "qbm", "disk")?, [recording("b0", 3)]);
    Ok(())
}
