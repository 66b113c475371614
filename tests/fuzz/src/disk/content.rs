// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in a file in memory: pages, of which only those ever written exist.

use std::collections::BTreeMap;

use crate::budget;

const PAGE_BYTES: u64 = 4096;

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) length_bytes: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES as usize]>>,
    pub(super) modified: i64,
}

impl Content {
    pub(super) fn read(&self, offset_bytes: u64, buffer: &mut [u8]) {
        let mut at = offset_bytes;
        let mut rest = buffer;
        while !rest.is_empty() {
            let within = (at % PAGE_BYTES) as usize;
            let length = rest.len().min(PAGE_BYTES as usize - within);
            let (piece, after) = rest.split_at_mut(length);
            match self.pages.get(&(at / PAGE_BYTES)) {
                Some(page) => piece.copy_from_slice(&page[within..within + length]),
                None => piece.fill(0),
            }
            at += length as u64;
            rest = after;
        }
    }

    pub(super) fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        let mut at = offset_bytes;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % PAGE_BYTES) as usize;
            let length = rest.len().min(PAGE_BYTES as usize - within);
            let (piece, after) = rest.split_at(length);
            let page = self.pages.entry(at / PAGE_BYTES);
            let page = page.or_insert_with(|| {
                budget::grant(PAGE_BYTES as usize);
                Box::new([0; PAGE_BYTES as usize])
            });
            page[within..within + length].copy_from_slice(piece);
            at += length as u64;
            rest = after;
        }
        self.length_bytes = self.length_bytes.max(at);
    }

    pub(super) fn set_length(&mut self, length_bytes: u64) {
        if length_bytes < self.length_bytes {
            drop(self.pages.split_off(&length_bytes.div_ceil(PAGE_BYTES)));
            if let Some(page) = self.pages.get_mut(&(length_bytes / PAGE_BYTES)) {
                page[(length_bytes % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.length_bytes = length_bytes;
    }

    /// The first run of pages that exist, at or after `offset_bytes`.
    pub(super) fn next_data(&self, offset_bytes: u64) -> Option<(u64, u64)> {
        let mut pages = self.pages.range(offset_bytes / PAGE_BYTES..);
        let (first, _) = pages.next()?;
        let mut end = first + 1;
        while pages.next().is_some_and(|(page, _)| *page == end) {
            end += 1;
        }
        let start = (first * PAGE_BYTES).max(offset_bytes);
        Some((start, (end * PAGE_BYTES).min(self.length_bytes)))
    }
}
