// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks between handles, as open-file-description locks are: they belong to the handle and go with it.

use std::collections::BTreeMap;

use qbm_core::storage::LockMode;

/// Who holds what.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// By handle: the inode and the mode.
    held: BTreeMap<u64, (u64, LockMode)>,
}

impl Locks {
    /// Takes a lock; false when another handle's forbids it. Taking another mode replaces the first.
    pub(super) fn take(&mut self, handle: u64, inode: u64, mode: LockMode) -> bool {
        let conflicts = |(holder, (locked, held)): (&u64, &(u64, LockMode))| {
            let is_shared = mode == LockMode::Read && *held == LockMode::Read;
            *holder != handle && *locked == inode && !is_shared
        };
        let is_free = !self.held.iter().any(conflicts);
        if is_free {
            self.held.insert(handle, (inode, mode));
        }
        is_free
    }

    pub(super) fn release(&mut self, handle: u64) {
        self.held.remove(&handle);
    }
}
