// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that break the format.

use anyhow::{Result, ensure};
use qbm_testkit::{Bench, StorageDaemon, backup};
use serde_json::{Value, json};

use super::{for_each_row, image, require_bitmap_lost, require_refused};

/// A change to the object under `QBM`, and the words that must be said about it.
type Row = (fn(&mut Value), &'static [&'static str]);

/// What costs the image: rows of what is wrong, how to make it so, and what is said.
const REFUSED_ROWS: &[(&str, Row)] = &[
    (
        "version 2",
        (|q| q["version"] = json!(2), &["version", "2"]),
    ),
    (
        "version as text",
        (|q| q["version"] = json!("1"), &["version", "\"1\""]),
    ),
    (
        "a negative version",
        (|q| q["version"] = json!(-1), &["version", "-1"]),
    ),
    ("no version", (|q| remove(q, "version"), &["version"])),
    ("no image", (|q| remove(q, "image"), &["image"])),
    ("image as a list", (|q| q["image"] = json!([]), &["image"])),
    (
        "no image file",
        (|q| remove(&mut q["image"], "file"), &["image", "file"]),
    ),
    (
        "an image file that is a number",
        (|q| q["image"]["file"] = json!(7), &["image.file", "7"]),
    ),
    (
        "an empty image file",
        (|q| q["image"]["file"] = json!(""), &["image.file"]),
    ),
    (
        "no image format",
        (|q| remove(&mut q["image"], "format"), &["image", "format"]),
    ),
    (
        "an unknown image format",
        (|q| q["image"]["format"] = json!("nonesuch"), &["nonesuch"]),
    ),
    (
        "bitmaps as a list",
        (|q| q["bitmaps"] = json!([]), &["bitmaps"]),
    ),
    (
        "an unknown bitmap type",
        (|q| b0(q)["type"] = json!("wet"), &["b0", "type", "wet"]),
    ),
    (
        "an unknown key",
        (|q| q["colour"] = json!("red"), &["colour"]),
    ),
    (
        "an unknown key of the image",
        (
            |q| q["image"]["colour"] = json!("red"),
            &["image", "colour"],
        ),
    ),
    (
        "an unknown key of a bitmap",
        (|q| b0(q)["colour"] = json!("red"), &["b0", "colour"]),
    ),
    (
        "an unknown hard extension",
        (|q| q["ext-hard-other"] = json!({}), &["ext-hard-other"]),
    ),
    (
        "an unknown hard extension of a bitmap",
        (
            |q| b0(q)["ext-hard-other"] = json!({}),
            &["b0", "ext-hard-other"],
        ),
    ),
];

/// What costs the bitmap `b0`: rows as above.
const COSTLY_ROWS: &[(&str, Row)] = &[
    (
        "a bitmap as text",
        (|q| q["bitmaps"]["b0"] = json!("b0"), &["b0"]),
    ),
    (
        "no bitmap file",
        (|q| remove(b0(q), "file"), &["b0", "file"]),
    ),
    (
        "a bitmap file that is a list",
        (|q| b0(q)["file"] = json!([]), &["b0", "file"]),
    ),
    (
        "no granularity",
        (
            |q| remove(b0(q), "granularity-bytes"),
            &["b0", "granularity-bytes"],
        ),
    ),
    (
        "granularity 3000",
        (
            |q| granularity(q, json!(3000)),
            &["b0", "granularity-bytes", "3000"],
        ),
    ),
    (
        "granularity 256",
        (
            |q| granularity(q, json!(256)),
            &["b0", "granularity-bytes", "256"],
        ),
    ),
    (
        "granularity 0",
        (
            |q| granularity(q, json!(0)),
            &["b0", "granularity-bytes", "0"],
        ),
    ),
    (
        "granularity 4 GiB",
        (
            |q| granularity(q, json!(1_u64 << 32)),
            &["b0", "granularity-bytes"],
        ),
    ),
    (
        "granularity as text",
        (
            |q| granularity(q, json!("64k")),
            &["b0", "granularity-bytes", "64k"],
        ),
    ),
    (
        "granularity 65536.5",
        (
            |q| granularity(q, json!(65536.5)),
            &["b0", "granularity-bytes"],
        ),
    ),
];

fn remove(object: &mut Value, key: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(key);
    }
}

fn b0(qbm: &mut Value) -> &mut Value {
    &mut qbm["bitmaps"]["b0"]
}

fn granularity(qbm: &mut Value, value: Value) {
    b0(qbm)["granularity-bytes"] = value;
}

/// An image whose descriptor was changed by `damage`.
fn damaged(damage: fn(&mut Value)) -> Result<Bench> {
    let bench = image()?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    damage(&mut descriptor.json_mut()["QBM"]);
    descriptor.write()?;
    Ok(bench)
}

#[test]
fn each_is_refused_by_name() -> Result<()> {
    for_each_row(REFUSED_ROWS.iter().copied(), |(damage, words)| {
        require_refused(&damaged(damage)?, &[&["disk.qbm"], words].concat())
    })
}

