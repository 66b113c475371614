// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number of each kind of finding. A number once given stays.

use qbm_core::check::{FindingKind, Severity};

/// Found by this library, but of a kind that this list does not have; the message tells.
pub const QBM_FINDING_OTHER: u32 = 0;
/// A crash tore the descriptor's text; the one that was to replace it is whole, and counts.
pub const QBM_FINDING_TORN_DESCRIPTOR: u32 = 1;
/// A replacement of the descriptor's text that nobody needs any more.
pub const QBM_FINDING_LEFTOVER_REPLACEMENT: u32 = 2;
/// The descriptor's checksum does not hold, or there is none: others write descriptors too.
pub const QBM_FINDING_EDITED_DESCRIPTOR: u32 = 3;
/// A member of the descriptor that can be ignored has a value that breaks a rule.
pub const QBM_FINDING_IGNORED_MEMBER: u32 = 4;
/// A session is on record, and nobody has the image open: its writer crashed.
pub const QBM_FINDING_STALE_SESSION: u32 = 5;
/// A session is on record, and whether somebody has the image open cannot be told.
pub const QBM_FINDING_IN_USE: u32 = 6;
/// The data image is not where it should be.
pub const QBM_FINDING_DATA_IMAGE_MISSING: u32 = 7;
/// The data image grew while the image was closed; its tail will be dirty.
pub const QBM_FINDING_DATA_IMAGE_GREW: u32 = 8;
/// Somebody vouched for a data image that had been changed behind QBM's back.
pub const QBM_FINDING_DATA_IMAGE_VOUCHED_FOR: u32 = 9;
/// A bitmap that breaks a rule of the format.
pub const QBM_FINDING_INVALID_ENTRY: u32 = 10;
/// A bitmap that is listed as inconsistent.
pub const QBM_FINDING_INCONSISTENT: u32 = 11;
/// A bitmap that cannot be trusted for what became of the image: crash, change of the data image, damaged seal.
pub const QBM_FINDING_NOT_TRUSTED: u32 = 12;
/// A bitmap file that is missing or cannot be read.
pub const QBM_FINDING_FILE_UNREADABLE: u32 = 13;
/// A bitmap file that is something else too: the descriptor, the data image, another bitmap's file.
pub const QBM_FINDING_FILE_NOT_OWN: u32 = 14;
/// A bitmap file of the wrong length.
pub const QBM_FINDING_FILE_SIZE: u32 = 15;
/// A bitmap file that is not as it was closed.
pub const QBM_FINDING_CHECKSUM: u32 = 16;
/// The data image grew by more than can be marked.
pub const QBM_FINDING_GREW_TOO_FAR: u32 = 17;
/// Bits beyond the end of the disk are set in a dirty bitmap's file. They count for nothing.
pub const QBM_FINDING_PADDING: u32 = 18;
/// Bits beyond the end of the disk are set in the allocation bitmap's file.
pub const QBM_FINDING_ALLOCATION_BEYOND_END: u32 = 19;
/// A bitmap file that no bitmap has, left by a crash.
pub const QBM_FINDING_ORPHAN_FILE: u32 = 20;

/// Worth knowing; nothing is wrong.
pub const QBM_SEVERITY_INFORMATION: u32 = 0;
/// Files that nobody needs.
pub const QBM_SEVERITY_LEAK: u32 = 1;
/// Something is not as it must be.
pub const QBM_SEVERITY_CORRUPTION: u32 = 2;

pub(crate) fn kind_number(kind: FindingKind) -> u32 {
    match kind {
        FindingKind::TornDescriptor => QBM_FINDING_TORN_DESCRIPTOR,
        FindingKind::LeftoverReplacement => QBM_FINDING_LEFTOVER_REPLACEMENT,
        FindingKind::EditedDescriptor => QBM_FINDING_EDITED_DESCRIPTOR,
        FindingKind::IgnoredMember => QBM_FINDING_IGNORED_MEMBER,
        FindingKind::StaleSession => QBM_FINDING_STALE_SESSION,
        FindingKind::InUse => QBM_FINDING_IN_USE,
        FindingKind::DataImageMissing => QBM_FINDING_DATA_IMAGE_MISSING,
        FindingKind::DataImageGrew => QBM_FINDING_DATA_IMAGE_GREW,
        FindingKind::DataImageVouchedFor => QBM_FINDING_DATA_IMAGE_VOUCHED_FOR,
        FindingKind::InvalidEntry => QBM_FINDING_INVALID_ENTRY,
        FindingKind::Inconsistent => QBM_FINDING_INCONSISTENT,
        FindingKind::NotTrusted => QBM_FINDING_NOT_TRUSTED,
        FindingKind::FileUnreadable => QBM_FINDING_FILE_UNREADABLE,
        FindingKind::FileNotOwn => QBM_FINDING_FILE_NOT_OWN,
        FindingKind::FileSize => QBM_FINDING_FILE_SIZE,
        FindingKind::Checksum => QBM_FINDING_CHECKSUM,
        FindingKind::GrewTooFar => QBM_FINDING_GREW_TOO_FAR,
        FindingKind::Padding => QBM_FINDING_PADDING,
        FindingKind::AllocationBeyondEnd => QBM_FINDING_ALLOCATION_BEYOND_END,
        FindingKind::OrphanFile => QBM_FINDING_ORPHAN_FILE,
        // The enumeration may grow; the test below then asks for a number.
        _ => QBM_FINDING_OTHER,
    }
}

pub(crate) fn severity_number(severity: Severity) -> u32 {
    match severity {
        Severity::Information => QBM_SEVERITY_INFORMATION,
        Severity::Leak => QBM_SEVERITY_LEAK,
        // Whatever else there may be is not taken lightly.
        _ => QBM_SEVERITY_CORRUPTION,
    }
}

#[cfg(test)]
mod tests {
    /// The core's enumeration cannot be walked from here; its text can.
    #[test]
    fn every_kind_has_a_number_of_its_own() {
        let core = include_str!("../../qbm-core/src/check/finding.rs");
        let (_, kinds) = core.split_once("pub enum FindingKind {").unwrap();
        let (kinds, _) = kinds.split_once("\n}").unwrap();
        let kinds = kinds.lines().map(str::trim);
        let kinds = kinds.filter(|line| !line.starts_with("///") && !line.is_empty());
        let kinds: Vec<_> = kinds.map(|line| line.trim_end_matches(',')).collect();
        assert!(kinds.len() >= 20, "{kinds:?}");

        let here = include_str!("finding.rs");
        let mut numbers = Vec::new();
        for kind in &kinds {
            let mut name = String::from("QBM_FINDING");
            for letter in kind.chars() {
                if letter.is_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            let mapped = format!("        FindingKind::{kind} => {name},\n");
            assert!(here.contains(&mapped), "{kind} is not mapped to {name}");
            let (_, number) = here
                .split_once(&format!("pub const {name}: u32 = "))
                .unwrap_or_else(|| panic!("there is no {name}"));
            let (number, _) = number.split_once(';').unwrap();
            numbers.push(number.parse::<usize>().unwrap());
        }
        numbers.sort_unstable();
        let expected: Vec<_> = (1..=kinds.len()).collect();
        assert_eq!(numbers, expected, "each number once, 0 stays free");
    }
}
