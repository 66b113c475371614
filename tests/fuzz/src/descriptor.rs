// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes as a descriptor, with the files around it that it speaks of.

use std::path::Path;
use std::sync::Arc;

use qbm_core::caps::round_image_size;
use qbm_core::check::{CheckOptions, check, repair};
use qbm_core::{Activation, Image, OpenOptions};
use serde_json::Value;

use crate::budget;
use crate::disk::Disk;

const PATH: &str = "/d/x.qbm";
/// Where the text names no size.
const SIZE_BYTES: u64 = 1 << 20;

/// One input of the target.
///
/// # Panics
/// An invariant does not hold.
pub fn run(input: &[u8]) {
    budget::within(|| exercise(input));
}

/// The size that the text says the disk has.
fn size_bytes(text: Option<&Value>) -> u64 {
    let recorded = ["ext-hard-qbm-session", "ext-soft-qbm-seal"];
    let mut recorded = recorded.iter().filter_map(|member| {
        let size = text?.get("QBM")?.get(member)?.get("size-bytes")?;
        size.as_u64()
    });
    recorded.next().unwrap_or(SIZE_BYTES)
}

fn bitmaps(text: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let members = ["bitmaps", "BITMAPS"].into_iter();
    members
        .filter_map(|member| text.get("QBM")?.get(member)?.as_object())
        .flatten()
}

/// A file for every name in the text, of the length that it should have: what breaks is to be the text.
fn surround(disk: &Disk, text: &Value, size_bytes: u64) {
    for (_, bitmap) in bitmaps(text) {
        let file = bitmap.get("file").and_then(Value::as_str);
        let granularity = bitmap.get("granularity-bytes").and_then(Value::as_u64);
        if let (Some(file), Some(granularity @ 1..)) = (file, granularity) {
            let length = size_bytes.div_ceil(granularity).div_ceil(8);
            disk.put(&beside(file), length, 0);
        }
    }
    let image = text.get("QBM").and_then(|qbm| qbm.get("image"));
    if let Some(file) = image.and_then(|image| image.get("file")?.as_str()) {
        let modified = text["QBM"]["ext-soft-qbm-seal"]["modified"]["seconds"].as_i64();
        disk.put(&beside(file), size_bytes, modified.unwrap_or(0));
    }
}

fn beside(file: &str) -> String {
    let path = Path::new("/d").join(file);
    path.to_string_lossy().into_owned()
}

fn exercise(input: &[u8]) {
    let value: Option<Value> = serde_json::from_slice(input).ok();
    let size_bytes = size_bytes(value.as_ref());
    let built = || {
        let disk = Arc::new(Disk::default());
        if let Some(value) = &value {
            surround(&disk, value, size_bytes);
        }
        disk.put(PATH, input.len() as u64, 0);
        disk.fill(PATH, 0, input);
        disk
    };
    let disk = built();
    let checked = check_and_repair(&disk, &built(), size_bytes);
    let Some(names) = read_only(&disk, size_bytes) else {
        let opened = open(&disk, OpenOptions::default());
        assert!(opened.is_err(), "readers and writers read alike");
        return;
    };
    let is_too_large = round_image_size(size_bytes).is_err();
    assert!(checked || is_too_large, "what can be opened can be checked");
    assert_eq!(disk.read(PATH).as_deref(), Some(input), "only read");
    if !session(&disk, size_bytes) {
        return;
    }
    let text = disk.read(PATH).expect("the descriptor is below its cap");
    if let Some(before) = &value {
        check_kept(before, &text);
    }
    let after = read_only(&disk, size_bytes).expect("what was written can be read");
    assert!(
        names.iter().all(|name| after.contains(name)),
        "no bitmap is lost"
    );
    assert!(session(&disk, size_bytes), "a second time");
}

