// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in a file: sparse, and cheap to copy, because copies share their pages until one of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes in a page.
const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// Bytes of a file. Pages that were never written are zeros and take no space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    length_bytes: u64,
    /// Bytes after the end are zero.
    pages: BTreeMap<u64, Arc<Page>>,
}

/// Pieces of `[offset, offset + length)` page by page: number of the page, first byte in it, range of the caller's bytes.
fn pieces(
    offset_bytes: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset_bytes + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let count = (PAGE_BYTES - within).min(length - done);
        done += count;
        Some((at / PAGE_BYTES as u64, within, done - count..done))
    })
}

impl Content {
    /// Length in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Fills `buffer` from `offset_bytes` on; bytes after the end read as zeros.
    pub fn read(&self, offset_bytes: u64, buffer: &mut [u8]) {
        for (page, within, range) in pieces(offset_bytes, buffer.len()) {
            let target = &mut buffer[range];
            match self.pages.get(&page) {
                Some(page) => target.copy_from_slice(&page[within..within + target.len()]),
                None => target.fill(0),
            }
        }
    }

    /// Everything in the file.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.length_bytes).expect("a small file")];
        self.read(0, &mut bytes);
        bytes
    }

    /// Writes `data`, and makes the file reach its end.
    pub fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        for (page, within, range) in pieces(offset_bytes, data.len()) {
            let source = &data[range];
            let page = self
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + source.len()].copy_from_slice(source);
        }
        self.reach(offset_bytes + data.len() as u64);
    }

    /// Makes the file at least `length_bytes` long.
    pub fn reach(&mut self, length_bytes: u64) {
        self.length_bytes = self.length_bytes.max(length_bytes);
    }

    /// Cuts the file, or grows it with zeros.
    pub fn set_length(&mut self, length_bytes: u64) {
        if length_bytes < self.length_bytes {
            let kept = length_bytes.div_ceil(PAGE_BYTES as u64);
            self.pages.retain(|page, _| *page < kept);
            let within = (length_bytes % PAGE_BYTES as u64) as usize;
            if within > 0
                && let Some(page) = self.pages.get_mut(&(kept - 1))
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.length_bytes = length_bytes;
    }

    /// The next stretch at or after `offset_bytes` that has pages, cut at the end.
    pub fn next_data(&self, offset_bytes: u64) -> Option<(u64, u64)> {
        let page_bytes = PAGE_BYTES as u64;
        let (first, _) = self.pages.range(offset_bytes / page_bytes..).next()?;
        let mut end = *first;
        while self.pages.contains_key(&end) {
            end += 1;
        }
        let start = (first * page_bytes).max(offset_bytes);
        let end = (end * page_bytes).min(self.length_bytes);
        (start < end).then_some((start, end))
    }
}
