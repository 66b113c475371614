// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds an implementation against the fixtures of the format (qbm-core/FORMAT.md).
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`case`] | what a fixture says: the files' data model |
//! | [`checksum`] | the checksums, by the text of the specification, with none of qbm-core's code |
//! | [`compare`] | what an implementation found against what was expected |
//! | [`disk`] | a small disk whose storage is recorded |
//! | [`members`] | JSON objects in their order, for "kept where they stood" |
//! | [`observe`] | qbm-core, asked through its public interface |
//! | [`recording`] | a storage that writes down the order of everything |
//! | [`rules`] | the specification's rules, and the tests that name them |
//! | [`sandbox`] | a copy of a fixture that may be written to |

pub mod case;
pub mod checksum;
pub mod compare;
pub mod disk;
pub mod members;
pub mod observe;
pub mod recording;
pub mod rules;
pub mod sandbox;

use std::path::PathBuf;

/// The directory of the fixtures.
#[must_use]
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The root of the tree.
#[must_use]
pub fn tree() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
