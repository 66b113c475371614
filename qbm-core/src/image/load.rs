// SPDX-License-Identifier: MIT OR Apache-2.0
//! From bitmap files to bitmaps in memory. What cannot be used costs itself, never the disk (I5).

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::recover::{Trusted, Verdict, check_length};
use super::{Active, Image, State};
use crate::caps;
use crate::check::FindingKind;
use crate::descriptor::{AllocationEntry, BitmapEntry, Descriptor};
use crate::error::{Error, Result, quoted};
use crate::sabotage::sabotaged;
use crate::storage::{Access, FileId, StorageFile, is_exhaustion};
use crate::tracking::Recorder;

/// What is wrong with a bitmap.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) bitmap: String,
    pub(super) kind: FindingKind,
    pub(super) reason: String,
}

type Loaded<T> = std::result::Result<T, (FindingKind, String)>;

/// Most bits that the tail of a grown image may set, in all bitmaps of an activation together: 16 MiB of bitmap files.
///
/// A few bytes of a stranger's descriptor could claim any growth; what exceeds this is inconsistent instead (I2).
const GROWN_BITS_MAX: u64 = 1 << 27;

impl Image {
    /// Loads what can be trusted into `active`, at the size that was recorded; returns the rest. Writes nothing but the
    /// length of a file that a resize cut short has left in between.
    pub(super) fn load(
        &self,
        state: &State,
        descriptor: &Descriptor,
        verdict: &Verdict,
        active: &mut Active,
    ) -> Result<Vec<Problem>> {
        let trusted = match verdict {
            Verdict::Trusted(trusted) => trusted,
            Verdict::Inconsistent(reason) => {
                let entries = descriptor.bitmaps.iter();
                let all = entries.map(|entry| Problem {
                    bitmap: entry.name.clone(),
                    kind: FindingKind::NotTrusted,
                    reason: reason.clone(),
                });
                return Ok(all.collect());
            }
        };
        let mut problems = Vec::new();
        let mut growable_bits = GROWN_BITS_MAX;
        let opened = self.open_files(state, descriptor, active, &mut problems)?;
        for (entry, file) in opened {
            let path = self.resolve(&entry.file);
            let loaded = load_one(entry, &path, file, trusted, active, &mut growable_bits);
            let (kind, reason) = match loaded {
                Ok((recorder, padding_was_set)) => {
                    active.loaded.push((entry.name.clone(), recorder.into()));
                    if !padding_was_set {
                        continue;
                    }
                    let reason = "bits beyond the end of the disk are set in the bitmap file";
                    (FindingKind::Padding, reason.into())
                }
                Err(problem) => problem,
            };
            problems.push(Problem {
                bitmap: entry.name.clone(),
                kind,
                reason,
            });
        }
        Ok(problems)
    }

    /// The bitmap files, each of which belongs to one bitmap only.
    fn open_files<'a>(
        &self,
        state: &State,
        descriptor: &'a Descriptor,
        active: &Active,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<(&'a BitmapEntry, Box<dyn StorageFile>)>> {
        let mut opened = Vec::new();
        let mut uses: HashMap<FileId, usize> = HashMap::new();
        let access = if active.read_only {
            Access::Read
        } else {
            Access::ReadWrite
        };
        // Neither the descriptor nor the data image may be written as if it were a bitmap (I6).
        let mut reserved = HashSet::from([state.file.id()?]);
        reserved.extend(self.data_files(descriptor, &active.data_path));
        // Nor the allocation bitmap: its bits decide what the guest reads.
        let allocation = descriptor
            .allocation
            .iter()
            .flat_map(AllocationEntry::files);
        reserved.extend(self.file_ids(allocation));
        let mut report = |entry: &BitmapEntry, kind, reason| {
            problems.push(Problem {
                bitmap: entry.name.clone(),
                kind,
                reason,
            });
        };
        for entry in &descriptor.bitmaps {
            let path = self.resolve(&entry.file);
            let file = self.storage.open(&path, access);
            let file = file.and_then(|file| Ok((file.id()?, file)));
            match file {
                Ok((id, _)) if reserved.contains(&id) => {
                    let text = format!(
                        "file {} is not a bitmap's own: it is the descriptor or the data image",
                        quoted(&entry.file)
                    );
                    report(entry, FindingKind::FileNotOwn, text);
                }
                Ok((id, file)) => {
                    let count = uses.entry(id).or_default();
                    *count = count.saturating_add(1);
                    opened.push((entry, id, file));
                }
                Err(error) if is_exhaustion(&error) => {
                    return Err(Error::io("cannot open bitmap file", &path, error));
                }
                Err(error) => {
                    let text = Error::io("cannot open bitmap file", &path, error).to_string();
                    report(entry, FindingKind::FileUnreadable, text);
                }
            }
        }
        let (own, shared): (Vec<_>, Vec<_>) = opened
            .into_iter()
            .partition(|(_, id, _)| uses.get(id) == Some(&1));
        for (entry, _, _) in shared {
            let text = format!(
                "file {} is named by more than one bitmap",
                quoted(&entry.file)
            );
            report(entry, FindingKind::FileNotOwn, text);
        }
        Ok(own
            .into_iter()
            .map(|(entry, _, file)| (entry, file))
            .collect())
    }

