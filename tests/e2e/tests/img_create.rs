// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img create -f qbm`: options, sizes, what is in the way.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot};

#[test]
fn every_option_is_listed() -> Result<()> {
    let bench = Bench::new()?;
    let help = bench.img("create -f qbm -o help")?.stdout;
    for option in [
        "data_file=",
        "data_file_format=",
        "durability=",
        "persist_bitmaps=",
        "preallocation=",
        "size=",
    ] {
        assert!(help.contains(option), "{option}: {help}");
    }
    Ok(())
}

#[test]
fn a_new_data_image_is_preallocated_as_a_raw_image_is() -> Result<()> {
    let bench = Bench::new()?;
    for (mode, full) in [("off", false), ("falloc", true), ("full", true)] {
        for (format, name) in [("raw", "plain.raw"), ("qbm", "disk.qbm")] {
            bench.img(&format!(
                "create -q -f {format} -o preallocation={mode} {name} 4M"
            ))?;
        }
        for name in ["plain.raw", "disk.qbm.raw"] {
            let about = fs::metadata(bench.path(name))?;
            assert_eq!(about.len(), 4 << 20, "{name}");
            assert_eq!(about.blocks() * 512 >= 4 << 20, full, "{name} {mode}");
        }
        // Nothing of it looks like a change behind QBM's back.
        let check = bench.img("check -f qbm disk.qbm")?;
        assert_eq!(check.stderr, "");
        fs::remove_file(bench.path("disk.qbm.raw"))?;
    }
    Ok(())
}

#[test]
fn an_option_that_makes_no_sense_is_named_with_its_value() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse("old.raw", 1 << 20, &[(0, b"data")])?;
    bench.host("mkfifo", "pipe")?;
    let before = Snapshot::of(bench.directory())?;
    for (options, words) in [
        ("preallocation=metadata", ["preallocation", "metadata"]),
        ("preallocation=some", ["preallocation", "some"]),
        ("durability=always", ["durability", "always"]),
        (
            "data_file=old.raw,preallocation=full",
            ["preallocation", "data_file"],
        ),
        ("data_file=old.raw,nocow=on", ["nocow", "data_file"]),
        ("data_file_format=raw", ["data_file_format", "data_file"]),
        ("data_file=pipe,data_file_format=raw", ["pipe", "neither"]),
    ] {
        let refusal =
            bench.img_refuses(["create", "-f", "qbm", "-o", options, "disk.qbm", "1M"])?;
        for word in words {
            assert!(refusal.stderr.contains(word), "{word}: {refusal}");
        }
        before.require_untouched()?;
    }
    let refusal = bench.img_refuses("create -f qbm -b old.raw -F raw disk.qbm")?;
    assert!(
        refusal.stderr.contains("Backing file not supported"),
        "{refusal}"
    );
    before.require_untouched()
}

#[test]
fn sizes_are_taken_as_raw_takes_them() -> Result<()> {
    let bench = Bench::new()?;
    for size in ["0", "1", "1000003"] {
        bench.img(["create", "-q", "-f", "raw", "plain.raw", size])?;
        bench.img(["create", "-q", "-f", "qbm", "disk.qbm", size])?;
        let sizes = [bench.info("disk.qbm")?, bench.info("plain.raw")?];
        assert_eq!(sizes[0]["virtual-size"], sizes[1]["virtual-size"], "{size}");
        fs::remove_file(bench.path("disk.qbm.raw"))?;
        fs::remove_file(bench.path("disk.qbm"))?;
    }
    fs::remove_file(bench.path("plain.raw"))?;
    let before = Snapshot::of(bench.directory())?;
    for (size, words) in [
        ("9223372036854775808", "Invalid image size"),
        ("9223372036854775807", "image size is too large"),
        ("-1", "Invalid image size"),
    ] {
        let refusal = bench.img_refuses(["create", "-q", "-f", "qbm", "--", "disk.qbm", size])?;
        assert!(refusal.stderr.contains(words), "{refusal}");
        before.require_untouched()?;
    }
    // Rounded up, that was 0, which is the size of an empty image.
    bench.write("empty.raw", "")?;
    let before = Snapshot::of(bench.directory())?;
    let options = "data_file=empty.raw,size=18446744073709551600";
    let refusal = bench.img_refuses(["create", "-f", "qbm", "-o", options, "disk.qbm"])?;
    assert!(refusal.stderr.contains("too large"), "{refusal}");
    before.require_untouched()?;
    Ok(())
}

/// What cannot be made is known before the data image is.
#[test]
fn what_is_in_the_way_stays_and_nothing_is_left() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("disk.qbm", "a guest's disk")?;
    fs::create_dir(bench.path("directory.qbm"))?;
    let before = Snapshot::of(bench.directory())?;
    for name in [
        "disk.qbm",
        "directory.qbm",
        "disk.qbm/x.qbm",
        "nowhere/x.qbm",
    ] {
        let refusal = bench.img_refuses(["create", "-q", "-f", "qbm", name, "1M"])?;
        assert!(refusal.stderr.contains(name), "{refusal}");
        before.require_untouched()?;
    }
    Ok(())
}

/// An adopted image is not empty because the descriptor is new.
#[test]
fn converting_into_an_adopted_image_leaves_nothing_of_it() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f raw source.raw 1M")?;
    bench.io_as("raw", "source.raw", &["write -P 1 0 64k"])?;
    bench.img("create -q -f raw old.raw 1M")?;
    bench.io_as("raw", "old.raw", &["write -P 9 0 1M"])?;
    bench.img(
        "convert -f raw -O qbm -o data_file=old.raw,data_file_format=raw source.raw disk.qbm",
    )?;
    bench.img("compare -f raw -F qbm source.raw disk.qbm")?;
    Ok(())
}
