// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the disk may lose, it loses; what it must keep, it keeps.

use std::collections::BTreeSet;

use qbm_core::storage::LockMode;

use super::*;

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

/// A disk with a durable file `f` of "aaaaaaaa".
fn disk() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let file = disk.create_new(&path("f")).unwrap();
    file.write_at(0, b"aaaaaaaa").unwrap();
    file.sync_data().unwrap();
    disk.sync_directory(Path::new("/d")).unwrap();
    disk
}

fn open(disk: &SimulatedDisk, name: &str) -> Box<dyn StorageFile> {
    disk.open(&path(name), Access::ReadWrite).unwrap()
}

fn text(disk: &SimulatedDisk, name: &str) -> Option<String> {
    let content = disk.content(&path(name))?;
    Some(String::from_utf8(content.to_vec()).unwrap())
}

/// What `f` holds after many power cuts.
fn outcomes(disk: &SimulatedDisk, name: &str, torn: bool) -> BTreeSet<Option<String>> {
    let world = disk.world();
    let mut random = fastrand::Rng::with_seed(7);
    let mut cut = || {
        let after = world.after_cut(|| match random.u8(0..4) {
            0 if torn => Fate::Torn(random.u64(..)),
            0 | 1 => Fate::Kept,
            _ => Fate::Dropped,
        });
        text(&SimulatedDisk::of(after), name)
    };
    (0..2000).map(|_| cut()).collect()
}

fn set(texts: &[&str]) -> BTreeSet<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

// FORMAT: M3
#[test]
fn unsynced_writes_are_kept_or_dropped_in_any_order() {
    let disk = disk();
    let file = open(&disk, "f");
    file.write_at(0, b"bb").unwrap();
    file.write_at(4, b"cc").unwrap();
    assert_eq!(
        text(&disk, "f").unwrap(),
        "bbaaccaa",
        "readers see all of it"
    );
    // "aaaaccaa": the later write arrived, the earlier did not.
    let expected = set(&["aaaaaaaa", "bbaaaaaa", "aaaaccaa", "bbaaccaa"]);
    assert_eq!(outcomes(&disk, "f", false), expected);
}

// FORMAT: M3, M4
#[test]
fn a_torn_write_has_each_byte_old_or_new_and_touches_no_other() {
    let disk = disk();
    open(&disk, "f").write_at(2, b"bbb").unwrap();
    let found = outcomes(&disk, "f", true);
    assert_eq!(found.len(), 8, "every combination: {found:?}");
    for text in found.iter().flatten() {
        assert!(text.starts_with("aa") && text.ends_with("aaa"), "{text}");
    }
}

// FORMAT: M2
#[test]
fn a_sync_makes_content_and_length_durable() {
    let disk = disk();
    let file = open(&disk, "f");
    file.write_at(0, b"b").unwrap();
    file.set_length(2).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "f", true), set(&["ba"]));
}

// FORMAT: M7
#[test]
fn a_length_is_lost_like_a_write() {
    let disk = disk();
    let file = open(&disk, "f");
    file.set_length(2).unwrap();
    assert_eq!(outcomes(&disk, "f", false), set(&["aaaaaaaa", "aa"]));
    file.set_length(4).unwrap();
    assert_eq!(
        text(&disk, "f").unwrap(),
        "aa\0\0",
        "cut bytes do not come back"
    );
    // The growing may arrive without the cut before it.
    let expected = set(&["aaaaaaaa", "aaaa", "aa", "aa\0\0"]);
    assert_eq!(outcomes(&disk, "f", false), expected);
}

// FORMAT: M7
#[test]
fn a_file_may_reach_further_than_what_arrived() {
    let disk = disk();
    open(&disk, "f").write_at(8, b"bb").unwrap();
    let found = outcomes(&disk, "f", true);
    assert!(
        found.contains(&Some("aaaaaaaa\0\0".to_owned())),
        "{found:?}"
    );
}

// FORMAT: M2, M6
#[test]
fn names_are_durable_once_their_directory_is_synced() {
    let disk = disk();
    let file = disk.create_new(&path("g")).unwrap();
    file.write_at(0, b"g").unwrap();
    file.sync_data().unwrap();
    let both = BTreeSet::from([None, Some("g".to_owned())]);
    assert_eq!(outcomes(&disk, "g", true), both, "the name is not synced");
    disk.sync_directory(Path::new("/d")).unwrap();
    assert_eq!(outcomes(&disk, "g", true), set(&["g"]));

    disk.remove(&path("g")).unwrap();
    assert_eq!(text(&disk, "g"), None);
    assert_eq!(outcomes(&disk, "g", true), both, "it may come back");
    disk.sync_directory(Path::new("/elsewhere")).unwrap();
    assert_eq!(outcomes(&disk, "g", true), both);
    disk.sync_directory(Path::new("/d")).unwrap();
    assert_eq!(outcomes(&disk, "g", true), BTreeSet::from([None]));
}

