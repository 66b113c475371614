// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model of a bitmap: which granules are dirty, as runs.

use std::collections::BTreeMap;

/// A set of numbers, kept as runs `[start, end)` that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(BTreeMap<u64, u64>);

impl Runs {
    pub(crate) fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((&first, &last)) = self.0.range(..=end).next_back()
            && last >= start
        {
            self.0.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.0.insert(start, end);
    }

    /// Forgets everything at and after `end`.
    pub(crate) fn truncate(&mut self, end: u64) {
        drop(self.0.split_off(&end));
        if let Some((_, last)) = self.0.iter_mut().next_back() {
            *last = end.min(*last);
        }
    }

    pub(crate) fn union(&mut self, other: &Self) {
        other
            .iter()
            .for_each(|(start, end)| self.insert(start, end));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(start, end)| (*start, *end))
    }

    pub(crate) fn count(&self) -> u64 {
        self.iter().map(|(start, end)| end - start).sum()
    }

    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(start, end)| {
            let before = self.0.range(..=start).next_back();
            before.is_some_and(|(_, last)| *last >= end)
        })
    }

    /// In granules of another size, rounded outwards, of which there are `count`.
    pub(crate) fn scaled(&self, from_bytes: u64, to_bytes: u64, count: u64) -> Self {
        let mut scaled = Self::default();
        for (start, end) in self.iter() {
            let last_byte = end * from_bytes - 1;
            scaled.insert(start * from_bytes / to_bytes, last_byte / to_bytes + 1);
        }
        scaled.truncate(count);
        scaled
    }
}
