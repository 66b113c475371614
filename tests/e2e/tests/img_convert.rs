// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-img convert`, `dd` and `bench` on qbm images: options, errors, and the bitmaps of what
//! is written to.

use anyhow::{Context, Result, ensure};
use qbm_testkit::{Bench, StorageDaemon};

/// A disk with data at 1 MiB, zeroes that were written at 2 MiB, and holes.
fn image(bench: &Bench) -> Result<()> {
    bench.image_with_bitmap("disk", "4M", "64k")?;
    bench
        .io("disk", &["write -P 1 1M 64k", "write -P 0 2M 64k"])
        .map(drop)
}

/// Does the machine refuse a plain raw image what `line` asks for, as some file systems do
/// with direct I/O, and containers with io_uring?
fn machine_refuses(bench: &Bench, line: &str) -> Result<bool> {
    let output = bench.run("qemu-img", line)?;
    if output.status.success() {
        return Ok(false);
    }
    let theirs = ["O_DIRECT", "io_uring", "AIO"];
    ensure!(
        theirs.iter().any(|word| output.stderr.contains(word)),
        "a raw image: {output}"
    );
    Bench::leave_out(&format!("{line}: {}", output.stderr.trim_end()))?;
    Ok(true)
}

#[test]
fn options_that_say_how_to_copy() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    bench.sparse("plain", 4 << 20, &[])?;
    for (index, options) in [
        "", "-W", "-W -m 4", "-S 0", "-S 64k", "-r 100M", "-p", "-C", "-t none",
    ]
    .iter()
    .enumerate()
    {
        if machine_refuses(
            &bench,
            &format!("convert {options} -O raw plain plain.copy"),
        )? {
            continue;
        }
        let copy = format!("copy{index}");
        let output = bench
            .img(&format!("convert {options} -f qbm -O qbm disk {copy}"))
            .context(*options)?;
        assert!(output.stderr.is_empty(), "{output}");
        bench.img(["compare", "-f", "qbm", "-F", "qbm", "disk", &copy])?;
        assert!(bench.descriptor(&copy)?.bitmap_names().is_empty());
    }
    bench.img("convert -f qbm -O qbm -o durability=close disk chosen")?;
    assert_eq!(
        bench.info("chosen")?["format-specific"]["data"]["durability"],
        "close"
    );
    Ok(())
}

/// Into an image that is there: its bitmaps record, and what is zero is made so.
#[test]
fn into_an_image_that_is_there() -> Result<()> {
    for options in [
        "-n -O qbm disk copy",
        "-n --target-image-opts disk driver=qbm,file.filename=copy",
        "-n -W -O qbm disk copy",
    ] {
        let bench = Bench::new()?;
        image(&bench)?;
        bench.img("create -q -f qbm copy 4M")?;
        bench.io("copy", &["write -P 9 0 4M"])?;
        bench.img("bitmap --add -f qbm copy b0")?;
        bench.img(&format!("convert {options}")).context(options)?;
        bench.img("compare -f qbm -F qbm disk copy")?;
        let bits = bench.descriptor("copy")?.bitmap("b0")?;
        assert_eq!(bits.set_count(), 64, "{options}");
    }
    let bench = Bench::new()?;
    image(&bench)?;
    bench.image_with_bitmap("copy", "4M", "64k")?;
    bench.img(
        "convert -n --target-is-zero --target-image-opts disk driver=qbm,file.filename=copy",
    )?;
    bench.img("compare -f qbm -F qbm disk copy")?;
    assert_eq!(bench.descriptor("copy")?.bitmap("b0")?.granules(), [16]);
    Ok(())
}

/// What is refused, word for word as with qcow2; compression and backing files, which qcow2
/// has, by name.
#[test]
fn what_is_refused() -> Result<()> {
    let said = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        bench.image_with_bitmap_as(format, "disk", "4M", "64k")?;
        bench.img(["create", "-q", "-f", format, "small", "2M"])?;
        bench.img("create -q -f raw plain 4M")?;
        let mut said = Vec::new();
        for args in [
            "-n -O {f} disk nothing",
            "-n -O {f} disk small",
            "-O raw --bitmaps disk out",
            "-f raw -O {f} --bitmaps plain out",
            "-O {f} --skip-broken-bitmaps disk out",
            "-O {f} -o nonsense=1 disk out",
            "-O {f} -S 100 disk out",
            "-O {f} -C -S 4k disk out",
            "-O {f} -m 100 disk out",
            "-O {f} -r nonsense disk out",
            "-O {f} nothing out",
            "-O nonsense disk out",
        ] {
            let line = format!("convert {}", args.replace("{f}", format));
            said.push(format!("{args}: {}", bench.img_refuses(&line)?.stderr));
        }
        Ok(said)
    };
    for (ours, theirs) in said("qbm")?.iter().zip(&said("qcow2")?) {
        assert_eq!(ours, theirs);
    }

    let bench = Bench::new()?;
    image(&bench)?;
    bench.img("create -q -f raw base 4M")?;
    for (args, words) in [
        ("-c", "Compression not supported for this file format"),
        (
            "-B base -F raw",
            "Backing file not supported for file format 'qbm'",
        ),
        ("-o backing_file=base", "Invalid parameter 'backing_file'"),
        (
            "-l snapshot.id=1",
            "does not support temporarily loading internal snapshots",
        ),
    ] {
        let refused = bench.img_refuses(&format!("convert {args} -O qbm disk out"))?;
        assert!(refused.stderr.contains(words), "{refused}");
        assert!(!bench.path("out").exists(), "{args}");
    }
    Ok(())
}

