// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `check` finds, and what `repair` makes of it.

use super::*;
use crate::check::{CheckOptions, FindingKind, Report, Severity, check, repair, repair_leaks};
use FindingKind::*;

fn checked(disk: &Disk) -> Report {
    check(Arc::new(OsStorage), &disk.path, &CheckOptions::default()).unwrap()
}

fn repaired(disk: &Disk) -> Report {
    repair(Arc::new(OsStorage), &disk.path, &CheckOptions::default()).unwrap()
}

/// An image with bitmaps `a` and `b`, dirty at 0, closed cleanly.
fn disk() -> Disk {
    let disk = Disk::new(9 * 65536);
    let image = disk.activated();
    for name in ["a", "b"] {
        image.add_bitmap(name, 65536, true).unwrap();
    }
    write(&image, 0, 1);
    image.inactivate().unwrap();
    disk
}

fn kinds(report: &Report) -> Vec<(FindingKind, Option<&str>)> {
    let findings = report.findings.iter();
    findings
        .map(|finding| (finding.kind, finding.bitmap.as_deref()))
        .collect()
}

/// Every file in the directory with its content.
fn content(disk: &Disk) -> Vec<(String, Vec<u8>)> {
    let names = disk.listing().into_iter();
    names
        .map(|name| (name.clone(), fs::read(disk.file(&name)).unwrap_or_default()))
        .collect()
}

/// `damage` an image: the check finds `expected` and changes nothing; the repair mends what it says it can, leaves
/// `usable` and the data alone, and a second check finds nothing that is wrong.
fn damaged(
    damage: impl FnOnce(&Disk),
    expected: &[(FindingKind, Option<&str>)],
    usable: &[&str],
) -> Disk {
    let disk = disk();
    damage(&disk);
    let before = content(&disk);
    let report = checked(&disk);
    assert_eq!(kinds(&report), expected, "{report:#?}");
    assert_eq!(content(&disk), before, "check writes nothing");
    let data = fs::read(disk.file("x.qbm.raw")).unwrap();
    let report = repaired(&disk);
    assert_eq!(fs::read(disk.file("x.qbm.raw")).unwrap(), data);
    for finding in &report.findings {
        assert_eq!(finding.repaired, finding.repairable, "{finding:?}");
    }
    assert_eq!(report.usable_count, usable.len(), "{report:#?}");
    let after = checked(&disk);
    assert!(after.is_clean(), "{after:#?}");
    assert_eq!(after.count(Severity::Leak), 0);
    let image = disk.activated();
    for name in ["a", "b"] {
        let is_usable = usable.contains(&name);
        assert_eq!(inconsistent(&image, name), !is_usable, "{name}");
        if is_usable {
            assert!(dirty(&image, name, 65536).contains(&0), "{name}");
        }
    }
    drop(image);
    disk
}

#[test]
fn nothing_is_wrong_with_a_clean_image() {
    let disk = disk();
    let before = content(&disk);
    let report = checked(&disk);
    assert_eq!(report.findings, []);
    assert_eq!((report.usable_count, report.bitmaps_count), (2, 2));
    assert_eq!(repaired(&disk), report);
    assert_eq!(content(&disk), before);
}

#[test]
fn a_bitmap_file_that_is_missing_short_or_changed() {
    let file = |disk: &Disk| disk.file("x.qbm.b.bitmap");
    damaged(
        |disk| fs::remove_file(file(disk)).unwrap(),
        &[(FileUnreadable, Some("b"))],
        &["a"],
    );
    damaged(
        |disk| fs::write(file(disk), [1]).unwrap(),
        &[(FileSize, Some("b"))],
        &["a"],
    );
    damaged(
        |disk| fs::write(file(disk), [3, 0]).unwrap(),
        &[(Checksum, Some("b"))],
        &["a"],
    );
    damaged(
        |disk| disk.edit("x.qbm.b.bitmap", "x.qbm.a.bitmap"),
        &[
            (EditedDescriptor, None),
            (FileNotOwn, Some("a")),
            (FileNotOwn, Some("b")),
            (OrphanFile, None),
        ],
        &[],
    );
}

