// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that another program serves over NBD.

use anyhow::{Result, ensure};
use qbm_testkit::image_server::{ImageServer, Server};
use qbm_testkit::{Bench, StorageDaemon};
use serde_json::json;

use crate::common::{
    DISK_BYTES, DataImage, KIB, MIB, is_inconsistent, keeps_bitmaps, require_dirty_from,
    with_one_granule,
};

const END: u64 = DISK_BYTES / (64 * KIB);

/// A server of `disk.raw`, and `disk.qbm` made over it.
pub(crate) fn served(bench: &Bench, server: Server) -> Result<(ImageServer, DataImage)> {
    bench.sparse("disk.raw", DISK_BYTES, &[(0, b"before QBM")])?;
    let server = ImageServer::start(bench, server, "disk.raw")?;
    let uri = server.uri();
    bench.img([
        "create",
        "-q",
        "-f",
        "qbm",
        "-o",
        &format!("data_file={uri}"),
        "disk.qbm",
    ])?;
    assert_eq!(bench.descriptor("disk.qbm")?.qbm()["image"]["file"], uri);
    let image = DataImage {
        node: Some(server.node()),
        for_qemu_img: ["-f", "raw", &uri].map(str::to_owned).to_vec(),
        ..DataImage::default()
    };
    Ok((server, image))
}

#[test]
fn qemu_nbd() -> Result<()> {
    let bench = Bench::new()?;
    let (_server, image) = served(&bench, Server::QemuNbd)?;
    keeps_bitmaps(&bench, &image)?;
    assert_eq!(&bench.read("disk.raw")?[..10], b"before QBM");
    Ok(())
}

#[test]
fn nbdkit() -> Result<()> {
    let bench = Bench::new()?;
    let (_server, image) = served(&bench, Server::Nbdkit)?;
    keeps_bitmaps(&bench, &image)
}

/// A raw node between the two changes nothing.
#[test]
fn with_a_raw_node() -> Result<()> {
    let bench = Bench::new()?;
    let (server, mut image) = served(&bench, Server::QemuNbd)?;
    image.node = Some(json!({ "driver": "raw", "file": server.node() }));
    keeps_bitmaps(&bench, &image)
}

/// The server is another program: only the size can be compared.
#[test]
fn served_another_image() -> Result<()> {
    let bench = Bench::new()?;
    let (mut server, image) = served(&bench, Server::QemuNbd)?;
    with_one_granule(&bench, &image)?;
    bench.sparse("longer.raw", DISK_BYTES + MIB, &[])?;
    server.kill()?;
    server.restart_with(&bench, "longer.raw")?;
    require_dirty_from(&bench, &image, END, END + 16)?;
    server.kill()?;
    server.restart_with(&bench, "disk.raw")?;
    ensure!(is_inconsistent(&bench, &image)?, "it shrank unnoticed");
    Ok(())
}

/// A descriptor's words are never an address.
#[test]
fn only_where_the_user_says_so() -> Result<()> {
    let bench = Bench::new()?;
    let (server, _image) = served(&bench, Server::QemuNbd)?;
    let mut daemon = StorageDaemon::start(&bench)?;
    let refusal = daemon.refuses_image("disk.qbm", &json!({}))?;
    ensure!(
        refusal.contains(&server.uri()) && refusal.contains("data-file"),
        "{refusal}"
    );
    Ok(())
}

#[test]
fn nobody_serves() -> Result<()> {
    let bench = Bench::new()?;
    let (mut server, image) = served(&bench, Server::QemuNbd)?;
    with_one_granule(&bench, &image)?;
    server.kill()?;
    let refusal = image.open(&bench).err().map(|error| format!("{error:#}"));
    ensure!(
        refusal
            .as_ref()
            .is_some_and(|words| words.contains("onnect")),
        "{refusal:?}"
    );
    server.restart(&bench)?;
    ensure!(!is_inconsistent(&bench, &image)?, "it cost the bitmap");
    Ok(())
}
