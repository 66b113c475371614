// SPDX-License-Identifier: MIT OR Apache-2.0
//! What [`check`](crate::check) sees of an image.

use std::collections::HashSet;

use super::load::Problem;
use super::recover::{Found, Modified, Verdict, judge};
use super::{Active, DataPath, Image, State};
use crate::caps;
use crate::check::{CheckOptions, Finding, FindingKind, Report, find_orphans};
use crate::descriptor::{AllocationEntry, Durability, Standing};
use crate::error::{Error, Result, quoted};
use crate::storage::{Access, FileId};
use crate::tracking::Recorder;

impl Image {
    /// Everything that can be seen without writing. The image is not active.
    pub(crate) fn examine(&self, options: &CheckOptions) -> Result<Report> {
        let mut state = self.lock();
        let mut findings = Vec::new();
        self.examine_text(&state, &mut findings)?;
        if self.options.shared && state.descriptor.session.is_some() {
            let text = "the image is open for writing elsewhere, or its writer crashed";
            findings.push(Finding::new(FindingKind::InUse, text));
            return Ok(self.report(&state, findings, 0));
        }
        let size_bytes = self.examine_data(&state, options, &mut findings)?;
        let usable_count = self.examine_bitmaps(&mut state, options, size_bytes, &mut findings)?;
        if let Some(entry) = &state.descriptor.allocation {
            self.examine_allocation(entry, size_bytes, &mut findings);
        }
        let known = self.known_files(&state, &options.data_path);
        for path in find_orphans(&*self.storage, &self.path, &known, size_bytes)? {
            let text = format!("file {} belongs to no bitmap", quoted(path.display()));
            findings.push(Finding::new(FindingKind::OrphanFile, text).with_file(path));
        }
        Ok(self.report(&state, findings, usable_count))
    }

    fn report(&self, state: &State, findings: Vec<Finding>, usable_count: usize) -> Report {
        Report {
            findings,
            usable_count,
            bitmaps_count: state.descriptor.names_count(),
        }
    }

    /// The descriptor's text, its replacements and what they say of themselves.
    fn examine_text(&self, state: &State, findings: &mut Vec<Finding>) -> Result<()> {
        let (text_that_counts, standing) = state.file.read_whole(&*self.storage)?;
        match standing {
            Standing::Whole => {}
            Standing::Torn => {
                let text = "a crash tore the descriptor's text; its replacement is whole";
                findings.push(Finding::new(FindingKind::TornDescriptor, text));
            }
            Standing::Edited => {
                let text =
                    "the descriptor has no checksum that holds: it was written or edited by others";
                findings.push(Finding::new(FindingKind::EditedDescriptor, text));
            }
        }
        let leftovers = match self.options.shared && state.descriptor.session.is_some() {
            // What somebody is in the middle of.
            true => Vec::new(),
            false => state.file.leftovers(&*self.storage, &text_that_counts)?,
        };
        for path in leftovers {
            let text = format!(
                "file {} is left of a change of the descriptor",
                quoted(path.display())
            );
            findings.push(Finding::new(FindingKind::LeftoverReplacement, text).with_file(path));
        }
        let descriptor = &state.descriptor;
        let is_torn = findings
            .iter()
            .any(|finding| finding.kind == FindingKind::TornDescriptor);
        // A torn text is a finding of its own, told last among the complaints.
        let ignored = descriptor.ignored.iter();
        let ignored_count = descriptor
            .ignored
            .len()
            .saturating_sub(usize::from(is_torn));
        for complaint in ignored.take(ignored_count) {
            findings.push(Finding::new(FindingKind::IgnoredMember, complaint));
        }
        for entry in &descriptor.inconsistent {
            let kind = if descriptor.invalid.contains(&entry.name) {
                FindingKind::InvalidEntry
            } else {
                FindingKind::Inconsistent
            };
            findings.push(Finding::of_bitmap(kind, &entry.name, &entry.reason));
        }
        let vouched_count = descriptor.trusted.len();
        if vouched_count > 0 {
            let text = format!(
                "the data image was changed behind QBM's back and vouched for, {vouched_count} times on record"
            );
            findings.push(Finding::new(FindingKind::DataImageVouchedFor, text));
        }
        Ok(())
    }

    /// The size that the image is taken to have.
    pub(super) fn examine_data(
        &self,
        state: &State,
        options: &CheckOptions,
        findings: &mut Vec<Finding>,
    ) -> Result<u64> {
        let descriptor = &state.descriptor;
        let path = self.data_path(descriptor, &options.data_path);
        let metadata = path.as_ref().map(|path| self.storage.metadata(path));
        let unusable = path
            .as_ref()
            .zip(metadata.as_ref())
            .and_then(|(path, found)| {
                let error = match found {
                    Err(error) => error.to_string(),
                    Ok(_) => {
                        let opened = self.storage.open(path, Access::Read).err()?;
                        let is_directory = opened.raw_os_error() == Some(libc::EISDIR);
                        is_directory.then(|| opened.to_string())?
                    }
                };
                Some(format!("data image {}: {error}", quoted(path.display())))
            });
        if let Some(text) = unusable {
            findings.push(Finding::new(FindingKind::DataImageMissing, text));
        }
        let length_bytes = metadata.and_then(|metadata| {
            let metadata = metadata.ok()?;
            metadata.is_regular.then_some(metadata.length_bytes)
        });
        let recorded_bytes = descriptor.recorded_bytes();
        let size_bytes = options.size_bytes.or(length_bytes).or(recorded_bytes);
        let Some(size_bytes) = size_bytes else {
            return Err(Error::invalid(format!(
                "descriptor {}: the size of the data image is recorded nowhere, and not given",
                quoted(self.path.display())
            )));
        };
        let size_bytes = caps::round_image_size(size_bytes)?;
        if let Some(recorded_bytes) = recorded_bytes.filter(|recorded| *recorded < size_bytes) {
            let text = format!("the data image grew from {recorded_bytes} to {size_bytes} bytes");
            findings.push(Finding::new(FindingKind::DataImageGrew, text));
        }
        Ok(size_bytes)
    }

