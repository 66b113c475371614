// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the core finds its files.

use std::sync::Arc;

use qbm_core::storage::{OsStorage, Storage};

/// The operating system's files.
pub(crate) fn storage() -> Arc<dyn Storage> {
    #[cfg(feature = "test-hooks")]
    return Arc::new(crate::test_hooks::PanickingStorage(OsStorage));
    #[cfg(not(feature = "test-hooks"))]
    Arc::new(OsStorage)
}