#[test]
fn padding_without_a_checksum_is_zeroed() {
    let disk = damaged(
        |disk| {
            disk.edit("\"ext-soft-qbm-crc32c\": \"", "\"ext-soft-x\": \"");
            fs::write(disk.file("x.qbm.b.bitmap"), [1, 128]).unwrap();
        },
        &[(EditedDescriptor, None), (Padding, Some("b"))],
        &["a", "b"],
    );
    assert_eq!(fs::read(disk.file("x.qbm.b.bitmap")).unwrap(), [1, 0]);
}

#[test]
fn after_a_kill_that_cost_nothing_nothing_is_wrong() {
    // A check said "corruption" of a good disk with good bitmaps, and tools kept the guest from starting.
    let disk = Disk::new(MIB);
    let image = disk.activated_as(Durability::Process);
    image.add_bitmap("a", 65536, true).unwrap();
    drop(image); // As a crash does.
    let report = checked(&disk);
    assert!(report.find(StaleSession).is_some());
    assert!(report.is_clean());
    assert_eq!(report.usable_count, 1);
}

#[test]
fn a_stale_session_is_recovered_from_or_costs_the_bitmaps() {
    let crash = |disk: &Disk, durability| drop(disk.activated_as(durability));
    damaged(
        |disk| crash(disk, Durability::Process),
        &[(StaleSession, None)],
        &["a", "b"],
    );
    damaged(
        |disk| crash(disk, Durability::Close),
        &[
            (StaleSession, None),
            (NotTrusted, Some("a")),
            (NotTrusted, Some("b")),
        ],
        &[],
    );
}

#[test]
fn a_data_image_that_was_written_shrank_or_grew() {
    let set_length = |disk: &Disk, length_bytes| {
        let data = fs::File::options().write(true).open(disk.file("x.qbm.raw"));
        data.unwrap().set_len(length_bytes).unwrap();
    };
    let both = [(NotTrusted, Some("a")), (NotTrusted, Some("b"))];
    damaged(
        |disk| fs::write(disk.file("x.qbm.raw"), vec![7; 9 * 65536]).unwrap(),
        &both,
        &[],
    );
    damaged(|disk| set_length(disk, 512), &both, &[]);
    damaged(
        |disk| set_length(disk, 10 * 65536),
        &[(DataImageGrew, None)],
        &["a", "b"],
    );
}

#[test]
fn a_seal_that_cannot_be_read() {
    damaged(
        |disk| disk.edit("\"generation\"", "\"degeneration\""),
        &[
            (EditedDescriptor, None),
            (IgnoredMember, None),
            (NotTrusted, Some("a")),
            (NotTrusted, Some("b")),
        ],
        &[],
    );
}

#[test]
fn a_torn_descriptor_is_put_right() {
    let disk = damaged(
        |disk| {
            let text = disk.text();
            let new = format!("QBM: the next text of a descriptor\n{text}");
            fs::write(disk.file("x.qbm.new"), new).unwrap();
            fs::write(&disk.path, &text[..text.len() / 2]).unwrap();
        },
        &[(TornDescriptor, None), (LeftoverReplacement, None)],
        &["a", "b"],
    );
    assert!(!disk.file("x.qbm.new").exists());
}

