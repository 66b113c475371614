// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encrypted images, whose key the user gives as a secret object.

use anyhow::{Result, ensure};
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::json;

use crate::common::{
    DISK_BYTES, DataImage, KIB, is_inconsistent, keeps_bitmaps, require_dirty_from,
    with_one_granule,
};

const SECRET: &str = "secret,id=key,data=open-sesame";
const END: u64 = DISK_BYTES / (64 * KIB);

fn luks(bench: &Bench) -> Result<DataImage> {
    bench.luks_image("disk.luks", DISK_BYTES, SECRET)?;
    // The size is in the header, which needs no key.
    bench.img("create -q -f qbm -o data_file=disk.luks,data_file_format=luks disk.qbm")?;
    let node = json!({
        "driver": "luks", "key-secret": "key",
        "file": { "driver": "file", "filename": "disk.luks" },
    });
    let in_words = "driver=luks,key-secret=key,file.filename=disk.luks";
    Ok(DataImage {
        objects: vec![json!({ "qom-type": "secret", "id": "key", "data": "open-sesame" })],
        node: Some(node),
        for_qemu_img: ["--object", SECRET, "--image-opts", in_words]
            .map(str::to_owned)
            .to_vec(),
    })
}

#[test]
fn luks_image() -> Result<()> {
    let bench = Bench::new()?;
    let image = luks(&bench)?;
    keeps_bitmaps(&bench, &image)?;
    // What the guest wrote is not there to be read.
    let file = bench.read("disk.luks")?;
    ensure!(
        !file.windows(100).any(|bytes| bytes == [1; 100]),
        "it is not encrypted"
    );
    Ok(())
}

/// A descriptor does not say where the key is.
#[test]
fn luks_image_without_its_key() -> Result<()> {
    let bench = Bench::new()?;
    let image = luks(&bench)?;
    with_one_granule(&bench, &image)?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let refusal = daemon.refuses_image("disk.qbm", &json!({}))?;
    ensure!(
        refusal.contains("disk.luks") && refusal.contains("key-secret"),
        "{refusal}"
    );
    daemon.quit()?;
    ensure!(!is_inconsistent(&bench, &image)?, "it cost the bitmap");
    // To list bitmaps needs no key either.
    let info = bench.info("disk.qbm")?;
    assert_eq!(info["format-specific"]["data"]["bitmaps"][0]["name"], "b0");
    Ok(())
}

#[test]
fn luks_image_resized_behind_us() -> Result<()> {
    let bench = Bench::new()?;
    let image = luks(&bench)?;
    with_one_granule(&bench, &image)?;
    let image_opts = "driver=luks,key-secret=key,file.filename=disk.luks";
    let resize = |how: &[&str]| {
        let mut args = vec!["resize", "-q", "--object", SECRET, "--image-opts"];
        args.extend(how);
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        bench.img(args.as_slice())
    };
    resize(&[image_opts, "+1M"])?;
    require_dirty_from(&bench, &image, END, END + 16)?;
    resize(&["--shrink", image_opts, "-1M"])?;
    ensure!(is_inconsistent(&bench, &image)?, "it shrank unnoticed");
    Ok(())
}

/// qcow2 that encrypts takes its key in the same way.
#[test]
fn encrypted_qcow2_image() -> Result<()> {
    let bench = Bench::new()?;
    let size = DISK_BYTES.to_string();
    let options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    bench.img_encrypted([
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        SECRET,
        "-o",
        options,
        "disk.qcow2",
        &size,
    ])?;
    bench.img("create -q -f qbm -o data_file=disk.qcow2,data_file_format=qcow2 disk.qbm")?;
    let node = json!({
        "driver": "qcow2", "encrypt": { "format": "luks", "key-secret": "key" },
        "file": { "driver": "file", "filename": "disk.qcow2" },
    });
    let in_words = "driver=qcow2,encrypt.key-secret=key,file.filename=disk.qcow2";
    let image = DataImage {
        objects: vec![json!({ "qom-type": "secret", "id": "key", "data": "open-sesame" })],
        node: Some(node),
        for_qemu_img: ["--object", SECRET, "--image-opts", in_words]
            .map(str::to_owned)
            .to_vec(),
    };
    keeps_bitmaps(&bench, &image)
}
