// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img map`, `compare` and `info`: what a qbm image is made of, for people and tools.

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot, StorageDaemon};
use serde_json::{Value, json};

fn map(bench: &Bench, args: &str) -> Result<Value> {
    let output = bench.img(&format!("map --output=json {args}"))?;
    Ok(serde_json::from_str(&output.stdout)?)
}

/// The same extents as of the raw file itself, at the same offsets.
#[test]
fn a_raw_data_image_is_mapped_one_to_one() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk", "4M", "64k")?;
    bench.io(
        "disk",
        &["write -P 1 1M 64k", "write -P 1 3M 4k", "write -z 3200k 4k"],
    )?;
    let ours = map(&bench, "-f qbm disk")?;
    assert_eq!(ours, map(&bench, "-f raw disk.raw")?);
    let data: Vec<&Value> = ours
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["data"] == true)
        .collect();
    // The file system may allocate the first block of a file that is made.
    let last = data.last().copied().cloned().unwrap_or_default();
    assert_eq!(
        (&last["start"], &last["offset"], &last["length"]),
        (&json!(3 << 20), &json!(3 << 20), &json!(4096))
    );
    let people = bench.img("map -f qbm disk")?.stdout;
    let raw = bench.path("disk.raw").display().to_string();
    let wanted = format!("0x300000        0x1000          0x300000        {raw}");
    assert!(people.contains(&wanted), "{people}");

    let part = map(&bench, "--start-offset=1M --max-length=32k -f qbm disk")?;
    assert_eq!(part.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&part[0]["start"], &part[0]["length"]),
        (&json!(1 << 20), &json!(32768))
    );
    let refused = bench.img_refuses("map -f qbm nothing")?;
    assert!(refused.stderr.contains("No such file"), "{refused}");
    Ok(())
}

#[test]
fn compare_as_with_qcow2() -> Result<()> {
    let said = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        for (name, size) in [
            ("one", "4M"),
            ("same", "4M"),
            ("longer", "5M"),
            ("other", "4M"),
        ] {
            bench.img(["create", "-q", "-f", format, name, size])?;
            bench.io_as(format, name, &["write -P 1 1M 64k"])?;
        }
        bench.io_as(format, "other", &["write -P 2 2M 4k"])?;
        let mut said = Vec::new();
        for args in [
            "one same",
            "one longer",
            "-s one longer",
            "one other",
            "-s one other",
            "one nothing",
        ] {
            let line = format!("compare -f {format} -F {format} {args}");
            let output = bench.run("qemu-img", &line)?;
            said.push(format!(
                "{:?} {}{}",
                output.status.code(),
                output.stdout,
                output.stderr
            ));
        }
        Ok(said)
    };
    assert_eq!(said("qbm")?, said("qcow2")?);
    Ok(())
}

/// What a tool reads: a plain filename, the bitmaps, one image in the chain.
#[test]
fn info_as_json_and_of_the_chain() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk", "4M", "64k")?;
    let chain = bench.img("info --backing-chain --output=json disk")?.stdout;
    let chain: Value = serde_json::from_str(&chain)?;
    assert_eq!(chain.as_array().map(Vec::len), Some(1), "{chain}");
    let info = &chain[0];
    assert_eq!(info, &bench.info("disk")?);
    assert_eq!(info["filename"], "disk");
    assert_eq!(info["format"], "qbm");
    assert_eq!(info["virtual-size"], 4 << 20);
    assert_eq!(info.get("backing-filename"), None);
    assert_eq!(info["dirty-flag"], false);
    assert_eq!(info["format-specific"]["type"], "qbm");
    let bitmap = json!({ "flags": ["auto"], "name": "b0", "granularity": 65536 });
    assert_eq!(info["format-specific"]["data"]["bitmaps"], json!([bitmap]));

    let people = bench.img("info disk")?.stdout;
    for line in [
        "image: disk",
        "file format: qbm",
        "virtual size: 4 MiB (4194304 bytes)",
    ] {
        assert!(
            people.lines().any(|found| found == line),
            "{line}: {people}"
        );
    }
    assert!(!people.contains("backing file"), "{people}");
    let options = bench.img("info --output=json --image-opts driver=qbm,file.filename=disk")?;
    assert_eq!(
        serde_json::from_str::<Value>(&options.stdout)?["filename"],
        "disk"
    );
    Ok(())
}

/// Beside a running machine: refused without `-U`, and with it told that bitmaps are in use.
#[test]
fn info_of_an_image_in_use() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk", "4M", "64k")?;
    let mut daemon = StorageDaemon::with_image(&bench, "disk")?;
    daemon.export()?.write(1 << 20, &[1; 4096])?;
    let before = Snapshot::of(bench.directory())?;
    let refused = bench.img_refuses("info disk")?;
    assert!(refused.stderr.contains(r#""write" lock"#), "{refused}");
    let info = bench.img("info -U --output=json disk")?.stdout;
    let info: Value = serde_json::from_str(&info)?;
    let flags = &info["format-specific"]["data"]["bitmaps"][0]["flags"];
    assert_eq!(flags, &json!(["in-use", "auto"]), "{info}");
    map(&bench, "-U -f qbm disk")?;
    bench.img("compare -U -f qbm -F qbm disk disk")?;
    before.require_untouched()?;
    daemon.quit()?;
    let info = bench.info("disk")?;
    let flags = &info["format-specific"]["data"]["bitmaps"][0]["flags"];
    assert_eq!(flags, &json!(["auto"]), "{info}");
    Ok(())
}
