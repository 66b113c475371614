// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of writes (section 10): what is done before what, as the storage sees it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use qbm_conformance::disk::{Disk, GRANULE_BYTES, SIZE_BYTES, create_options, dirty, write};
use qbm_conformance::sandbox::Sandbox;
use qbm_core::{Begun, Defaults, Durability, Image, OpenOptions, PersistBitmaps};

const REPLACED: [&str; 8] = [
    "create \"x.qbm.new\"",
    "write \"x.qbm.new\" at 0",
    "sync \"x.qbm.new\"",
    "sync directory",
    "write \"x.qbm\" at 0",
    "length \"x.qbm\"",
    "sync \"x.qbm\"",
    "remove \"x.qbm.new\"",
];

/// The steps before, then a whole replacement of the descriptor, then the steps after.
fn around<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<&'a str> {
    [before, &REPLACED, after].concat()
}

/// FORMAT: O1
#[test]
fn the_descriptor_is_replaced_in_place() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    let inode = fs::metadata(disk.sandbox.descriptor())?.ino();
    let descriptor = disk.sandbox.descriptor();
    let replacement = disk.file("x.qbm.new");
    let before = disk.text()?;
    disk.log.before("write \"x.qbm\" at 0", move || {
        // The next text is whole, behind the line that says what it is, while the old one still stands.
        let text = fs::read_to_string(replacement).unwrap_or_default();
        let text = text.strip_prefix("QBM: the next text of a descriptor\n");
        assert!(text.is_some_and(qbm_conformance::checksum::holds));
        assert_eq!(fs::read_to_string(descriptor).unwrap_or_default(), before);
    });
    image.set_user_data("b", Some(b"1"))?;
    let lines = disk.log.lines();
    ensure!(lines.len() == REPLACED.len(), "{lines:?}");
    disk.log.ensure_order(&REPLACED)?;
    ensure!(
        fs::metadata(disk.sandbox.descriptor())?.ino() == inode,
        "another inode"
    );
    ensure!(!disk.file("x.qbm.new").exists(), "a replacement is left");
    Ok(())
}

/// FORMAT: X17, O1
#[test]
fn stored_defaults_change_in_one_replacement() -> Result<()> {
    let both = Defaults {
        durability: Some(Durability::Close),
        persist_bitmaps: Some(PersistBitmaps::All),
    };
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.set_defaults(&both)?;
    let lines = disk.log.lines();
    ensure!(lines.len() == REPLACED.len(), "{lines:?}");
    disk.log.ensure_order(&REPLACED)?;
    image.inactivate()?;
    disk.log.clear();
    image.set_defaults(&both)?;
    let lines = disk.log.lines();
    ensure!(lines.len() == REPLACED.len(), "not active: {lines:?}");
    disk.log.ensure_order(&REPLACED)
}

/// FORMAT: O3, O16
#[test]
fn a_failed_overwrite_is_repaired_by_the_next_change() -> Result<()> {
    for step in ["write \"x.qbm\"", "length \"x.qbm\"", "sync \"x.qbm\""] {
        let (disk, image) = Disk::with_bitmap(Durability::Process)?;
        disk.log.fail(Some(step));
        ensure!(
            image.set_user_data("b", Some(b"1")).is_err(),
            "{step}: no error"
        );
        disk.log.fail(None);
        disk.log.clear();
        image.set_user_data("b", Some(b"2"))?;
        let repaired = [
            "write \"x.qbm\" at 0",
            "sync \"x.qbm\"",
            "remove \"x.qbm.new\"",
        ];
        let expected = [&repaired[..], &REPLACED].concat();
        disk.log.ensure_order(&expected)?;
        image.inactivate()?;
        drop(image);
        let image = disk.activated()?;
        ensure!(image.user_data("b")?.as_deref() == Some(b"2"), "{step}");
    }
    Ok(())
}

