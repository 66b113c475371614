// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file: what the page cache holds, what is on stable storage, and the changes between the two.

use std::sync::Arc;

use super::content::Content;

/// A change that no sync has covered yet.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset_bytes: u64, data: Arc<[u8]> },
    Length(u64),
}

/// What becomes of a change when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is on stable storage.
    Kept,
    /// It is as if it had never been.
    Dropped,
    /// Of a write, each byte is old or new; the seed says which. Anything else is kept or dropped.
    Torn(u64),
}

/// What a failed sync leaves in the page cache. Both happen in Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedSync {
    /// Dirty pages are dropped: reads see what is on stable storage.
    Drops,
    /// Dirty pages stay and count as clean: reads see them, no later sync writes them.
    MarksClean,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) cached: Content,
    pub(super) stable: Content,
    pub(super) pending: Vec<Change>,
    /// A failed sync left pages that look clean and are not on stable storage.
    pub(super) diverged: bool,
    /// By the simulated clock, in ticks.
    pub(super) modified: u64,
    pub(super) modified_stable: u64,
    /// The engine must not change it (I6): the data image, or a file of somebody else.
    pub(super) precious: bool,
}

impl Change {
    pub(super) fn apply(&self, content: &mut Content, fate: Fate) {
        match (self, fate) {
            (_, Fate::Dropped) => {}
            (Self::Write { offset_bytes, data }, Fate::Kept) => content.write(*offset_bytes, data),
            (Self::Write { offset_bytes, data }, Fate::Torn(seed)) => {
                tear(content, *offset_bytes, data, seed);
            }
            (Self::Length(length_bytes), Fate::Kept) => content.set_length(*length_bytes),
            (Self::Length(length_bytes), Fate::Torn(seed)) => {
                if seed % 2 == 0 {
                    content.set_length(*length_bytes);
                }
            }
        }
    }
}

/// Each byte old or new: a prefix, a suffix, whole sectors, or byte by byte. The file may reach further than what arrived.
fn tear(content: &mut Content, offset_bytes: u64, data: &[u8], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let cut = random.usize(0..=data.len());
    let way = random.u8(0..4);
    let sectors = random.u64(..);
    for (index, byte) in data.iter().enumerate() {
        let at = offset_bytes + index as u64;
        let arrives = match way {
            0 => index < cut,
            1 => index >= cut,
            2 => sectors >> (at / 512 % 64) & 1 == 1,
            _ => random.bool(),
        };
        if arrives {
            content.write(at, &[*byte]);
        }
    }
    if random.bool() {
        content.reach(offset_bytes + data.len() as u64);
    }
}

impl Inode {
    pub(super) fn change(&mut self, change: Change, modified: u64) {
        change.apply(&mut self.cached, Fate::Kept);
        self.pending.push(change);
        self.modified = modified;
    }

    /// Content, length and modification time are on stable storage.
    pub(super) fn sync(&mut self) {
        if self.diverged {
            for change in &self.pending {
                change.apply(&mut self.stable, Fate::Kept);
            }
        } else {
            self.stable = self.cached.clone();
        }
        self.pending.clear();
        self.modified_stable = self.modified;
    }

    /// Part of the pending changes arrived, as `fate` says; no later sync will bring the others.
    pub(super) fn fail_sync(&mut self, how: FailedSync, mut fate: impl FnMut() -> Fate) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.stable, fate());
        }
        match how {
            FailedSync::Drops => {
                // The length is the inode's, not a page's: it stays.
                let length_bytes = self.cached.length_bytes();
                self.cached = self.stable.clone();
                self.cached.set_length(length_bytes);
            }
            FailedSync::MarksClean => {}
        }
        self.diverged = true;
    }

    /// The file after a power cut.
    pub(super) fn after_cut(&self, mut fate: impl FnMut() -> Fate) -> Self {
        let mut stable = self.stable.clone();
        for change in &self.pending {
            change.apply(&mut stable, fate());
        }
        let mut modified = self.modified_stable;
        if self.modified != modified && fate() != Fate::Dropped {
            modified = self.modified;
        }
        Self {
            cached: stable.clone(),
            stable,
            pending: Vec::new(),
            diverged: false,
            modified,
            modified_stable: modified,
            precious: self.precious,
        }
    }

    /// How many fates [`after_cut`](Self::after_cut) asks for.
    pub(super) fn fates_count(&self) -> usize {
        self.pending.len() + usize::from(self.modified != self.modified_stable)
    }
}