#[test]
fn a_name_that_was_taken_again_leads_to_either_file_or_nowhere() {
    let disk = disk();
    disk.remove(&path("f")).unwrap();
    let file = disk.create_new(&path("f")).unwrap();
    file.write_at(0, b"new").unwrap();
    file.sync_data().unwrap();
    let expected = BTreeSet::from([None, Some("aaaaaaaa".into()), Some("new".into())]);
    assert_eq!(outcomes(&disk, "f", false), expected);
}

#[test]
fn a_removed_file_lives_while_it_is_open() {
    let disk = disk();
    let file = open(&disk, "f");
    disk.remove(&path("f")).unwrap();
    let mut buffer = [0; 8];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"aaaaaaaa");
}

fn fail_next(disk: &SimulatedDisk, failure: Failure, lasting: Lasting) {
    let at = disk.operations_count() + 1;
    disk.inject(Fault {
        at,
        failure,
        lasting,
    });
}

// FORMAT: M9, O16
#[test]
fn a_failed_sync_drops_what_was_dirty() {
    let disk = disk();
    let file = open(&disk, "f");
    file.write_at(0, b"bbbbbbbb").unwrap();
    fail_next(&disk, Failure::Eio, Lasting::Once);
    assert_eq!(
        file.sync_data().unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    let seen = text(&disk, "f");
    assert_eq!(outcomes(&disk, "f", true), BTreeSet::from([seen.clone()]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "f", true), BTreeSet::from([seen]));
}

// FORMAT: M9, O16
#[test]
fn a_failed_sync_may_leave_the_cache_looking_clean() {
    let mut lost = 0;
    for round in 0..20 {
        let disk = disk();
        let file = open(&disk, "f");
        for _ in 0..round {
            file.length().unwrap();
        }
        file.write_at(0, b"bbbb").unwrap();
        fail_next(&disk, Failure::MarksClean, Lasting::Once);
        file.sync_data().unwrap_err();
        assert_eq!(text(&disk, "f").unwrap(), "bbbbaaaa", "readers see it");
        // What is written later does arrive; what was marked clean does not.
        file.write_at(6, b"cc").unwrap();
        file.sync_data().unwrap();
        let after = outcomes(&disk, "f", true);
        assert_eq!(after.len(), 1);
        let after = after.into_iter().next().unwrap().unwrap();
        assert!(after.ends_with("aacc"), "{after}");
        lost += u32::from(!after.starts_with("bbbb"));
    }
    assert!(lost > 5, "a later sync proves nothing");
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let disk = disk();
    let file = open(&disk, "f");
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        file.write_at(0, b"aaaaaaaa").unwrap();
        fail_next(&disk, Failure::Short, Lasting::Once);
        let error = file.write_at(0, b"bbbbbbbb").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        seen.insert(text(&disk, "f").unwrap());
    }
    assert!(
        seen.contains("bbbaaaaa") && !seen.contains("bbbbbbbb"),
        "{seen:?}"
    );
}

#[test]
fn faults_last_as_long_as_they_are_to() {
    for (lasting, expected) in [
        (Lasting::Once, [false, true, true, true]),
        (Lasting::Kind, [false, false, true, false]),
        (Lasting::All, [false; 4]),
    ] {
        let disk = disk();
        let file = open(&disk, "f");
        fail_next(&disk, Failure::Enospc, lasting);
        let found = [
            file.write_at(0, b"b").is_ok(),
            file.write_at(0, b"b").is_ok(),
            file.length().is_ok(),
            file.write_at(0, b"b").is_ok(),
        ];
        assert_eq!(found, expected, "{lasting:?}");
        disk.heal();
        file.write_at(0, b"b").unwrap();
    }
}

/// Does one operation of every kind.
fn operate(disk: &SimulatedDisk, file: &dyn StorageFile, operation: Operation) -> io::Result<()> {
    let f = path("f");
    match operation {
        Operation::Open => disk.open(&f, Access::Read).map(drop),
        Operation::CreateNew => disk.create_new(&path("new")).map(drop),
        Operation::Metadata => disk.metadata(&f).map(drop),
        Operation::SettledMetadata => disk.settled_metadata(&f).map(drop),
        Operation::List => disk.list(Path::new("/d")).map(drop),
        Operation::Remove => disk.remove(&path("new")),
        Operation::SyncDirectory => disk.sync_directory(Path::new("/d")),
        Operation::BootId => disk.boot_id().map(drop),
        Operation::ReadAt => file.read_at(0, &mut [0; 4]),
        Operation::WriteAt => file.write_at(0, b"bb"),
        Operation::Length => file.length().map(drop),
        Operation::SetLength => file.set_length(8),
        Operation::SyncData => file.sync_data(),
        Operation::NextData => file.next_data(0).map(drop),
        Operation::Id => file.id().map(drop),
        Operation::Lock => file.lock(LockMode::Read),
    }
}

