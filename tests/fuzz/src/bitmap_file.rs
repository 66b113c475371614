// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bitmap file and a descriptor that speaks of it, of any size, content and history.

mod input;
mod session;

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use input::{Checksum, History, Input, Length, descriptor};
use session::Session;

use crate::budget;
use crate::disk::Disk;
use crate::image::{DATA, PATH, activated, checked, dirty, is_consistent, touch};
use crate::runs::Runs;

const FILE: &str = "/d/b.bitmap";
const NAME: &str = "b";
/// Operations and rounds are about what a file holds; a disk that is dirtied all over costs what it costs.
const GRANULES_PER_STEP: u64 = 1 << 16;
/// Checksums of larger files are not computed byte by byte here.
const CHECKED_BYTES_MAX: u64 = 1 << 20;

/// One input of the target.
///
/// # Panics
/// An invariant does not hold.
pub fn run(input: &[u8]) {
    if let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) {
        budget::show(&input);
        budget::within(|| exercise(&input));
    }
}

fn round(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(512).saturating_mul(512)
}

fn file_bytes(size_bytes: u64, granularity_bytes: u64) -> u64 {
    round(size_bytes).div_ceil(granularity_bytes).div_ceil(8)
}

/// What the file's bytes say, cut at `bits` of them.
fn bits_of(input: &Input, length: u64, bits: u64) -> Runs {
    let disk = Disk::default();
    disk.put(FILE, length, 0);
    let mut runs = Runs::default();
    for (place, bytes) in &input.pieces {
        disk.fill(FILE, place.within(length), bytes);
    }
    for (place, bytes) in &input.pieces {
        let from = place.within(length);
        let mut content = vec![0; bytes.len().min(length.saturating_sub(from) as usize)];
        disk.peek(FILE, from, &mut content);
        for (at, byte) in (from..).zip(content) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 != 0) {
                let bit = at * 8 + bit;
                runs.insert(bit, bit + 1);
            }
        }
    }
    runs.truncate(bits);
    runs
}

fn exercise(input: &Input) {
    let granularity = 512 << (input.granularity_shift % 23);
    let recorded = match input.history {
        History::Resized(size) => size.bytes(granularity),
        _ => input.size.bytes(granularity),
    };
    let size = match input.history {
        History::CrashedProcess {
            resize_to: Some(size),
            moved: true,
            ..
        } => size.bytes(granularity),
        _ => input.size.bytes(granularity),
    };
    let right = file_bytes(recorded, granularity);
    let length = match input.length {
        Length::Right => right,
        Length::Off(by) => right.saturating_add_signed(by.into()),
        Length::Any(length) => length,
    };
    let disk = Arc::new(Disk::default());
    disk.put(DATA, size, 0);
    disk.put(FILE, length, 0);
    for (place, bytes) in &input.pieces {
        disk.fill(FILE, place.within(length), bytes);
    }
    let checksum = match input.checksum {
        Checksum::Absent => None,
        Checksum::Right if length > CHECKED_BYTES_MAX => None,
        Checksum::Right => disk.read(FILE).map(|bytes| crc32c::crc32c(&bytes)),
        Checksum::Any(checksum) => Some(checksum),
    };
    let text = descriptor(input, granularity, recorded, checksum);
    disk.put(PATH, text.len() as u64, 0);
    disk.fill(PATH, 0, text.as_bytes());

    if size.saturating_sub(recorded) / granularity > GRANULES_PER_STEP {
        // Costly within bounds; once is enough.
        let _ = activated(&disk, size, false, None);
        return;
    }
    let Ok(image) = activated(&disk, size, true, None) else {
        assert!(activated(&disk, size, false, None).is_err());
        return;
    };
    let found = dirty(&image, NAME, granularity);
    assert_eq!(checked(&disk, size, false), usize::from(found.is_some()));
    let usable = is_consistent(&image, NAME);
    drop(image);
    assert_eq!(
        disk.read(PATH).as_deref(),
        Some(text.as_bytes()),
        "only read"
    );
    let size = round(size);
    if usable {
        let known = round(recorded).min(size).div_ceil(granularity);
        let mut expected = bits_of(input, length, known);
        if size > round(recorded) && input.recording {
            touch(
                &mut expected,
                round(recorded),
                size - round(recorded),
                granularity,
                size,
            );
        }
        assert_eq!(found.as_ref(), Some(&expected));
        match input.history {
            History::CrashedClose | History::CrashedProcess { rebooted: true, .. } => {
                panic!("nobody knows what the file lacks")
            }
            History::CrashedProcess { .. } => {}
            _ => {
                assert_eq!(length, right, "a file of the wrong length");
                let content = disk.read(FILE).filter(|_| length <= CHECKED_BYTES_MAX);
                let (is, said) = (content.map(|bytes| crc32c::crc32c(&bytes)), checksum);
                assert!(is.is_none() || said.is_none() || is == said, "checksum");
            }
        }
    }
    let Ok(image) = activated(&disk, size, false, None) else {
        panic!("what can be read can be written");
    };
    assert_eq!(
        is_consistent(&image, NAME),
        usable,
        "readers and writers judge alike"
    );
    let Some(model) = found else {
        return;
    };
    assert_eq!(dirty(&image, NAME, granularity).as_ref(), Some(&model));
    Session {
        disk,
        image,
        model,
        granularity,
        size,
        recording: input.recording,
    }
    .run(&input.steps);
}