#[test]
fn leaks_are_removed_and_nothing_else_is_mended() {
    let disk = disk();
    fs::remove_file(disk.file("x.qbm.a.bitmap")).unwrap();
    fs::write(disk.file("x.qbm.c.bitmap"), [0, 0]).unwrap();
    fs::write(disk.file("x.qbm.new"), "").unwrap();
    let text = disk.text();
    let options = CheckOptions::default();
    let report = repair_leaks(Arc::new(OsStorage), &disk.path, &options).unwrap();
    let seen = report.findings.iter();
    let seen: Vec<_> = seen
        .map(|finding| (finding.kind, finding.repaired))
        .collect();
    assert_eq!(
        seen,
        [
            (LeftoverReplacement, true),
            (FileUnreadable, false),
            (OrphanFile, true)
        ]
    );
    assert_eq!(disk.text(), text);
    assert_eq!(disk.listing(), ["x.qbm", "x.qbm.b.bitmap", "x.qbm.raw"]);
    assert_eq!(kinds(&checked(&disk)), [(FileUnreadable, Some("a"))]);
}

/// The text that counts looks like a file that nobody needs.
#[test]
fn a_torn_descriptor_keeps_its_replacement_when_leaks_are_removed() {
    let disk = disk();
    let text = disk.text();
    let new = format!("QBM: the next text of a descriptor\n{text}");
    fs::write(disk.file("x.qbm.new"), new).unwrap();
    fs::write(&disk.path, &text[..text.len() / 2]).unwrap();
    fs::write(disk.file("x.qbm.c.bitmap"), [0, 0]).unwrap();
    let before = content(&disk);
    let options = CheckOptions::default();
    let report = repair_leaks(Arc::new(OsStorage), &disk.path, &options).unwrap();
    assert!(
        report.findings.iter().all(|finding| !finding.repaired),
        "{report:#?}"
    );
    assert_eq!(content(&disk), before);
}

#[test]
fn an_entry_that_breaks_a_rule_costs_its_bitmap() {
    damaged(
        |disk| {
            let text = disk.text();
            let at = text.rfind("65536").unwrap();
            fs::write(
                &disk.path,
                format!("{}3000{}", &text[..at], &text[at + 5..]),
            )
            .unwrap();
        },
        &[(EditedDescriptor, None), (InvalidEntry, Some("b"))],
        &["a"],
    );
}

#[test]
fn orphans_are_removed_and_nothing_else() {
    let others = [
        "x.qbm.c.bitmap.old",
        "x.qbm.c.old.bitmap",
        "y.qbm.c.bitmap",
        "c.bitmap",
    ];
    let disk = damaged(
        |disk| {
            fs::write(disk.file("x.qbm.c.bitmap"), [0, 0]).unwrap();
            fs::write(disk.file("x.qbm.c.7.bitmap"), "").unwrap();
            fs::write(
                disk.file("x.qbm.length.bitmap"),
                "of no bitmap of this disk",
            )
            .unwrap();
            for other in others {
                fs::write(disk.file(other), "precious").unwrap();
            }
        },
        &[(OrphanFile, None), (OrphanFile, None)],
        &["a", "b"],
    );
    for other in others.iter().chain(&["x.qbm.length.bitmap"]) {
        assert!(disk.file(other).exists(), "{other}");
    }
}

#[test]
fn what_may_be_the_bitmap_of_another_descriptor_is_no_orphan() {
    let disk = disk();
    fs::write(disk.file("x.qbm.c"), "another descriptor").unwrap();
    fs::write(disk.file("x.qbm.c.1.bitmap"), [0, 0]).unwrap();
    assert_eq!(checked(&disk).findings, []);
    fs::remove_file(disk.file("x.qbm.c")).unwrap();
    assert_eq!(kinds(&checked(&disk)), [(OrphanFile, None)]);
}

#[test]
fn what_a_copy_of_the_descriptor_names_is_no_orphan() {
    // The copy's bitmaps were deleted.
    let disk = disk();
    fs::copy(&disk.path, disk.file("y.qbm")).unwrap();
    let image = disk.activated();
    image.set_recording("b", false).unwrap();
    image.inactivate().unwrap();
    drop(image);
    disk.edit("x.qbm.b.bitmap", "elsewhere.bitmap");
    fs::copy(disk.file("x.qbm.b.bitmap"), disk.file("elsewhere.bitmap")).unwrap();
    assert_eq!(kinds(&checked(&disk)), [(EditedDescriptor, None)]);
    // One that cannot be read may name anything.
    fs::write(disk.file("y.qbm"), "{\"QBM\": torn").unwrap();
    assert_eq!(kinds(&checked(&disk)), [(EditedDescriptor, None)]);
    fs::remove_file(disk.file("y.qbm")).unwrap();
    let found = [(EditedDescriptor, None), (OrphanFile, None)];
    assert_eq!(kinds(&checked(&disk)), found);
}