/// FORMAT: O3, O16
///
/// A crash of the process may leave a text that every reader sees whole and that is not on the disk yet.
#[test]
fn a_leftover_goes_only_once_the_descriptor_is_durable() -> Result<()> {
    let disk = Disk::new()?;
    let leftover = format!("QBM: the next text of a descriptor\n{}", disk.text()?);
    fs::write(disk.file("x.qbm.new"), leftover)?;
    disk.log.clear();
    let _image = disk.activated()?;
    let repaired = [
        "write \"x.qbm\" at 0",
        "sync \"x.qbm\"",
        "remove \"x.qbm.new\"",
    ];
    disk.log.ensure_order(&[&repaired[..], &REPLACED].concat())
}

/// FORMAT: O4, S1
#[test]
fn the_session_is_on_record_before_the_guest_may_write() -> Result<()> {
    let disk = Disk::new()?;
    let image = disk.opened(OpenOptions::default())?;
    ensure!(
        image.begin_write(0, 1).is_err(),
        "written before it is active"
    );
    drop(image);
    disk.log.clear();
    let _image = disk.activated()?;
    disk.log.ensure_order(&REPLACED)?;
    let text = disk.text()?;
    ensure!(text.contains("ext-hard-qbm-session"), "{text}");
    ensure!(!text.contains("ext-soft-qbm-seal"), "{text}");
    Ok(())
}

/// FORMAT: O4, J6
#[test]
fn bitmap_files_are_fitted_to_a_grown_disk_with_the_session_on_record() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.inactivate()?;
    drop(image);
    disk.resize_data(2 * SIZE_BYTES)?;
    disk.log.clear();
    let image = disk.activated()?;
    let fitted = ["length \"x.qbm.b.bitmap\": 4", "write \"x.qbm.b.bitmap\""];
    disk.log
        .ensure_order(&[&REPLACED[..], &fitted, &REPLACED].concat())?;
    ensure!(
        dirty(&image, "b")? == (16..32).collect::<Vec<_>>(),
        "the tail"
    );
    Ok(())
}

/// FORMAT: O5
#[test]
fn at_process_the_bit_is_in_the_file_before_the_data_moves() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    write(&image, &disk.log, 0, 1)?;
    disk.log
        .ensure_order(&["write \"x.qbm.b.bitmap\" at 0: 1 bytes", "data moved"])?;
    ensure!(
        fs::read(disk.file("x.qbm.b.bitmap"))? == [1, 0],
        "the bit is not in the file"
    );
    disk.log.clear();
    write(&image, &disk.log, 5, GRANULE_BYTES - 5)?;
    ensure!(
        disk.log.lines() == ["data moved"],
        "a bit that is set is written again"
    );
    Ok(())
}

/// FORMAT: O6
#[test]
fn at_close_nothing_is_written_until_the_close() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Close)?;
    write(&image, &disk.log, 0, 1)?;
    ensure!(disk.log.lines() == ["data moved"], "{:?}", disk.log.lines());
    ensure!(dirty(&image, "b")? == [0], "not in memory");
    image.inactivate()?;
    ensure!(
        fs::read(disk.file("x.qbm.b.bitmap"))? == [1, 0],
        "not in the file"
    );
    Ok(())
}

/// FORMAT: O7
#[test]
fn a_bit_that_cannot_be_recorded_costs_the_bitmap_before_the_data_moves() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    disk.log.fail(Some("write \"x.qbm.b.bitmap\""));
    let (ticket, begun) = image.begin_write(0, 1)?;
    ensure!(begun == Begun::MustWait, "nothing to wait for");
    image.wait_write()?;
    disk.log.note("data moved");
    image.end_write(ticket);
    disk.log.ensure_order(&around(
        &["failed: write \"x.qbm.b.bitmap\""],
        &["data moved"],
    ))?;
    let text = disk.text()?;
    ensure!(text.contains("ext-soft-qbm-inconsistent"), "{text}");
    Ok(())
}