/// Checks one copy of an image, and repairs another; whether it can be checked.
fn check_and_repair(disk: &Arc<Disk>, copy: &Arc<Disk>, size_bytes: u64) -> bool {
    let options = CheckOptions {
        size_bytes: Some(size_bytes),
        ..CheckOptions::default()
    };
    let Ok(found) = check(disk.clone(), Path::new(PATH), &options) else {
        return false;
    };
    let Ok(repaired) = repair(copy.clone(), Path::new(PATH), &options) else {
        return true;
    };
    assert!(
        repaired.usable_count <= found.usable_count,
        "trust is not made"
    );
    assert_eq!(repaired.bitmaps_count, found.bitmaps_count);
    let again = check(copy.clone(), Path::new(PATH), &options).expect("it was repaired");
    let left = again.findings.iter().filter(|finding| finding.repairable);
    assert_eq!(left.count(), 0, "{:?}", again.findings);
    assert_eq!(again.usable_count, repaired.usable_count);
    true
}

fn open(disk: &Arc<Disk>, options: OpenOptions) -> qbm_core::Result<Image> {
    Image::open(disk.clone(), Path::new(PATH), options)
}

/// Looks at everything, beside a possible writer; the bitmaps' names.
fn read_only(disk: &Arc<Disk>, size_bytes: u64) -> Option<Vec<String>> {
    let options = OpenOptions {
        shared: true,
        ..OpenOptions::default()
    };
    let image = open(disk, options).ok()?;
    let info = image.info();
    let activation = Activation {
        size_bytes,
        read_only: true,
        ..Activation::default()
    };
    let activated = image.activate(&activation);
    let bitmaps = image.bitmaps();
    assert_eq!(bitmaps.len(), info.bitmaps_count);
    for (index, bitmap) in bitmaps.iter().enumerate().take(16) {
        image.user_data(&bitmap.name).expect("it is there");
        assert_eq!(image.bitmap(&bitmap.name).as_ref(), Some(bitmap));
        assert_eq!(image.bitmap_at(index).as_ref(), Some(bitmap));
        let loaded = activated.is_ok() && !bitmap.inconsistent && !bitmap.in_use;
        let count = image.dirty_count(&bitmap.name);
        assert_eq!(count.is_ok(), loaded, "{bitmap:?}");
        if let Ok(count) = count {
            let next = image.next_dirty_extent(&bitmap.name, 0);
            let next = next.expect("it is loaded");
            assert_eq!(next.is_some(), count > 0);
        }
    }
    while image.take_notice().is_some() {}
    Some(bitmaps.into_iter().map(|bitmap| bitmap.name).collect())
}

/// A session with a write and a bitmap more; false if the image cannot be used.
fn session(disk: &Arc<Disk>, size_bytes: u64) -> bool {
    let image = open(disk, OpenOptions::default()).expect("a reader could open it");
    let activation = Activation {
        size_bytes,
        ..Activation::default()
    };
    if image.activate(&activation).is_err() {
        return false;
    }
    let (ticket, _) = image.begin_write(0, 1).expect("it is writable");
    image.wait_write().expect("the disk works");
    for bitmap in image.bitmaps().iter().take(16) {
        if bitmap.recording && !bitmap.inconsistent && size_bytes > 0 {
            assert_eq!(image.next_dirty(&bitmap.name, 0).ok(), Some(Some(0)));
        }
    }
    image.end_write(ticket);
    // The name may be taken, and the bitmap too large for the disk.
    let _ = image.add_bitmap("of the target", 1 << 20, true);
    image.inactivate().expect("the disk works");
    true
}

/// Members that the format does not know stay where they stood, as they were.
fn check_kept(before: &Value, text: &[u8]) {
    let after: Value = serde_json::from_slice(text).expect("what was written is JSON");
    let compare = |before: &Value, after: &Value| {
        let unknown = before.as_object().into_iter().flatten();
        let unknown = unknown.filter(|(name, _)| {
            name.starts_with("ext-soft-") && !name.starts_with("ext-soft-qbm-")
        });
        for (name, value) in unknown {
            assert_eq!(after.get(name), Some(value), "{name}");
        }
    };
    compare(before, &after);
    compare(&before["QBM"], &after["QBM"]);
    compare(&before["QBM"]["image"], &after["QBM"]["image"]);
    for (name, bitmap) in bitmaps(before) {
        let consistent = after["QBM"]["bitmaps"].get(name);
        let listed = &after["QBM"]["ext-soft-qbm-inconsistent"];
        let kept = consistent.or_else(|| listed.get(name)?.get("bitmap"));
        compare(
            bitmap,
            kept.unwrap_or_else(|| panic!("bitmap {name:?} is lost")),
        );
    }
}
