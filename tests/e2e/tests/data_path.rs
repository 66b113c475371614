// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes through qbm is in the raw file, and marked.

use anyhow::{Context, Result};
use qbm_testkit::Bench;

/// Runs one qemu-io command on a fresh image and gives the marked granules of 64 KiB.
fn marked_by(command: &str) -> Result<Vec<u64>> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &[command])?;
    Ok(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules())
}

#[test]
fn the_raw_file_holds_what_was_written() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io(
        "disk.qbm",
        &["write -P 7 0 1M", "write -P 8 33333 77", "write -z 1M 64k"],
    )?;
    bench.io(
        "disk.qbm",
        &["discard 128k 64k", "aio_write -P 9 8M 1M", "aio_flush"],
    )?;

    bench.io_as(
        "raw",
        "disk.qbm.raw",
        &[
            "read -P 8 33333 77",
            "read -P 7 64k 64k",
            "read -P 0 128k 64k",
            "read -P 0 1M 64k",
            "read -P 9 8M 1M",
        ],
    )?;
    bench.img("compare -f qbm -F raw disk.qbm disk.qbm.raw")?;
    let marked = bench.descriptor("disk.qbm")?.bitmap("b0")?.granules();
    let expected: Vec<u64> = (0..17).chain(128..144).collect();
    assert_eq!(marked, expected);
    Ok(())
}

#[test]
fn every_kind_of_change_is_marked() -> Result<()> {
    for command in [
        "write -P 1 1M 64k",
        "write -z 1M 64k",
        "write -zu 1M 64k",
        "write -f -P 1 1M 64k",
        "discard 1M 64k",
        "writev -P 1 1M 32k 32k",
        "aio_write -P 1 1M 64k",
        "aio_write -z 1M 64k",
    ] {
        let marked = marked_by(command).with_context(|| command.to_owned())?;
        assert_eq!(marked, [16], "{command}");
    }
    Ok(())
}

#[test]
fn looking_is_not_marked() -> Result<()> {
    for command in ["read 0 64M", "map", "flush", "alloc 0 1M", "info"] {
        let marked = marked_by(command).with_context(|| command.to_owned())?;
        assert_eq!(marked, Vec::<u64>::new(), "{command}");
    }
    Ok(())
}

#[test]
fn ranges_round_outwards() -> Result<()> {
    let cases: [(&str, &[u64]); 6] = [
        ("write 0 1", &[0]),
        ("write 65535 1", &[0]),
        ("write 65535 2", &[0, 1]),
        ("write 65536 1", &[1]),
        ("write -z 65000 70000", &[0, 1, 2]),
        ("write 67108863 1", &[1023]),
    ];
    for (command, expected) in cases {
        assert_eq!(marked_by(command)?, expected, "{command}");
    }
    Ok(())
}

/// A trim of part of a block may change the block: the whole is marked.
#[test]
fn an_odd_discard_is_marked_too() -> Result<()> {
    let marked = marked_by("discard 65024 1024")?;
    assert_eq!(marked, [0, 1]);
    Ok(())
}

#[test]
fn zeroes_are_holes_in_the_raw_file() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "64M", "64k")?;
    bench.io("disk.qbm", &["write -P 1 0 4M", "write -zu 0 4M"])?;
    let map = bench.img("map --output=json -f qbm disk.qbm")?;
    let extents: serde_json::Value = serde_json::from_str(&map.stdout)?;
    assert_eq!(extents[0]["zero"], true, "{map}");
    assert_eq!(extents[0]["length"], 64 << 20, "{map}");
    Ok(())
}