    /// Brings what was loaded to the image's size now. Nobody recorded what happened to a tail that it gained: that is
    /// dirty in every bitmap that records.
    pub(super) fn fit_loaded(&self, state: &mut State, recorded_bytes: u64) -> Result<()> {
        let Some(active) = &state.active else {
            return Ok(());
        };
        let (size_bytes, read_only) = (active.size_bytes, active.read_only);
        let tail_bytes = size_bytes.saturating_sub(recorded_bytes);
        for (name, recorder) in active.loaded.clone() {
            let recording = state.descriptor.bitmap(&name);
            let recording = recording.is_some_and(|entry| entry.recording);
            let bits_count = caps::bits_count(size_bytes, recorder.granularity().bytes())?;
            if read_only {
                recorder.resize_in_memory(bits_count);
                if recording {
                    recorder.set_in_memory(recorded_bytes, tail_bytes);
                }
                continue;
            }
            let fitted = recorder.fit(bits_count).map_err(|error| error.to_string());
            let fitted = fitted.and_then(|()| {
                if !recording || recorder.record(recorded_bytes, tail_bytes) {
                    Ok(())
                } else {
                    Err("cannot record that the disk grew".into())
                }
            });
            if let Err(reason) = fitted {
                self.retire(state, &name, &reason)?;
            }
        }
        Ok(())
    }
}

fn load_one(
    entry: &BitmapEntry,
    path: &Path,
    file: Box<dyn StorageFile>,
    trusted: &Trusted,
    active: &Active,
    growable_bits: &mut u64,
) -> Loaded<(Recorder, bool)> {
    let unreadable = |error: Error| (FindingKind::FileUnreadable, error.to_string());
    let examined = |error| unreadable(Error::io("cannot examine bitmap file", path, error));
    let wrong_size = |reason: String| (FindingKind::FileSize, reason);
    let granularity = entry.granularity;
    let bits = |bytes| {
        caps::bits_count(bytes, granularity.bytes()).map_err(|error| wrong_size(error.to_string()))
    };
    let file_bytes = |bytes| bits(bytes).map(caps::bitmap_file_bytes);
    let (recorded_bytes, size_bytes) = (trusted.recorded_bytes, active.size_bytes);
    let length_bytes = file.length().map_err(examined)?;
    check_length(
        length_bytes,
        granularity.bytes(),
        recorded_bytes,
        trusted.resize_to_bytes,
    )
    .map_err(wrong_size)?;
    // Without a crash the file is as it was closed, whatever became of the disk; with one, of two lengths the shorter
    // may be cut off what the disk still has.
    let has_followed =
        trusted.resize_to_bytes == Some(size_bytes) && length_bytes == file_bytes(size_bytes)?;
    let known_bytes = match trusted.crashed {
        // Bits of the tail are there already, of writes that came before the resize had ended.
        true if has_followed => size_bytes,
        true => recorded_bytes.min(size_bytes),
        false => recorded_bytes,
    };
    if length_bytes < file_bytes(known_bytes)? {
        return Err(wrong_size(format!(
            "the bitmap file has {length_bytes} bytes, and the disk has not shrunk to what they cover"
        )));
    }
    check_growth(entry, bits(known_bytes)?, bits(size_bytes)?, growable_bits)
        .map_err(|reason| (FindingKind::GrewTooFar, reason))?;
    // The session to come knows two lengths. The one before it knows this one, so it is left while that one counts.
    let lengths = [file_bytes(recorded_bytes)?, file_bytes(size_bytes)?];
    if !active.read_only && !lengths.contains(&length_bytes) {
        file.set_length(file_bytes(known_bytes)?)
            .map_err(|error| unreadable(Error::io("cannot resize bitmap file", path, error)))?;
    }
    let known_bits = bits(known_bytes)?;
    let loaded = Recorder::load(path, file, granularity, known_bits, active.durability);
    let (recorder, padding_was_set) = loaded.map_err(unreadable)?;
    if let Some(sealed) = entry.crc32c.filter(|_| !trusted.crashed) {
        let crc32c = recorder.crc32c();
        if (padding_was_set || crc32c != sealed) && !sabotaged!("checksum-not-verified") {
            let what = if padding_was_set {
                "bits beyond the end of the disk are set".into()
            } else {
                format!("its CRC-32C is {crc32c:08x}, not {sealed:08x}")
            };
            let text = format!("the bitmap file is not as it was closed: {what}");
            return Err((FindingKind::Checksum, text));
        }
        // As the clean close left it, which made it durable.
        recorder.mark_synced();
    }
    Ok((recorder, padding_was_set))
}

/// Takes what a grown image would set from the budget.
fn check_growth(
    entry: &BitmapEntry,
    known_bits: u64,
    bits_count: u64,
    growable_bits: &mut u64,
) -> std::result::Result<(), String> {
    if !entry.recording {
        return Ok(());
    }
    let grown_bits = bits_count.saturating_sub(known_bits);
    match growable_bits.checked_sub(grown_bits) {
        Some(left) => {
            *growable_bits = left;
            Ok(())
        }
        None => Err(format!(
            "the data image grew by {grown_bits} granules while the image was closed; all bitmaps together can take \
             {GROWN_BITS_MAX}"
        )),
    }
}
