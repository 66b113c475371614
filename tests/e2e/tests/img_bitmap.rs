// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img bitmap`: all six operations, alone and several in one command, and what they
//! refuse, word for word as with qcow2.

use anyhow::Result;
use qbm_testkit::Bench;
use serde_json::Value;

/// Runs `qemu-img bitmap` with each list of arguments on images of the format given; gives how
/// each ended, what it said, and the bitmaps that were there afterwards.
fn session(format: &str, steps: &[&str]) -> Result<Vec<String>> {
    let bench = Bench::new()?;
    for image in ["disk", "other"] {
        bench.img(["create", "-q", "-f", format, image, "4M"])?;
    }
    bench.img("create -q -f qcow2 foreign 4M")?;
    bench.img("bitmap --add -g 4k -f qcow2 foreign far")?;
    bench.io_as("qcow2", "foreign", &["write -P 1 2M 4k"])?;
    let mut seen = Vec::new();
    for step in steps {
        let mut args = vec!["bitmap".to_owned()];
        args.extend(
            step.split_whitespace()
                .map(|arg| arg.replace("{f}", format)),
        );
        let output = bench.run("qemu-img", &args[..])?;
        let code = output.status.code();
        seen.push(format!("{step}: {code:?} {}", output.stderr));
        seen.push(format!("{:?}", bitmaps(&bench, "disk")?));
    }
    Ok(seen)
}

/// The bitmaps as `qemu-img info` lists them; qcow2 has its own order.
fn bitmaps(bench: &Bench, image: &str) -> Result<Vec<String>> {
    let info = bench.info(image)?;
    let list = info["format-specific"]["data"]["bitmaps"].as_array();
    let mut list: Vec<String> = list.into_iter().flatten().map(Value::to_string).collect();
    list.sort();
    Ok(list)
}

fn require_same(steps: &[&str]) -> Result<Vec<String>> {
    let (qbm, qcow2) = (session("qbm", steps)?, session("qcow2", steps)?);
    for (ours, theirs) in qbm.iter().zip(&qcow2) {
        assert_eq!(ours, theirs);
    }
    Ok(qbm)
}

/// As [`require_same`], and each step succeeds.
fn require_success(steps: &[&str]) -> Result<()> {
    for seen in require_same(steps)?.iter().step_by(2) {
        assert!(seen.contains(": Some(0) "), "{seen}");
    }
    Ok(())
}

#[test]
fn each_operation() -> Result<()> {
    require_success(&[
        "--add -f {f} disk b0",
        "--add -g 4k -f {f} disk b1",
        "--add -g 2G --disable -f {f} disk b2",
        "--disable -f {f} disk b0",
        "--enable -f {f} disk b0",
        "--enable -f {f} disk b0",
        "--clear -f {f} disk b0",
        "--merge b0 -f {f} disk b1",
        "--remove -f {f} disk b1",
        "--add --image-opts driver={f},file.filename=disk b3",
        "--add disk b4",
    ])
}

#[test]
fn several_in_one_command() -> Result<()> {
    require_same(&[
        "--add --disable -g 64k -f {f} disk b0",
        "--add --merge b0 --enable -f {f} disk b1",
        "--clear --merge b1 --disable -f {f} disk b0",
        "--add --remove -f {f} disk b2",
        "--remove --add -g 4k -f {f} disk b1",
        // What comes before the one that fails stays done.
        "--add --merge nothing -f {f} disk b3",
        "--disable --merge b0 --merge nothing --enable -f {f} disk b3",
    ])
    .map(drop)
}