/// FORMAT: O7
#[test]
fn a_bit_that_cannot_be_recorded_nor_given_up_stops_the_write() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    // Bitmap file and descriptor: both begin so.
    disk.log.fail(Some("write \"x.qbm"));
    let (ticket, begun) = image.begin_write(0, 1)?;
    ensure!(begun == Begun::MustWait, "nothing to wait for");
    ensure!(image.wait_write().is_err(), "the write may go ahead");
    image.end_write(ticket);
    Ok(())
}

/// FORMAT: O9, S2, K5
#[test]
fn a_clean_close_makes_the_bits_durable_then_says_so() -> Result<()> {
    for durability in [Durability::Close, Durability::Process] {
        let (disk, image) = Disk::with_bitmap(durability)?;
        write(&image, &disk.log, 70_000, 1)?;
        image.inactivate()?;
        let closed = ["sync \"x.qbm.b.bitmap\"", "settle \"x.qbm.raw\""];
        disk.log.ensure_order(&around(&closed, &[]))?;
        let bits = fs::read(disk.file("x.qbm.b.bitmap"))?;
        ensure!(bits == [2, 0], "{bits:?}");
        let text = disk.text()?;
        let digits = format!("\"ext-soft-qbm-crc32c\": \"{:08x}\"", crc32c::crc32c(&bits));
        ensure!(text.contains(&digits), "no {digits}: {text}");
        ensure!(text.contains("ext-soft-qbm-seal"), "{text}");
        ensure!(!text.contains("ext-hard-qbm-session"), "{text}");
    }
    Ok(())
}

/// FORMAT: O9, O16
#[test]
fn a_bitmap_file_that_cannot_be_synced_is_inconsistent_at_the_close() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.add_bitmap("c", GRANULE_BYTES, true)?;
    write(&image, &disk.log, 0, 1)?;
    disk.log.fail(Some("sync \"x.qbm.b.bitmap\""));
    ensure!(image.inactivate().is_err(), "no error");
    disk.log.fail(None);
    drop(image);
    let image = disk.activated()?;
    ensure!(
        image.bitmap("b").is_some_and(|bitmap| bitmap.inconsistent),
        "b"
    );
    ensure!(dirty(&image, "c")? == [0], "c");
    Ok(())
}

/// FORMAT: O10
#[test]
fn growing_sets_the_tail_before_the_data_grows() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.begin_resize(2 * SIZE_BYTES)?;
    ensure!(
        disk.text()?.contains("\"resize-to-bytes\": 2097152"),
        "not announced"
    );
    disk.resize_data(2 * SIZE_BYTES)?;
    image.end_resize(2 * SIZE_BYTES)?;
    let grown = [
        "length \"x.qbm.b.bitmap\": 4",
        "write \"x.qbm.b.bitmap\"",
        "data resized",
    ];
    disk.log
        .ensure_order(&[&REPLACED[..], &grown, &REPLACED].concat())?;
    ensure!(!disk.text()?.contains("resize-to-bytes"), "still announced");
    ensure!(
        dirty(&image, "b")? == (16..32).collect::<Vec<_>>(),
        "the tail"
    );
    Ok(())
}

/// FORMAT: O10
#[test]
fn shrinking_cuts_the_bits_after_the_data() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.begin_resize(SIZE_BYTES / 2)?;
    disk.log.ensure_none("length \"x.qbm.b.bitmap\"")?;
    disk.resize_data(SIZE_BYTES / 2)?;
    image.end_resize(SIZE_BYTES / 2)?;
    let cut = ["data resized", "length \"x.qbm.b.bitmap\": 1"];
    disk.log
        .ensure_order(&[&REPLACED[..], &cut, &REPLACED].concat())
}

