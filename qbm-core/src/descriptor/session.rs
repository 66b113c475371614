// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the descriptor says about being open, and about having been closed.

use serde::{Deserialize, Serialize};

use crate::storage::Timestamp;

/// Which ends of a session leave the bitmaps usable.
///
/// The power-cut safe level belongs after `Process`: it records in an intent map as well (ARCHITECTURE.md, "Levels").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Durability {
    /// A clean close. Bits are in memory until then.
    Close,
    /// A clean close and the end of the process, however it comes: bits are in the bitmap file (page cache) before the
    /// data moves.
    Process,
}

impl Durability {
    /// What an image uses that says nothing.
    pub const DEFAULT: Self = Self::Process;

    /// The name in the descriptor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Process => "process",
        }
    }
}

/// Which bitmaps that a program makes in its memory it stores in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PersistBitmaps {
    /// Those that it was told to store.
    Marked,
    /// All that have a name.
    All,
}

impl PersistBitmaps {
    /// What an image uses that says nothing.
    pub const DEFAULT: Self = Self::Marked;

    /// The name in the descriptor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::All => "all",
        }
    }
}

/// `ext-hard-qbm-session`: the image is open for writing, or was when its writer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Session {
    /// The seal's count before this session.
    pub(crate) generation: u64,
    /// What the writer promised.
    pub(crate) durability: Durability,
    /// The boot of the host that the page cache belongs to.
    pub(crate) boot_id: String,
    /// Size of the image that the bitmap files fit, in bytes.
    pub(crate) size_bytes: u64,
    /// Size that a resize under way leads to, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resize_to_bytes: Option<u64>,
}

/// `ext-soft-qbm-seal`: the image was closed cleanly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Seal {
    /// Counts the sessions that ended cleanly after a write, or a change of the descriptor.
    pub(crate) generation: u64,
    /// Size of the image then, in bytes.
    pub(crate) size_bytes: u64,
    /// When the data image was modified last, where it is a regular file that the guest sees as it is (format `raw`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<Timestamp>,
}

/// An element of `ext-soft-qbm-trusted`: the data image was not what the seal says, and somebody said to trust it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TrustedChange {
    /// The session that began so.
    pub(crate) generation: u64,
    /// What was sealed; nothing after a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<Seal>,
    /// Size of the image that was found, in bytes.
    pub(crate) size_bytes: u64,
    /// Its modification time, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<Timestamp>,
}