#[test]
fn what_is_refused() -> Result<()> {
    require_same(&[
        "--add -f {f} disk b0",
        "--add -f {f} disk b0",
        "--add -g 3k -f {f} disk b1",
        "--add -g 256 -f {f} disk b1",
        "--add -g 4G -f {f} disk b1",
        "--remove -f {f} disk nothing",
        "--clear -f {f} disk nothing",
        "--enable -f {f} disk nothing",
        "--disable -f {f} disk nothing",
        "--merge nothing -f {f} disk b0",
        "--merge b0 -f {f} disk nothing",
        "--merge b0 -b nothing -f {f} disk b0",
        "--clear -g 4k -f {f} disk b0",
        "--clear -b other -f {f} disk b0",
        "--clear -F {f} -f {f} disk b0",
        "-f {f} disk b0",
        "--add -f {f} disk",
        "--add -f {f} nothing b0",
    ])
    .map(drop)
}

/// Bits come from images of either format, between granularities.
#[test]
fn merged_from_other_images() -> Result<()> {
    require_same(&[
        "--add -f {f} disk b0",
        "--merge far -b foreign -F qcow2 -f {f} disk b0",
        "--merge far -b other -F {f} -f {f} disk b0",
        "--add -f {f} other near",
        "--merge near -b other -f {f} disk b0",
        "--merge near -b disk -F {f} -f {f} disk b0",
    ])?;
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk", "4M", "64k")?;
    bench.image_with_bitmap("other", "4M", "4k")?;
    bench.io("other", &["write -P 1 1M 4k"])?;
    bench.img("create -q -f qcow2 foreign 4M")?;
    bench.img("bitmap --add -g 1M -f qcow2 foreign far")?;
    bench.io_as("qcow2", "foreign", &["write -P 1 3M 4k"])?;
    bench.img("bitmap --merge b0 -b other -F qbm -f qbm disk b0")?;
    bench.img("bitmap --merge far -b foreign -F qcow2 -f qbm disk b0")?;
    let expected: Vec<u64> = [16].into_iter().chain(48..64).collect();
    assert_eq!(bench.descriptor("disk")?.bitmap("b0")?.granules(), expected);
    // And out of qbm, where 1 MiB is the granularity.
    bench.img("bitmap --merge b0 -b disk -F qbm -f qcow2 foreign far")?;
    bench.img("bitmap --add --merge far -b foreign -F qcow2 -f qbm disk back")?;
    let expected: Vec<u64> = (16..32).chain(48..64).collect();
    let back = bench.descriptor("disk")?.bitmap("back")?.granules();
    assert_eq!(back, expected);
    Ok(())
}

/// A bitmap that a crash made inconsistent can be removed, and nothing else.
#[test]
fn an_inconsistent_bitmap() -> Result<()> {
    let session = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        bench.img(["create", "-q", "-f", format, "disk", "4M"])?;
        for name in ["b0", "good"] {
            bench.img(["bitmap", "--add", "-f", format, "disk", name])?;
        }
        let options = format!("driver={format},file.filename=disk");
        let options = if format == "qbm" {
            options + ",durability=close"
        } else {
            options
        };
        let killed = bench.run(
            "qemu-io",
            [
                "--image-opts",
                &options,
                "-c",
                "write 0 64k",
                "-c",
                "sigraise 9",
            ],
        )?;
        assert!(!killed.status.success(), "{killed}");
        bench.img(["bitmap", "--remove", "-f", format, "disk", "good"])?;
        bench.img(["bitmap", "--add", "-f", format, "disk", "good"])?;
        let mut seen = Vec::new();
        for args in ["--clear", "--enable", "--disable", "--merge good", "--add"] {
            let line = format!("bitmap {args} -f {format} disk b0");
            seen.push(bench.img_refuses(&line)?.stderr);
            let flags = bitmaps(&bench, "disk")?;
            assert!(
                flags
                    .iter()
                    .any(|bitmap| bitmap.contains("in-use") || bitmap.contains("inconsistent")),
                "{flags:?}"
            );
        }
        let line = format!("bitmap --merge b0 -f {format} disk good");
        seen.push(bench.img_refuses(&line)?.stderr);
        bench.img(["bitmap", "--remove", "-f", format, "disk", "b0"])?;
        seen.push(format!("{:?}", bitmaps(&bench, "disk")?));
        Ok(seen)
    };
    assert_eq!(session("qbm")?, session("qcow2")?);
    Ok(())
}