#[test]
fn inconsistent_bitmaps_and_vouching_are_told() {
    let disk = disk();
    let image = disk.activated();
    image.set_inconsistent("b", "a test").unwrap();
    image.inactivate().unwrap();
    drop(image);
    fs::write(disk.file("x.qbm.raw"), vec![7; 9 * 65536]).unwrap();
    let image = disk.open();
    let activation = Activation {
        size_bytes: disk.data_bytes(),
        trust_data: true,
        ..Activation::default()
    };
    image.activate(&activation).unwrap();
    image.inactivate().unwrap();
    drop(image);
    let report = checked(&disk);
    assert_eq!(
        kinds(&report),
        [(Inconsistent, Some("b")), (DataImageVouchedFor, None)]
    );
    assert!(report.is_clean());
    assert_eq!(
        repaired(&disk),
        report,
        "nothing to repair, and nothing trusted again"
    );
}

#[test]
fn without_the_data_image_nothing_is_repaired() {
    let disk = disk();
    fs::rename(disk.file("x.qbm.raw"), disk.file("elsewhere")).unwrap();
    fs::write(disk.file("x.qbm.c.bitmap"), [0, 0]).unwrap();
    let before = content(&disk);
    assert_eq!(
        kinds(&checked(&disk)),
        [(DataImageMissing, None), (OrphanFile, None)]
    );
    let error = repair(Arc::new(OsStorage), &disk.path, &CheckOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(content(&disk), before);
}

#[test]
fn beside_a_running_writer_little_is_said_and_nothing_done() {
    let disk = disk();
    let image = disk.activated();
    let options = CheckOptions::default();
    let error = check(Arc::new(OsStorage), &disk.path, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let error = repair(Arc::new(OsStorage), &disk.path, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let shared = CheckOptions {
        shared: true,
        ..options
    };
    let report = check(Arc::new(OsStorage), &disk.path, &shared).unwrap();
    assert_eq!(kinds(&report), [(InUse, None)]);
    image.inactivate().unwrap();
}

#[test]
fn an_allocation_bitmap_is_looked_at() {
    let allocation = |disk: &Disk, bits: &[u8]| {
        disk.edit(
            "\"bitmaps\": {",
            r#""bitmaps": {"0": {"file": "alloc", "granularity-bytes": 65536, "type": "allocation"},"#,
        );
        fs::write(disk.file("alloc"), bits).unwrap();
    };
    for (bits, expected) in [
        (&[255, 1][..], vec![]),
        (&[255, 3], vec![(AllocationBeyondEnd, Some("0"))]),
        (&[255], vec![(FileSize, Some("0"))]),
    ] {
        let disk = disk();
        allocation(&disk, bits);
        let report = checked(&disk);
        let found = &kinds(&report)[1..]; // The first: the descriptor was edited.
        assert_eq!(found, expected);
        let report = repaired(&disk);
        assert_eq!(report.is_clean(), bits == [255, 1], "{report:#?}");
        assert_eq!(
            fs::read(disk.file("alloc")).unwrap(),
            bits,
            "left to who knows the data"
        );
        let error = Image::open(Arc::new(OsStorage), &disk.path, OpenOptions::default());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    let disk = disk();
    disk.edit(
        "\"bitmaps\": {",
        r#""bitmaps": {"0": {"file": "alloc", "granularity-bytes": 65536, "type": "allocation"},"#,
    );
    assert_eq!(kinds(&checked(&disk))[1..], [(FileUnreadable, Some("0"))]);
}
