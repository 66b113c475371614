// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a bitmap costs that bitmap, never the disk (I5).

use std::os::unix::fs::symlink;

use super::*;

/// An image with bitmaps `good` and `bad`, closed cleanly, with a bit set in each.
fn disk() -> Disk {
    let disk = Disk::new(MIB);
    let image = disk.activated();
    for name in ["good", "bad"] {
        image.add_bitmap(name, 65536, true).unwrap();
    }
    write(&image, 0, 1);
    image.inactivate().unwrap();
    disk
}

fn costs_only_bad(disk: &Disk, reason: &str) {
    let image = disk.activated();
    assert!(inconsistent(&image, "bad"), "{reason}");
    assert_eq!(dirty(&image, "good", 65536), [0]);
    let notices = notices(&image);
    assert!(
        notices.iter().any(|line| line.contains(reason)),
        "{reason}: {notices:?}"
    );
    write(&image, 65536, 1);
    image.remove_bitmap("bad").unwrap();
    image.inactivate().unwrap();
    drop(image);
    assert_eq!(dirty(&disk.activated(), "good", 65536), [0, 65536]);
}

#[test]
fn missing_file() {
    let disk = disk();
    fs::remove_file(disk.file("x.qbm.bad.bitmap")).unwrap();
    costs_only_bad(&disk, "No such file");
}

#[test]
fn short_and_long_file() {
    for (length, reason) in [
        (0, "has 0 bytes, not 2"),
        (1, "has 1 bytes"),
        (3, "has 3 bytes"),
    ] {
        let disk = disk();
        fs::write(disk.file("x.qbm.bad.bitmap"), vec![0; length]).unwrap();
        costs_only_bad(&disk, reason);
    }
}

#[test]
fn directory_and_device() {
    let disk = disk();
    let file = disk.file("x.qbm.bad.bitmap");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    costs_only_bad(&disk, "Is a directory");
    assert!(file.is_dir());

    let disk = self::disk();
    disk.edit("x.qbm.bad.bitmap", "/dev/zero");
    costs_only_bad(&disk, "not a regular file");
}

#[test]
fn granularity_3000() {
    let disk = disk();
    let text = disk.text();
    let at = text.rfind("65536").unwrap();
    fs::write(
        &disk.path,
        format!("{}3000{}", &text[..at], &text[at + 5..]),
    )
    .unwrap();
    costs_only_bad(&disk, "granularity-bytes: 3000 is not a power of two");
}

#[test]
fn a_bitmap_file_that_is_the_data_image() {
    // The bits would be written into the guest's disk (I6).
    let disk = disk();
    symlink(disk.file("x.qbm.raw"), disk.file("link")).unwrap();
    disk.edit("x.qbm.bad.bitmap", "link");
    let before = fs::read(disk.file("x.qbm.raw")).unwrap();
    costs_only_bad(&disk, "it is the descriptor or the data image");
    assert_eq!(fs::read(disk.file("x.qbm.raw")).unwrap(), before);
}

#[test]
fn a_file_with_two_bitmaps_is_nobodys() {
    let disk = disk();
    disk.edit("x.qbm.bad.bitmap", "x.qbm.good.bitmap");
    let image = disk.activated();
    assert!(inconsistent(&image, "bad") && inconsistent(&image, "good"));
    image.remove_bitmap("bad").unwrap();
    assert!(
        disk.file("x.qbm.good.bitmap").exists(),
        "still named by another"
    );
}

#[test]
fn removing_a_bitmap_never_removes_a_file_elsewhere() {
    let disk = disk();
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, [0; 2]).unwrap();
    disk.edit("x.qbm.bad.bitmap", precious.to_str().unwrap());
    let image = disk.activated();
    image.remove_bitmap("bad").unwrap();
    assert!(precious.exists());
    assert!(
        notices(&image)
            .iter()
            .any(|line| line.contains("left behind"))
    );
}

#[test]
fn a_full_disk_while_recording_costs_the_bitmap_not_the_write() {
    // `begin_write` says MustWait; `wait_write` makes the bitmap inconsistent on disk; the guest goes on.
    let disk = disk();
    let image = disk.activated();
    let recorders: Vec<_> = image.lock().active.as_ref().unwrap().loaded.clone();
    let bad = &recorders.iter().find(|(name, _)| name == "bad").unwrap().1;
    bad.fail_for_test();
    let (ticket, begun) = image.begin_write(131_072, 1).unwrap();
    assert_eq!(begun, Begun::MustWait);
    image.wait_write().unwrap();
    image.end_write(ticket);
    drop(image);
    let image = disk.activated();
    assert!(inconsistent(&image, "bad"));
    assert_eq!(dirty(&image, "good", 65536), [0, 131_072]);
}

#[test]
fn a_bitmap_that_missed_a_write_is_not_copied_into_a_sound_one() {
    // Its bits went to a new file, which was trusted; clearing it is another matter: what it missed counts no more.
    type Change = fn(&Image) -> Result<()>;
    let changes: [(Change, bool); 4] = [
        (|image| image.merge_bitmaps("good", &["bad"]), false),
        (|image| image.merge_bitmaps("bad", &["good"]), false),
        (|image| image.set_granularity("bad", 512), false),
        (|image| image.clear_bitmap("bad"), true),
    ];
    for (index, (change, is_allowed)) in changes.into_iter().enumerate() {
        let disk = Disk::new(MIB);
        let image = disk.activated();
        for name in ["good", "bad"] {
            image.add_bitmap(name, 65536, true).unwrap();
        }
        {
            let state = image.lock();
            let bad = state.active.as_ref().unwrap().recorder("bad").unwrap();
            bad.fail_for_test();
        }
        let result = change(&image);
        assert_eq!(result.is_ok(), is_allowed, "{index}: {result:?}");
        assert_eq!(inconsistent(&image, "bad"), !is_allowed, "{index}");
        assert!(!inconsistent(&image, "good"));
    }
}

#[test]
fn a_bitmap_that_missed_a_write_is_not_shown() {
    // A resize failed to mark the new tail, and to list the bitmap as inconsistent: it was read as if nothing were missing.
    let disk = disk();
    let image = disk.activated();
    for name in ["good", "bad"] {
        image.freeze_bitmap(name).unwrap();
    }
    image.lock().recorder("bad").unwrap().fail_for_test();
    let reads = |name: &str| {
        let mut bits = [0; 2];
        [
            image.dirty_count(name).map(drop),
            image.next_dirty(name, 0).map(drop),
            image.next_dirty_extent(name, 0).map(drop),
            image.dirty_bytes(name).map(drop),
            image.load_bits(name, 0, MIB, &mut bits),
        ]
    };
    // What was frozen before is whole.
    assert!(reads("bad").iter().all(Result::is_ok));
    for name in ["good", "bad"] {
        image.abort_bitmap(name).unwrap();
    }
    for result in reads("bad") {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("\"bad\" is lost"), "{error}");
    }
    assert!(reads("good").iter().all(Result::is_ok));
}
