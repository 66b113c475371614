// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states of a bitmap (section 8), its files' names (section 2) and its user data (section 7).

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use qbm_conformance::disk::{Disk, GRANULE_BYTES, SIZE_BYTES, create_options, dirty, write};
use qbm_conformance::sandbox::Sandbox;
use qbm_core::storage::OsStorage;
use qbm_core::{Durability, ErrorKind, Image};

/// FORMAT: S5
#[test]
fn the_generation_counts_sessions_that_changed_something() -> Result<()> {
    let disk = Disk::new()?;
    let generation = || -> Result<u64> {
        let text: serde_json::Value = serde_json::from_str(&disk.text()?)?;
        let seal = &text["QBM"]["ext-soft-qbm-seal"]["generation"];
        seal.as_u64().context("no generation")
    };
    let first = generation()?;
    let image = disk.activated()?;
    image.add_bitmap("b", GRANULE_BYTES, true)?;
    image.inactivate()?;
    drop(image);
    ensure!(generation()? == first + 1, "a change");
    let text = disk.text()?;
    let image = disk.activated()?;
    image.inactivate()?;
    drop(image);
    ensure!(
        disk.text()? == text,
        "nothing happened, and the text changed"
    );
    let image = disk.activated()?;
    write(&image, &disk.log, 0, 1)?;
    image.inactivate()?;
    ensure!(generation()? == first + 2, "a write");
    Ok(())
}

/// FORMAT: S7, S8
#[test]
fn inconsistent_is_good_for_nothing_but_removal() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.add_bitmap("c", GRANULE_BYTES, true)?;
    image.set_user_data("b", Some(b"17"))?;
    image.set_inconsistent("b", "the first reason")?;
    let tried = [
        image.clear_bitmap("b"),
        image.merge_bitmaps("b", &["c"]),
        image.merge_bitmaps("c", &["b"]),
        image.rename_bitmap("b", "d"),
        image.set_granularity("b", 4096),
        image.set_recording("b", true),
        image.set_recording("b", false),
        image.set_user_data("b", None),
        image.mark_dirty("b", 0, 1),
        image.set_inconsistent("b", "another reason"),
        image.dirty_count("b").map(|_| ()),
    ];
    for (index, result) in tried.into_iter().enumerate() {
        let error = result
            .err()
            .with_context(|| format!("call {index} was accepted"))?;
        ensure!(error.kind() == ErrorKind::NotFound, "call {index}: {error}");
    }
    // FORMAT: U3
    ensure!(image.user_data("b")?.as_deref() == Some(b"17"), "user data");
    let text = disk.text()?;
    ensure!(
        text.contains("the first reason") && !text.contains("another"),
        "{text}"
    );
    image.remove_bitmap("b")?;
    ensure!(image.bitmap("b").is_none(), "still there");
    Ok(())
}

/// FORMAT: S9
#[test]
fn merging_rounds_outwards_between_granularities() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.add_bitmap("fine", 4096, true)?;
    image.add_bitmap("coarse", 4 * GRANULE_BYTES, true)?;
    image.set_recording("b", false)?;
    image.set_recording("coarse", false)?;
    write(&image, &disk.log, 5 * GRANULE_BYTES + 4096, 1)?;
    image.merge_bitmaps("b", &["fine"])?;
    ensure!(dirty(&image, "b")? == [5], "from fine to b");
    image.merge_bitmaps("coarse", &["b"])?;
    ensure!(dirty(&image, "coarse")? == [4, 5, 6, 7], "from b to coarse");
    ensure!(image.dirty_count("fine")? == 1, "the source changed");
    image.clear_bitmap("b")?;
    ensure!(dirty(&image, "b")?.is_empty(), "cleared");
    // From coarse to fine every granule of the target within is dirty.
    image.merge_bitmaps("fine", &["coarse"])?;
    ensure!(image.dirty_count("fine")? == 64, "from coarse to fine");
    Ok(())
}

