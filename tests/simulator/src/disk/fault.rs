// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations of the seam, and how one is made to fail.

use serde::{Deserialize, Serialize};

use super::inode::FailedSync;

/// Every operation of the two traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the methods are")]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    Open,
    CreateNew,
    Metadata,
    SettledMetadata,
    List,
    Remove,
    SyncDirectory,
    BootId,
    ReadAt,
    WriteAt,
    Length,
    SetLength,
    SyncData,
    NextData,
    Id,
    Lock,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::CreateNew,
        Self::Metadata,
        Self::SettledMetadata,
        Self::List,
        Self::Remove,
        Self::SyncDirectory,
        Self::BootId,
        Self::ReadAt,
        Self::WriteAt,
        Self::Length,
        Self::SetLength,
        Self::SyncData,
        Self::NextData,
        Self::Id,
        Self::Lock,
    ];
}

/// In which way an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// `EIO`, and nothing has happened. A sync that fails so drops what was dirty.
    Eio,
    /// `ENOSPC`, and nothing has happened. A sync that fails so drops what was dirty.
    Enospc,
    /// Of a write a prefix arrives, then `ENOSPC`; anything else fails as with `Enospc`.
    Short,
    /// A sync that fails with `EIO` and leaves what was dirty in the cache, as if clean; anything else fails as with `Eio`.
    MarksClean,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Eio, Self::Enospc, Self::Short, Self::MarksClean];

    pub(super) fn errno(self) -> i32 {
        match self {
            Self::Eio | Self::MarksClean => libc::EIO,
            Self::Enospc | Self::Short => libc::ENOSPC,
        }
    }

    pub(super) fn of_sync(self) -> FailedSync {
        match self {
            Self::MarksClean => FailedSync::MarksClean,
            _ => FailedSync::Drops,
        }
    }
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasting {
    /// One operation fails.
    Once,
    /// So do all later ones of its kind.
    Kind,
    /// So do all later ones.
    All,
}

/// One operation that fails, counted from the disk's first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// Number of the first operation that fails.
    pub at: u64,
    /// In which way.
    pub failure: Failure,
    /// For how long.
    pub lasting: Lasting,
}
