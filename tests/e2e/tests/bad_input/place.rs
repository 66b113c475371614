// SPDX-License-Identifier: MIT OR Apache-2.0
//! Things of another kind where a descriptor or a data image belongs.

use std::fs;

use anyhow::Result;
use qbm_testkit::{Bench, Snapshot};
use serde_json::json;

use super::{for_each_row, image, require_one_line, require_refused};

type Row = (fn(&Bench) -> Result<()>, &'static [&'static str]);

/// Rows: what is wrong with the data image, how to make it so, and what must be said.
const DATA_ROWS: &[(&str, Row)] = &[
    (
        "missing",
        (
            |bench| Ok(fs::remove_file(bench.path("disk.qbm.raw"))?),
            &["disk.qbm.raw", "No such file"],
        ),
    ),
    (
        "a directory",
        (
            |bench| {
                fs::remove_file(bench.path("disk.qbm.raw"))?;
                Ok(fs::create_dir(bench.path("disk.qbm.raw"))?)
            },
            &["disk.qbm.raw"],
        ),
    ),
    (
        "a device without a size",
        (|bench| data_file(bench, "/dev/tty"), &["/dev/tty"]),
    ),
    (
        "the descriptor itself",
        (|bench| data_file(bench, "disk.qbm"), &["disk.qbm"]),
    ),
    // What a descriptor names is a file, never a pseudo-protocol or a server.
    (
        "a pseudo-protocol",
        (
            |bench| data_file(bench, "json:{\"driver\":\"null-co\"}"),
            &["json:"],
        ),
    ),
    (
        "a server",
        (|bench| data_file(bench, "nbd://localhost/disk"), &["nbd:"]),
    ),
    (
        "a protocol",
        (|bench| data_file(bench, "file:disk.qbm.raw"), &["file:"]),
    ),
];

fn data_file(bench: &Bench, file: &str) -> Result<()> {
    let mut descriptor = bench.descriptor("disk.qbm")?;
    descriptor.json_mut()["QBM"]["image"]["file"] = json!(file);
    descriptor.write()
}

#[test]
fn each_data_image_is_refused() -> Result<()> {
    for_each_row(DATA_ROWS.iter().copied(), |(damage, words)| {
        let bench = image()?;
        damage(&bench)?;
        require_refused(&bench, words)
    })
}

#[test]
fn each_descriptor_is_refused() -> Result<()> {
    let rows = [
        ("a directory", "somewhere"),
        ("a device", "/dev/null"),
        ("missing", "nothing.qbm"),
    ];
    for_each_row(rows, |name| {
        let bench = Bench::new()?;
        fs::create_dir(bench.path("somewhere"))?;
        let refusal = bench
            .run("qemu-io", ["-f", "qbm", "-c", "quit", name])?
            .refused()?;
        require_one_line(refusal, &[name])
    })
}

/// Rows: `data_file=` of an image to be created, and what must be said.
#[test]
fn each_is_refused_at_create() -> Result<()> {
    let rows: [(&str, (&str, &[&str])); 5] = [
        (
            "a missing data image",
            ("data_file=nothing.raw", &["nothing.raw"]),
        ),
        ("a directory", ("data_file=somewhere", &["somewhere"])),
        ("an empty name", ("data_file=", &["data_file", "empty"])),
        (
            "an unknown format",
            (
                "data_file=disk.raw,data_file_format=nonesuch",
                &["nonesuch"],
            ),
        ),
        (
            "a pseudo-protocol",
            ("data_file=json:{},data_file_format=raw", &["json:"]),
        ),
    ];
    for_each_row(rows, |(options, words)| {
        let bench = Bench::new()?;
        fs::create_dir(bench.path("somewhere"))?;
        bench.sparse("disk.raw", 1 << 20, &[])?;
        let before = Snapshot::of(bench.directory())?;
        let refusal =
            bench.img_refuses(["create", "-q", "-f", "qbm", "-o", options, "disk.qbm"])?;
        require_one_line(refusal, words)?;
        before.require_untouched()
    })
}

#[test]
fn an_image_without_a_size_is_refused_at_create() -> Result<()> {
    let bench = Bench::new()?;
    let before = Snapshot::of(bench.directory())?;
    require_one_line(bench.img_refuses("create -q -f qbm disk.qbm")?, &["size"])?;
    before.require_untouched()
}