/// FORMAT: S10, S11, K5
#[test]
fn another_granularity_keeps_every_dirty_byte() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    write(&image, &disk.log, 3 * GRANULE_BYTES, 1)?;
    image.set_user_data("b", Some(b"17"))?;
    image.set_granularity("b", 4 * GRANULE_BYTES)?;
    ensure!(dirty(&image, "b")? == [0, 1, 2, 3], "coarser");
    image.set_granularity("b", 512)?;
    ensure!(image.dirty_count("b")? == 512, "finer");
    image.rename_bitmap("b", "other")?;
    // FORMAT: U3
    ensure!(
        image.user_data("other")?.as_deref() == Some(b"17"),
        "user data"
    );
    image.inactivate()?;
    drop(image);
    let image = disk.activated()?;
    ensure!(dirty(&image, "other")? == [0, 1, 2, 3], "opened again");
    Ok(())
}

/// FORMAT: U1, U2
#[test]
fn user_data_has_a_cap_and_any_bytes() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    let all: Vec<u8> = (0..=255).cycle().take(65_536).collect();
    image.set_user_data("b", Some(&all))?;
    let error = image
        .set_user_data("b", Some(&[0; 65_537]))
        .err()
        .context("accepted")?;
    ensure!(error.kind() == ErrorKind::TooBig, "{error}");
    image.inactivate()?;
    drop(image);
    let image = disk.activated()?;
    ensure!(image.user_data("b")? == Some(all), "not what was set");
    image.set_user_data("b", Some(b""))?;
    ensure!(image.user_data("b")? == Some(Vec::new()), "no bytes");
    image.set_user_data("b", None)?;
    ensure!(image.user_data("b")?.is_none(), "nothing");
    Ok(())
}

/// FORMAT: N6, N7
#[test]
fn new_files_get_safe_names_that_are_free() -> Result<()> {
    let disk = Disk::new()?;
    fs::write(disk.file("x.qbm.day_1.bitmap"), "somebody's")?;
    let image = disk.activated()?;
    let long = "n".repeat(1023);
    for name in ["day/1", "../../etc/passwd", "day:1", &long] {
        image.add_bitmap(name, GRANULE_BYTES, true)?;
    }
    let expected = [
        "x.qbm".to_owned(),
        "x.qbm.______etc_passwd.bitmap".to_owned(),
        "x.qbm.day_1.1.bitmap".to_owned(),
        "x.qbm.day_1.2.bitmap".to_owned(),
        "x.qbm.day_1.bitmap".to_owned(),
        format!("x.qbm.{}.bitmap", "n".repeat(64)),
        "x.qbm.raw".to_owned(),
    ];
    ensure!(
        disk.sandbox.listing()? == expected,
        "{:?}",
        disk.sandbox.listing()?
    );
    ensure!(
        fs::read(disk.file("x.qbm.day_1.bitmap"))? == b"somebody's",
        "written over"
    );
    Ok(())
}

/// FORMAT: N6, N7
#[test]
fn a_new_data_image_gets_a_name_that_is_free() -> Result<()> {
    let sandbox = Sandbox::new()?;
    fs::write(sandbox.file("x.qbm.raw"), "somebody's")?;
    let options = create_options(SIZE_BYTES, None, "raw");
    let created = Image::create(&OsStorage, &sandbox.descriptor(), &options)?;
    ensure!(
        created.data_file == sandbox.file("x.qbm.1.raw"),
        "{created:?}"
    );
    ensure!(
        fs::read(sandbox.file("x.qbm.raw"))? == b"somebody's",
        "written over"
    );
    Ok(())
}

/// FORMAT: N8
#[test]
fn removing_a_bitmap_removes_only_a_file_of_its_own() -> Result<()> {
    let elsewhere = Sandbox::new()?;
    fs::write(elsewhere.file("precious"), [0, 0])?;
    let precious = elsewhere.file("precious");
    let precious = precious.to_str().context("a path of UTF-8")?;
    for file in [precious, "./x.qbm.b.bitmap", "x.qbm.raw", "x.qbm", "shared"] {
        let (disk, image) = Disk::with_bitmap(Durability::Process)?;
        image.inactivate()?;
        drop(image);
        fs::write(disk.file("shared"), [0, 0])?;
        let text = disk
            .text()?
            .replace("\"x.qbm.b.bitmap\"", &format!("\"{file}\""));
        let entry = "{\"file\":\"shared\",\"granularity-bytes\":65536,\"type\":\"dirty\"}";
        let text = text.replace(
            "\"bitmaps\": {",
            &format!("\"bitmaps\": {{\"other\":{entry},"),
        );
        fs::write(disk.sandbox.descriptor(), text)?;
        let image = disk.activated()?;
        image.remove_bitmap("b")?;
        let is_left = disk.sandbox.path().join(file).exists();
        ensure!(is_left, "{file} was removed");
    }
    Ok(())
}