#[test]
fn each_costs_its_bitmap_and_never_the_disk() -> Result<()> {
    for_each_row(COSTLY_ROWS.iter().copied(), |(damage, words)| {
        require_bitmap_lost(&damaged(damage)?, words)
    })
}

/// Names that no bitmap can have: nothing else suffers.
#[test]
fn bitmaps_with_bad_names_are_not_seen() -> Result<()> {
    let long = "n".repeat(1024);
    for_each_row([("of 1,024 bytes", long.as_str()), ("empty", "")], |name| {
        let bench = image()?;
        let mut descriptor = bench.descriptor("disk.qbm")?;
        let qbm = &mut descriptor.json_mut()["QBM"];
        qbm["bitmaps"][name] = json!({
            "file": "other.bitmap", "granularity-bytes": 65536, "type": "dirty",
        });
        descriptor.write()?;
        bench.write("other.bitmap", [0; 2])?;
        let mut daemon = StorageDaemon::with_image(&bench, "disk.qbm")?;
        backup::require_good_bitmap(&mut daemon.qmp, "b0")?;
        backup::require_good_bitmap(&mut daemon.qmp, "b1")?;
        ensure!(
            daemon.export()?.read(0, 4)? == [7; 4],
            "the disk's data is gone"
        );
        let log = daemon.quit()?;
        ensure!(log.contains("name"), "nobody was told: {log:?}");
        ensure!(
            bench.read("other.bitmap")? == [0; 2],
            "its file was changed"
        );
        Ok(())
    })
}

/// Texts that are no descriptor at all.
#[test]
fn each_text_is_refused() -> Result<()> {
    let whole = image()?.read("disk.qbm")?;
    let half = whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
    let rows: [(&str, Vec<u8>); 9] = [
        ("half of the text", half),
        ("nothing", Vec::new()),
        ("zeroes", vec![0; 4096]),
        ("a list", b"[]".to_vec()),
        ("no QBM in it", b"{ \"QED\": {} }".to_vec()),
        ("QBM is null", b"{ \"QBM\": null }".to_vec()),
        ("text after the end", [whole.as_slice(), b"}"].concat()),
        (
            "bytes that are no UTF-8",
            b"{ \"QBM\": { \"version\": 1, \"\xff\xfe\": 0 } }".to_vec(),
        ),
        (
            "ten thousand brackets",
            b"{ \"QBM\": "
                .iter()
                .copied()
                .chain([b'['; 10_000])
                .collect(),
        ),
    ];
    for_each_row(rows, |text| {
        let bench = image()?;
        bench.write("disk.qbm", text)?;
        require_refused(&bench, &["disk.qbm"])
    })
}

#[test]
fn a_descriptor_of_100_mib_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    bench.sparse(
        "disk.qbm",
        100 << 20,
        &[(0, b"{ \"QBM\": { \"version\": 1, ")],
    )?;
    require_refused(&bench, &["disk.qbm", "104857600"])
}

/// What others keep in the descriptor stays there.
#[test]
fn soft_extensions_of_others_stay() -> Result<()> {
    let bench = image()?;
    let mut descriptor = bench.descriptor("disk.qbm")?;
    let note = json!({ "a": [1, { "b": null }], "c": 1.5 });
    let qbm = &mut descriptor.json_mut()["QBM"];
    qbm["ext-soft-other"] = note.clone();
    qbm["image"]["ext-soft-other"] = note.clone();
    b0(qbm)["ext-soft-other"] = note.clone();
    descriptor.write()?;
    bench.io("disk.qbm", &["write -P 8 0 64k"])?;
    bench.img("bitmap --add -f qbm disk.qbm b2")?;

    let descriptor = bench.descriptor("disk.qbm")?;
    let qbm = descriptor.qbm();
    for object in [qbm, &qbm["image"], &qbm["bitmaps"]["b0"]] {
        ensure!(object["ext-soft-other"] == note, "lost: {object}");
    }
    Ok(())
}

#[test]
fn a_bitmap_cannot_be_added_with_a_bad_name_or_granularity() -> Result<()> {
    let bench = image()?;
    let before = qbm_testkit::Snapshot::of(bench.directory())?;
    let long = "n".repeat(1024);
    for (granularity, name, words) in [
        ("64k", long.as_str(), "1024 bytes, at most 1023"),
        ("64k", "b0", "already exists: b0"),
        ("3000", "b2", "power of 2 and at least 512"),
        ("256", "b2", "power of 2 and at least 512"),
        ("4G", "b2", "power of 2 and at least 512"),
    ] {
        let refusal = bench.img_refuses([
            "bitmap",
            "--add",
            "-g",
            granularity,
            "-f",
            "qbm",
            "disk.qbm",
            name,
        ])?;
        super::require_one_line(refusal, &[words])?;
    }
    // The descriptor is opened for writing each time, and closed as it was.
    let before = before
        .without("disk.qbm")
        .without("disk.qbm.b0.bitmap")
        .without("disk.qbm.b1.bitmap");
    before.require_kept()?;
    assert_eq!(bench.descriptor("disk.qbm")?.bitmap_names(), ["b0", "b1"]);
    Ok(())
}