    /// Loads the bitmaps as a read-only activation does. Returns how many can be used.
    fn examine_bitmaps(
        &self,
        state: &mut State,
        options: &CheckOptions,
        size_bytes: u64,
        findings: &mut Vec<Finding>,
    ) -> Result<usize> {
        let descriptor = &state.descriptor;
        if descriptor.session.is_some() {
            let text = "a session is on record, but nobody has the image open: its writer crashed; the next writer recovers";
            findings.push(Finding::new(FindingKind::StaleSession, text));
        }
        let is_missing = findings
            .iter()
            .any(|finding| finding.kind == FindingKind::DataImageMissing);
        let modified = if is_missing {
            Modified::Unknown // Told already, and no bitmap's fault.
        } else {
            self.modified(descriptor, &options.data_path)?
        };
        let boot_id = self.boot_id()?;
        let found = Found {
            size_bytes,
            modified,
            boot_id: &boot_id,
            trust_data: false,
        };
        let verdict = judge(descriptor, &found);
        if let Verdict::Inconsistent(reason) = &verdict
            && descriptor.bitmaps.is_empty()
        {
            // Otherwise each bitmap tells.
            findings.push(Finding::new(FindingKind::NotTrusted, reason));
        }
        let mut active = Active::read_only(size_bytes, Durability::DEFAULT);
        for problem in self.load(state, descriptor, &verdict, &mut active)? {
            let Problem {
                bitmap,
                kind,
                reason,
            } = problem;
            let reason = match descriptor.bitmap(&bitmap) {
                Some(entry) if is_of_file(kind) => {
                    format!("file {}: {reason}", quoted(&entry.file))
                }
                _ => reason,
            };
            findings.push(Finding::of_bitmap(kind, &bitmap, &reason));
        }
        Ok(active.loaded.len())
    }

    /// The allocation bitmap is part of the data: what is wrong with it is told, and left to whoever knows the data.
    fn examine_allocation(
        &self,
        entry: &AllocationEntry,
        size_bytes: u64,
        findings: &mut Vec<Finding>,
    ) {
        let mut report = |kind, reason: &str| {
            let mut finding = Finding::of_bitmap(kind, &entry.name, reason);
            finding.repairable = false;
            findings.push(finding);
        };
        let path = self.resolve(&entry.file);
        let loaded = self.storage.open(&path, Access::Read).and_then(|file| {
            let length_bytes = file.length()?;
            Ok((file, length_bytes))
        });
        let (file, length_bytes) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let error = Error::io("cannot open bitmap file", &path, error);
                return report(FindingKind::FileUnreadable, &error.to_string());
            }
        };
        let bits_count = match caps::bits_count(size_bytes, entry.granularity.bytes()) {
            Ok(bits_count) => bits_count,
            Err(error) => return report(FindingKind::FileSize, &error.to_string()),
        };
        let expected_bytes = caps::bitmap_file_bytes(bits_count);
        if length_bytes != expected_bytes {
            let text = format!("the bitmap file has {length_bytes} bytes, not {expected_bytes}");
            return report(FindingKind::FileSize, &text);
        }
        let loaded = Recorder::load(
            &path,
            file,
            entry.granularity,
            bits_count,
            Durability::Close,
        );
        match loaded {
            Err(error) => report(FindingKind::FileUnreadable, &error.to_string()),
            Ok((_, true)) => report(
                FindingKind::AllocationBeyondEnd,
                "blocks beyond the end of the disk are marked as allocated",
            ),
            Ok((recorder, false)) => {
                let crc32c = recorder.crc32c();
                if entry.crc32c.is_some_and(|sealed| sealed != crc32c) {
                    report(
                        FindingKind::Checksum,
                        "the bitmap file is not as it was closed",
                    );
                }
            }
        }
    }

    /// The files that the descriptor names, as far as they are there.
    fn known_files(&self, state: &State, given: &DataPath) -> HashSet<FileId> {
        let descriptor = &state.descriptor;
        self.file_ids(descriptor.other_files())
            .chain(self.data_files(descriptor, given))
            .collect()
    }
}

/// Whether a reason speaks of the bitmap's file and does not name it.
fn is_of_file(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::FileSize | FindingKind::Checksum | FindingKind::Padding
    )
}