/// FORMAT: B6, B1
#[test]
fn bitmap_files_of_zeros_take_no_space() -> Result<()> {
    const TIB: u64 = 1 << 40;
    let sandbox = Sandbox::new()?;
    // Not every file system takes a file of that length; the size is all that is asked.
    fs::write(sandbox.file("disk.raw"), "")?;
    let options = create_options(64 * TIB, Some("disk.raw"), "qcow2");
    Image::create(&OsStorage, &sandbox.descriptor(), &options)?;
    let image = qbm_conformance::observe::open(&sandbox.descriptor(), false)?;
    image.activate(&qbm_core::Activation {
        size_bytes: 64 * TIB,
        ..qbm_core::Activation::default()
    })?;
    image.add_bitmap("b", GRANULE_BYTES, true)?;
    let (ticket, _) = image.begin_write(32 * TIB, 1)?;
    image.end_write(ticket);
    image.inactivate()?;
    let metadata = fs::metadata(sandbox.file("x.qbm.b.bitmap"))?;
    ensure!(metadata.len() == 128 << 20, "{} bytes", metadata.len());
    let taken = metadata.blocks() * 512;
    ensure!(taken <= 1 << 20, "{taken} bytes of the disk");
    Ok(())
}

/// FORMAT: B7
#[test]
fn a_bitmap_of_too_many_bits_is_not_made() -> Result<()> {
    let sandbox = Sandbox::new()?;
    fs::write(sandbox.file("disk.raw"), "")?;
    let options = create_options((1 << 45) + 512, Some("disk.raw"), "qcow2");
    Image::create(&OsStorage, &sandbox.descriptor(), &options)?;
    let image = qbm_conformance::observe::open(&sandbox.descriptor(), false)?;
    image.activate(&qbm_core::Activation {
        size_bytes: options.size_bytes,
        ..qbm_core::Activation::default()
    })?;
    let error = image.add_bitmap("b", 512, true).err().context("accepted")?;
    ensure!(error.kind() == ErrorKind::TooBig, "{error}");
    let expected = ["disk.raw", "x.qbm"];
    ensure!(sandbox.listing()? == expected, "{:?}", sandbox.listing()?);
    Ok(())
}

/// FORMAT: N9
#[test]
fn the_format_is_not_looked_for_in_the_data() -> Result<()> {
    let disk = Disk::new()?;
    // A guest that writes the beginning of a qcow2 image on its raw disk.
    let data = fs::File::options()
        .write(true)
        .open(disk.file("x.qbm.raw"))?;
    std::os::unix::fs::FileExt::write_all_at(&data, b"QFI\xfb\0\0\0\x03", 0)?;
    let image = qbm_conformance::observe::open(&disk.sandbox.descriptor(), true)?;
    ensure!(
        image.info().data_format == "raw",
        "{}",
        image.info().data_format
    );
    Ok(())
}

/// FORMAT: D2
#[test]
fn a_descriptor_beyond_the_cap_is_refused_before_it_is_read() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let start = "{\"QBM\":{\"version\":1,\"image\":{\"file\":\"d\",\"format\":\"raw\"}}}";
    let of_length = |length: usize| format!("{start}{}", " ".repeat(length - start.len()));
    fs::write(sandbox.descriptor(), of_length(16_777_216))?;
    qbm_conformance::observe::open(&sandbox.descriptor(), true)?;
    fs::write(sandbox.descriptor(), of_length(16_777_217))?;
    let error = qbm_conformance::observe::open(&sandbox.descriptor(), true);
    let error = error.err().context("accepted")?;
    ensure!(error.kind() == ErrorKind::TooBig, "{error}");
    // As large as it is there is nothing in memory of it: a hole of 8 TiB is refused as fast.
    fs::write(sandbox.descriptor(), start)?;
    let file = fs::File::options().write(true).open(sandbox.descriptor())?;
    file.set_len(1 << 43)?;
    let error = qbm_conformance::observe::open(&sandbox.descriptor(), true);
    let error = error.err().context("accepted")?;
    ensure!(error.kind() == ErrorKind::TooBig, "{error}");
    Ok(())
}
