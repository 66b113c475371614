// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a check can find.

use std::path::PathBuf;

use crate::error::quoted;

/// How bad a finding is. `qemu-img check` counts leaks and corruptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Information,
    /// Files that nobody needs.
    Leak,
    /// Something is not as it must be.
    Corruption,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A crash tore the descriptor's text; the one that was to replace it is whole, and counts.
    TornDescriptor,
    /// A replacement of the descriptor's text that nobody needs any more.
    LeftoverReplacement,
    /// The descriptor's checksum does not hold, or there is none: others write descriptors too.
    EditedDescriptor,
    /// A member of the descriptor that can be ignored has a value that breaks a rule.
    IgnoredMember,
    /// A session is on record, and nobody has the image open: its writer crashed.
    StaleSession,
    /// A session is on record, and whether somebody has the image open cannot be told.
    InUse,
    /// The data image is not where it should be.
    DataImageMissing,
    /// The data image grew while the image was closed; its tail will be dirty.
    DataImageGrew,
    /// Somebody vouched for a data image that had been changed behind QBM's back.
    DataImageVouchedFor,
    /// A bitmap that breaks a rule of the format.
    InvalidEntry,
    /// A bitmap that is listed as inconsistent.
    Inconsistent,
    /// A bitmap that cannot be trusted for what became of the image: crash, change of the data image, damaged seal.
    NotTrusted,
    /// A bitmap file that is missing or cannot be read.
    FileUnreadable,
    /// A bitmap file that is something else too: the descriptor, the data image, another bitmap's file.
    FileNotOwn,
    /// A bitmap file of the wrong length.
    FileSize,
    /// A bitmap file that is not as it was closed.
    Checksum,
    /// The data image grew by more than can be marked.
    GrewTooFar,
    /// Bits beyond the end of the disk are set in a dirty bitmap's file. They count for nothing.
    Padding,
    /// Bits beyond the end of the disk are set in the allocation bitmap's file.
    AllocationBeyondEnd,
    /// A bitmap file that no bitmap has, left by a crash.
    OrphanFile,
}

impl FindingKind {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::EditedDescriptor
            | Self::IgnoredMember
            | Self::StaleSession
            | Self::InUse
            | Self::Inconsistent
            | Self::DataImageGrew
            | Self::DataImageVouchedFor => Severity::Information,
            Self::LeftoverReplacement | Self::OrphanFile => Severity::Leak,
            _ => Severity::Corruption,
        }
    }

    fn is_repairable(self) -> bool {
        !matches!(
            self,
            Self::Inconsistent
                | Self::IgnoredMember
                | Self::EditedDescriptor
                | Self::InUse
                | Self::DataImageMissing
                | Self::DataImageVouchedFor
        )
    }

    /// Whether a dirty bitmap of which this was found can be used no more.
    pub fn costs_bitmap(self) -> bool {
        matches!(
            self,
            Self::InvalidEntry
                | Self::Inconsistent
                | Self::NotTrusted
                | Self::FileUnreadable
                | Self::FileNotOwn
                | Self::FileSize
                | Self::Checksum
                | Self::GrewTooFar
        )
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The bitmap concerned.
    pub bitmap: Option<String>,
    /// The file concerned, where it is not the bitmap's or the descriptor.
    pub file: Option<PathBuf>,
    /// Whether [`repair()`](super::repair()) mends it. What costs a bitmap is mended by listing that bitmap as inconsistent; it
    /// stays lost.
    pub repairable: bool,
    /// [`repair()`](super::repair()) mended it.
    pub repaired: bool,
    /// One line for a person. Its wording is not part of the interface.
    pub message: String,
}

impl Finding {
    /// A finding that concerns the image as a whole.
    pub(crate) fn new(kind: FindingKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            bitmap: None,
            file: None,
            repairable: kind.is_repairable(),
            repaired: false,
            message: message.into(),
        }
    }

    pub(crate) fn of_bitmap(kind: FindingKind, bitmap: &str, reason: &str) -> Self {
        Self {
            bitmap: Some(bitmap.to_owned()),
            ..Self::new(kind, format!("bitmap {}: {reason}", quoted(bitmap)))
        }
    }

    pub(crate) fn with_file(self, file: PathBuf) -> Self {
        Self {
            file: Some(file),
            ..self
        }
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// In the order of the descriptor, then the directory's.
    pub findings: Vec<Finding>,
    /// Bitmaps that can be used; after a [`repair()`](super::repair()), then.
    pub usable_count: usize,
    /// All bitmaps, inconsistent ones included.
    pub bitmaps_count: usize,
}

impl Report {
    /// Whether nothing is wrong, or all of it was mended.
    pub fn is_clean(&self) -> bool {
        self.count(Severity::Leak) == 0 && self.count(Severity::Corruption) == 0
    }

    /// The first finding of a kind.
    pub(crate) fn find(&self, kind: FindingKind) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.kind == kind)
    }

    /// Findings of a severity that are not mended.
    pub fn count(&self, severity: Severity) -> usize {
        let open = self.findings.iter().filter(|finding| !finding.repaired);
        open.filter(|finding| finding.kind.severity() == severity)
            .count()
    }
}