/// FORMAT: O11, O8, S11
#[test]
fn bits_are_replaced_by_another_file_and_no_write_is_lost_in_between() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    write(&image, &disk.log, 0, 1)?;
    disk.log.clear();
    let (guest, log) = (image.clone(), disk.log.clone());
    disk.log.before("create \"x.qbm.new\"", move || {
        write(&guest, &log, GRANULE_BYTES, 1).unwrap_or_else(|error| panic!("{error:#}"));
    });
    image.clear_bitmap("b")?;
    let made = [
        "create \"x.qbm.b.1.bitmap\"",
        "sync \"x.qbm.b.1.bitmap\"",
        "write \"x.qbm.b",
        "data moved",
    ];
    disk.log
        .ensure_order(&around(&made, &["remove \"x.qbm.b.bitmap\""]))?;
    // The write came in while both files counted: a crash before the change of the descriptor would have found it in the old one.
    let lines = disk.log.lines();
    for file in ["write \"x.qbm.b.bitmap\"", "write \"x.qbm.b.1.bitmap\""] {
        let at = |start: &str| lines.iter().position(|line| line.starts_with(start));
        let moved = at("data moved");
        ensure!(
            at(file).is_some() && at(file) < moved,
            "{file}:\n{}",
            lines.join("\n")
        );
    }
    ensure!(dirty(&image, "b")? == [1], "{:?}", dirty(&image, "b")?);
    Ok(())
}

/// FORMAT: O12
#[test]
fn an_added_bitmap_records_before_it_is_on_record() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    let (guest, log) = (image.clone(), disk.log.clone());
    disk.log.before("write \"x.qbm\" at 0", move || {
        write(&guest, &log, 0, 1).unwrap_or_else(|error| panic!("{error:#}"));
    });
    image.add_bitmap("c", GRANULE_BYTES, true)?;
    disk.log
        .ensure_order(&around(&["create \"x.qbm.c.bitmap\""], &[]))?;
    ensure!(dirty(&image, "c")? == [0], "the write in between");
    Ok(())
}

/// FORMAT: O13, X5
#[test]
fn a_removed_bitmap_is_off_the_record_before_its_file_goes() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    image.set_user_data("b", Some(b"gone with it"))?;
    disk.log.clear();
    image.remove_bitmap("b")?;
    disk.log
        .ensure_order(&around(&[], &["remove \"x.qbm.b.bitmap\""]))?;
    let text = disk.text()?;
    ensure!(
        !text.contains("user-data") && !text.contains("bitmap\""),
        "{text}"
    );
    Ok(())
}

/// FORMAT: O14
#[test]
fn enabling_records_before_the_descriptor_says_so_and_disabling_until_it_does() -> Result<()> {
    let (disk, image) = Disk::with_bitmap(Durability::Process)?;
    for (recording, granule) in [(false, 3), (true, 5)] {
        let (guest, log) = (image.clone(), disk.log.clone());
        disk.log.before("write \"x.qbm\" at 0", move || {
            write(&guest, &log, granule * GRANULE_BYTES, 1)
                .unwrap_or_else(|error| panic!("{error:#}"));
        });
        image.set_recording("b", recording)?;
        if !recording {
            write(&image, &disk.log, 4 * GRANULE_BYTES, 1)?;
        }
    }
    ensure!(dirty(&image, "b")? == [3, 5], "{:?}", dirty(&image, "b")?);
    Ok(())
}

/// FORMAT: O15
#[test]
fn a_new_data_image_is_durable_before_a_descriptor_names_it() -> Result<()> {
    let disk = Disk::new()?;
    let made = [
        "create \"x.qbm.raw\"",
        "length \"x.qbm.raw\": 1048576",
        "sync \"x.qbm.raw\"",
    ];
    disk.log.ensure_order(&around(&made, &[]))
}

/// FORMAT: O15, N7
#[test]
fn an_adopted_data_image_is_never_written() -> Result<()> {
    let sandbox = Sandbox::new()?;
    fs::write(sandbox.file("disk.raw"), vec![7; 1 << 20])?;
    let before = sandbox.snapshot()?;
    let storage = qbm_conformance::recording::Recording::default();
    let options = create_options(SIZE_BYTES, Some("disk.raw"), "raw");
    Image::create(&storage, &sandbox.descriptor(), &options)?;
    for act in ["create", "write", "length", "sync", "remove"] {
        storage.log.ensure_none(&format!("{act} \"disk.raw\""))?;
    }
    before.ensure_file_same("disk.raw", &sandbox.snapshot()?)
}
