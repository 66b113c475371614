// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any text of 1 to 1,023 bytes names a bitmap; its file's name is derived safely.

use std::path::Path;

use anyhow::{Context, Result};
use qbm_testkit::{Bench, Snapshot};

/// Adds a bitmap, writes, looks, removes it: its file is beside the descriptor while it
/// lives and gone afterwards.
fn lives_and_goes(name: &str) -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let before = Snapshot::of(bench.directory())?;
    bench.img(["bitmap", "--add", "-f", "qbm", "disk.qbm", name])?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;

    let listed = &bench.info("disk.qbm")?["format-specific"]["data"]["bitmaps"][0];
    assert_eq!(listed["name"], name);
    let descriptor = bench.descriptor("disk.qbm")?;
    assert_eq!(descriptor.bitmap(name)?.granules(), [16]);
    let path = descriptor.bitmap_path(name)?;
    assert_eq!(
        path.parent().map(Path::to_owned),
        Some(bench.directory().to_owned())
    );
    let file_name = path
        .file_name()
        .context("no file name")?
        .to_string_lossy()
        .into_owned();
    assert!(!file_name.contains(char::is_control), "{file_name:?}");
    assert_eq!(before.added()?, [file_name]);

    bench.img(["bitmap", "--remove", "-f", "qbm", "disk.qbm", name])?;
    assert_eq!(before.added()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn slashes_and_dots() -> Result<()> {
    for name in ["weekly/2026", "../escape", "/etc/passwd", "..", "."] {
        lives_and_goes(name).with_context(|| format!("{name:?}"))?;
    }
    Ok(())
}

#[test]
fn quotes_blanks_and_newlines() -> Result<()> {
    for name in [
        "it's",
        "a \"quoted\" name",
        "two\nlines",
        " ",
        "back\\slash",
        "tab\t",
    ] {
        lives_and_goes(name).with_context(|| format!("{name:?}"))?;
    }
    Ok(())
}

#[test]
fn letters_beyond_ascii() -> Result<()> {
    for name in ["täglich", "每日", "💾💾", "e\u{301}"] {
        lives_and_goes(name).with_context(|| format!("{name:?}"))?;
    }
    Ok(())
}

#[test]
fn the_longest_names() -> Result<()> {
    lives_and_goes(&"n".repeat(1023))?;
    // Four bytes each, and three for the rest.
    lives_and_goes(&("💾".repeat(255) + "abc"))
}

/// Names that a careless derivation would give the same file.
#[test]
fn names_that_look_alike_have_files_of_their_own() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    let names = ["a/b", "a_b", "a%2fb", "a%2Fb", "A/B", "a\nb", "a.b"];
    for name in names {
        bench.img(["bitmap", "--add", "-f", "qbm", "disk.qbm", name])?;
    }
    let descriptor = bench.descriptor("disk.qbm")?;
    let mut paths = Vec::new();
    for name in names {
        paths.push(descriptor.bitmap_path(name)?);
    }
    paths.sort();
    paths.dedup();
    assert_eq!(
        paths.len(),
        names.len(),
        "two bitmaps share a file: {paths:?}"
    );
    Ok(())
}

/// A file that is there already is somebody's.
#[test]
fn a_taken_file_name_is_left_alone() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qbm disk.qbm 64M")?;
    bench.write("disk.qbm.b0.bitmap", "someone else's")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    bench.io("disk.qbm", &["write -P 1 1M 64k"])?;

    assert_eq!(bench.read("disk.qbm.b0.bitmap")?, b"someone else's");
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [16]);
    Ok(())
}
