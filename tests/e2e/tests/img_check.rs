// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img check`: what it finds, counts and repairs, with qcow2's exit codes.

use std::fs;

use anyhow::{Context, Result, ensure};
use qbm_testkit::{Bench, Output, Snapshot, StorageDaemon};
use serde_json::Value;

/// An image of 1 MiB with data in it and two bitmaps, `b0` and `b1`.
fn image() -> Result<Bench> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk.qbm", "1M", "64k")?;
    bench.img("bitmap --add -f qbm disk.qbm b1")?;
    bench.io("disk.qbm", &["write -P 7 0 64k"])?;
    Ok(bench)
}

/// Runs a check with `options`; it must end with `code`.
fn check(bench: &Bench, options: &str, code: i32) -> Result<(Output, Value)> {
    let args = format!("check --output=json -f qbm {options} disk.qbm");
    let output = bench.run("qemu-img", &args)?;
    ensure!(output.status.code() == Some(code), "not {code}: {output}");
    let json = serde_json::from_str(&output.stdout).unwrap_or(Value::Null);
    Ok((output, json))
}

#[test]
fn a_clean_image_is_told_of_as_a_clean_qcow2_image() -> Result<()> {
    let bench = image()?;
    let before = Snapshot::of(bench.directory())?;
    let (output, json) = check(&bench, "", 0)?;
    assert_eq!(output.stderr, "");
    assert_eq!(json["check-errors"], 0, "{json}");
    assert_eq!(json["format"], "qbm");
    assert_eq!(json["filename"], "disk.qbm");
    before.require_untouched()?;

    bench.img("create -q -f qcow2 disk.qcow2 1M")?;
    for options in ["", "-r all"] {
        let mut said = Vec::new();
        for name in ["disk.qbm", "disk.qcow2"] {
            let output = bench.img(&format!("check {options} {name}"))?;
            let first = output.stdout.lines().next().context("nothing said")?;
            said.push(first.to_owned());
        }
        assert_eq!(said, ["No errors were found on the image."; 2]);
    }
    before.without("disk.qcow2").require_kept()
}

#[test]
fn a_file_that_nobody_needs_is_a_leak() -> Result<()> {
    let bench = image()?;
    bench.write("disk.qbm.gone.bitmap", [0, 0])?;
    let (output, json) = check(&bench, "", 3)?;
    assert_eq!(json["leaks"], 1, "{json}");
    assert!(output.stderr.contains("Leaked"), "{output}");
    assert!(output.stderr.contains("disk.qbm.gone.bitmap"), "{output}");

    let (output, json) = check(&bench, "-r leaks", 0)?;
    assert_eq!((&json["leaks-fixed"], json.get("leaks")), (&1.into(), None));
    assert!(output.stderr.contains("Repaired"), "{output}");
    assert!(!bench.path("disk.qbm.gone.bitmap").exists());
    check(&bench, "", 0)?;
    Ok(())
}

#[test]
fn repairing_leaks_leaves_errors_and_repairing_all_leaves_none() -> Result<()> {
    let bench = image()?;
    bench.write("disk.qbm.gone.bitmap", [0, 0])?;
    bench.write("disk.qbm.b0.bitmap", [0, 0, 0])?;
    let data = bench.read("disk.qbm.raw")?;
    let before = Snapshot::of(bench.directory())?;

    let (output, json) = check(&bench, "", 2)?;
    assert_eq!(
        (&json["corruptions"], &json["leaks"]),
        (&1.into(), &1.into())
    );
    for word in [
        "disk.qbm\"",
        "\"b0\"",
        "disk.qbm.b0.bitmap",
        "3 bytes, not 2",
    ] {
        assert!(output.stderr.contains(word), "{word}: {output}");
    }
    before.require_untouched()?;

    let (_, json) = check(&bench, "-r leaks", 2)?;
    assert_eq!(
        (&json["corruptions"], &json["leaks-fixed"]),
        (&1.into(), &1.into())
    );
    before
        .clone()
        .without("disk.qbm.gone.bitmap")
        .require_untouched()?;

    let (output, json) = check(&bench, "-r all", 0)?;
    assert_eq!(json["corruptions-fixed"], 1, "{json}");
    assert!(
        output.stderr.contains("Note"),
        "the lost bitmap is not told: {output}"
    );
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["b1"]);
    assert_eq!(bench.read("disk.qbm.raw")?, data);
    // An inconsistent bitmap is told of, and no error.
    let (output, _) = check(&bench, "", 0)?;
    assert!(output.stderr.contains("\"b0\""), "{output}");
    Ok(())
}

#[test]
fn a_crash_is_found_and_repaired() -> Result<()> {
    let bench = image()?;
    StorageDaemon::with_image(&bench, "disk.qbm")?.kill()?;
    let before = Snapshot::of(bench.directory())?;
    let (output, json) = check(&bench, "", 0)?;
    assert!(output.stderr.contains("its writer crashed"), "{output}");
    assert_eq!(json["corruptions"], serde_json::Value::Null, "{json}");
    before.require_untouched()?;
    check(&bench, "-r all", 0)?;
    let (output, _) = check(&bench, "", 0)?;
    assert!(!output.stderr.contains("its writer crashed"), "{output}");
    assert_eq!(bench.descriptor("disk.qbm")?.session(), None);
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap("b0")?.granules(), [0]);
    Ok(())
}

/// As with qcow2: who does not share is kept out by locks, who shares sees.
#[test]
fn an_image_in_use_is_only_looked_at_by_who_shares() -> Result<()> {
    let bench = image()?;
    let daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
    let before = Snapshot::of(bench.directory())?;
    for options in ["", "-r all"] {
        let (output, _) = check(&bench, options, 1)?;
        assert!(output.stderr.contains(r#""write" lock"#), "{output}");
    }
    let (output, _) = check(&bench, "-U", 0)?;
    assert!(output.stderr.contains("Note"), "{output}");
    before.require_untouched()?;
    daemon.quit()?;
    Ok(())
}

#[test]
fn a_missing_data_image_is_an_error_that_stays() -> Result<()> {
    let bench = image()?;
    fs::remove_file(bench.path("disk.qbm.raw"))?;
    let before = Snapshot::of(bench.directory())?;
    for options in ["", "-r all"] {
        let (output, json) = check(&bench, options, 2)?;
        assert_eq!(json["corruptions"], 1, "{json}");
        assert!(output.stderr.contains("disk.qbm.raw"), "{output}");
    }
    before.require_untouched()
}

#[test]
fn a_descriptor_that_cannot_be_read_fails_the_check() -> Result<()> {
    let bench = image()?;
    bench.write("disk.qbm", "{ \"QBM\": { \"version\": 2 } }")?;
    let (output, _) = check(&bench, "-r all", 1)?;
    assert!(
        output.stderr.contains("version: 2 is not supported"),
        "{output}"
    );
    Ok(())
}

/// Neither a check nor a repair writes to a data image of another format (I6).
#[test]
fn a_data_image_of_another_format_is_left_alone() -> Result<()> {
    let bench = Bench::new()?;
    bench.img("create -q -f qcow2 data.qcow2 1M")?;
    bench.img("create -q -f qbm -o data_file=data.qcow2,data_file_format=qcow2 disk.qbm")?;
    bench.img("bitmap --add -f qbm disk.qbm b0")?;
    StorageDaemon::with_image(&bench, "disk.qbm")?.kill()?;
    let data = bench.read("data.qcow2")?;
    check(&bench, "-r all", 0)?;
    assert_eq!(bench.read("data.qcow2")?, data);
    Ok(())
}