#[test]
fn every_operation_can_fail_in_every_way() {
    for operation in Operation::ALL {
        for failure in Failure::ALL {
            let disk = disk();
            let file = open(&disk, "f");
            if operation == Operation::Remove {
                disk.create_new(&path("new")).unwrap();
            }
            fail_next(&disk, failure, Lasting::Once);
            let error = operate(&disk, &*file, operation).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(failure.errno()), "{operation:?}");
            assert_eq!(disk.take_hits()[0].operation, operation);
            operate(&disk, &*file, operation).unwrap();
        }
    }
}

#[test]
fn places_are_before_each_change_and_within_writes() {
    let disk = disk();
    let file = open(&disk, "f");
    disk.watch();
    file.length().unwrap();
    file.write_at(0, b"bbbbbbbb").unwrap();
    file.length().unwrap();
    file.sync_data().unwrap();
    disk.boot_id().unwrap();
    let places = disk.take_places();
    let found: Vec<_> = places
        .iter()
        .map(|place| {
            let text = text(&SimulatedDisk::of(place.world.clone()), "f").unwrap();
            (place.operation, place.part, text.contains('b'))
        })
        .collect();
    assert_eq!(
        found,
        [
            (Operation::Length, 0, false),
            (Operation::WriteAt, 1, true),
            (Operation::Length, 0, true),
            (Operation::BootId, 0, true),
        ]
    );
    let partly = SimulatedDisk::of(places[1].world.clone());
    assert!(text(&partly, "f").unwrap().contains('a'));
}

// FORMAT: M1, M5
#[test]
fn a_kill_keeps_the_page_cache_and_a_cut_changes_the_boot_id() {
    let disk = disk();
    open(&disk, "f").write_at(0, b"b").unwrap();
    let killed = SimulatedDisk::of(disk.world());
    assert_eq!(text(&killed, "f").unwrap(), "baaaaaaa");
    assert_eq!(killed.boot_id().unwrap(), disk.boot_id().unwrap());
    let cut = SimulatedDisk::of(disk.world().after_cut(|| Fate::Kept));
    assert_eq!(text(&cut, "f").unwrap(), "baaaaaaa");
    assert_ne!(cut.boot_id().unwrap(), disk.boot_id().unwrap());
}

#[test]
fn a_snapshot_is_not_changed_by_what_comes_later() {
    let disk = disk();
    let before = disk.world();
    open(&disk, "f").write_at(0, b"b").unwrap();
    disk.remove(&path("f")).unwrap();
    assert_eq!(text(&SimulatedDisk::of(before), "f").unwrap(), "aaaaaaaa");
}

// FORMAT: M11
#[test]
fn locks_are_between_handles_and_go_with_them() {
    let disk = disk();
    let (one, two) = (open(&disk, "f"), open(&disk, "f"));
    one.lock(LockMode::Read).unwrap();
    two.lock(LockMode::Read).unwrap();
    let error = two.lock(LockMode::Write).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(one);
    two.lock(LockMode::Write).unwrap();
    let three = open(&disk, "f");
    three.lock(LockMode::Read).unwrap_err();
    drop(two);
    three.lock(LockMode::Write).unwrap();
}

// FORMAT: M8
#[test]
fn settling_makes_a_modification_time_durable_and_final() {
    let disk = disk();
    disk.guest_write(&path("f"));
    let written = disk.metadata(&path("f")).unwrap().modified;
    let after = |disk: &SimulatedDisk| {
        let after = SimulatedDisk::of(disk.world().after_cut(|| Fate::Dropped));
        after.metadata(&path("f")).unwrap().modified
    };
    assert!(after(&disk) < written, "not durable");
    let settled = disk.settled_metadata(&path("f")).unwrap().modified;
    assert_eq!(after(&disk), settled);
    disk.guest_write(&path("f"));
    assert!(disk.metadata(&path("f")).unwrap().modified > settled);
}

#[test]
fn a_change_of_a_precious_file_is_told() {
    let disk = disk();
    disk.put_precious(&path("p"), 1 << 40, b"precious");
    let file = open(&disk, "p");
    file.length().unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.broken(), None);
    file.write_at(0, b"x").unwrap();
    assert!(disk.broken().unwrap().contains("/d/p"));
}

#[test]
fn holes_take_no_space_and_are_skipped() {
    let disk = disk();
    let file = open(&disk, "f");
    file.set_length(1 << 40).unwrap();
    file.write_at(1 << 39, b"x").unwrap();
    assert_eq!(file.next_data(0).unwrap(), Some((0, 4096)));
    let (start, end) = file.next_data(4096).unwrap().unwrap();
    assert_eq!((start, end), (1 << 39, (1 << 39) + 4096));
    assert_eq!(file.next_data(end).unwrap(), None);
}

#[test]
fn a_listing_is_of_one_directory() {
    let disk = disk();
    disk.create_new(Path::new("/other/g")).unwrap();
    assert_eq!(disk.list(Path::new("/d")).unwrap(), ["f"]);
}