/// A bitmap that is inconsistent stops `--bitmaps`, and is left out when that is asked for.
#[test]
fn broken_bitmaps_are_skipped_on_demand() -> Result<()> {
    let bench = Bench::new()?;
    image(&bench)?;
    let options = serde_json::json!({ "durability": "close" });
    StorageDaemon::with_image_options(&bench, "disk", &options)?.kill()?;
    bench.img("bitmap --add -g 4k -f qbm disk good")?;
    for format in ["qbm", "qcow2"] {
        let copy = format!("copy.{format}");
        let args = [
            "convert",
            "--bitmaps",
            "-f",
            "qbm",
            "-O",
            format,
            "disk",
            &copy,
        ];
        let refused = bench.img_refuses(args)?;
        let words = "Cannot copy inconsistent bitmap 'b0'";
        assert!(refused.stderr.contains(words), "{refused}");
        let skipped = bench.img([
            "convert",
            "--bitmaps",
            "--skip-broken-bitmaps",
            "-f",
            "qbm",
            "-O",
            format,
            "disk",
            &copy,
        ])?;
        assert!(skipped.stderr.contains("b0"), "{skipped}");
        let info = bench.info(&copy)?;
        let bitmaps = info["format-specific"]["data"]["bitmaps"]
            .as_array()
            .cloned();
        let names: Vec<_> = bitmaps
            .iter()
            .flatten()
            .map(|b| b["name"].clone())
            .collect();
        assert_eq!(names, ["good"], "{info}");
    }
    // What is there already is not replaced.
    let refused = bench
        .img_refuses("convert -n --bitmaps --skip-broken-bitmaps -f qbm -O qbm disk copy.qbm")?;
    assert!(
        refused.stderr.contains("Bitmap already exists: good"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn dd_as_with_qcow2() -> Result<()> {
    let said = |format: &str| -> Result<Vec<String>> {
        let bench = Bench::new()?;
        bench.img(["create", "-q", "-f", format, "disk", "4M"])?;
        bench.io_as(format, "disk", &["write -P 1 1M 64k"])?;
        let mut said = Vec::new();
        for args in [
            "bs=1M count=2 skip=1",
            "bs=64k",
            "bs=1M skip=9",
            "bs=0",
            "bs=nonsense",
            "count=1 nonsense=2",
        ] {
            let line = format!("dd -f {format} -O raw if=disk of=out {args}");
            let output = bench.run("qemu-img", &line)?;
            said.push(format!(
                "{args}: {:?} {}",
                output.status.code(),
                output.stderr
            ));
            said.push(format!(
                "{:?}",
                bench.read("out").map(|bytes| bytes.len()).ok()
            ));
        }
        bench.img(&format!(
            "dd -f {format} -O {format} if=disk of=copy bs=1M count=2"
        ))?;
        assert_eq!(bench.info("copy")?["virtual-size"], 2 << 20);
        bench.io_as(format, "copy", &["read -P 1 1M 64k", "read -P 0 0 1M"])?;
        Ok(said)
    };
    assert_eq!(said("qbm")?, said("qcow2")?);
    Ok(())
}

/// What `bench -w` writes is marked; what it reads is not.
#[test]
fn bench_writes_through_the_bitmap() -> Result<()> {
    let bench = Bench::new()?;
    bench.image_with_bitmap("disk", "4M", "64k")?;
    bench.img("bench -q -f qbm -c 64 -s 4k disk")?;
    assert_eq!(bench.descriptor("disk")?.bitmap("b0")?.set_count(), 0);
    bench.sparse("plain", 4 << 20, &[])?;
    for options in [
        "",
        "-d 8 --flush-interval=16",
        "-d 8 --flush-interval=16 --no-drain",
        "-t none -n -i native",
        "-i io_uring",
    ] {
        if machine_refuses(&bench, &format!("bench -q -f raw -w -c 1 {options} plain"))? {
            continue;
        }
        bench.img("bitmap --clear -f qbm disk b0")?;
        let line =
            format!("bench -q -f qbm -w -c 64 -s 4k -S 64k -o 64k --pattern=7 {options} disk");
        // The offset wraps around at the end of the disk.
        bench.img(&line).context(options)?;
        let bits = bench.descriptor("disk")?.bitmap("b0")?;
        assert_eq!(bits.set_count(), 64, "{options}");
        bench.io("disk", &["read -P 7 64k 4k"])?;
    }
    let refused = bench.img_refuses("bench -f qbm -w -c 10 --flush-interval=1 disk")?;
    assert!(refused.stderr.contains("Flush interval"), "{refused}");
    Ok(())
}
