// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a bitmap's chunks are: a tree of slots that are made when a chunk below them is.

use std::sync::{Arc, OnceLock};

use super::Chunk;

/// Slots of a node: 2 KiB.
const FAN_OUT: usize = 128;
/// Chunks below one slot of the root.
const CHUNKS_PER_BRANCH: usize = FAN_OUT * FAN_OUT;

/// What a slot of the root leads to.
type Branch = Node<Node<Arc<Chunk>>>;

/// Slots that are filled at most once, and read without a lock.
#[derive(Debug)]
struct Node<T>(Box<[OnceLock<T>; FAN_OUT]>);

impl<T> Node<T> {
    fn new() -> Self {
        Self(Box::new([const { OnceLock::new() }; FAN_OUT]))
    }

    fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index)?.get()
    }

    fn get_or_init(&self, index: usize, make: impl FnOnce() -> T) -> Option<&T> {
        Some(self.0.get(index)?.get_or_init(make))
    }
}

/// The filled ones among `slots`, from the one at `first` on.
fn filled<T>(slots: &[OnceLock<T>], first: usize) -> impl Iterator<Item = (usize, &T)> {
    let slots = slots.iter().enumerate().skip(first);
    slots.filter_map(|(index, slot)| Some((index, slot.get()?)))
}

/// A slot of each level: of the root, of the node there, and of the node below.
fn path(index: usize) -> (usize, usize, usize) {
    (
        index / CHUNKS_PER_BRANCH,
        index / FAN_OUT % FAN_OUT,
        index % FAN_OUT,
    )
}

/// Chunks by index, most of them absent.
///
/// Memory: 16 bytes for 16,384 chunks, and at most 4 KiB more for each chunk that is present. The largest bitmap that the
/// caps allow (2^36 bits) thus begins with 2 KiB.
#[derive(Debug)]
pub(super) struct Table {
    chunks_count: u64,
    root: Box<[OnceLock<Branch>]>,
}

impl Table {
    pub(super) fn new(chunks_count: u64) -> Self {
        let branches = chunks_count.div_ceil(CHUNKS_PER_BRANCH as u64);
        Self {
            chunks_count,
            root: (0..branches).map(|_| OnceLock::new()).collect(),
        }
    }

    #[cfg(test)]
    pub(super) fn chunks_count(&self) -> u64 {
        self.chunks_count
    }

    /// `index` as a position, if the table has it.
    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index)
            .ok()
            .filter(|_| index < self.chunks_count)
    }

    pub(super) fn get(&self, index: u64) -> Option<&Arc<Chunk>> {
        let (branch, node, slot) = path(self.position(index)?);
        self.root.get(branch)?.get()?.get(node)?.get(slot)
    }

    /// The chunk at `index`; what `make` says if there was none. `None` beyond the table.
    pub(super) fn get_or_init(
        &self,
        index: u64,
        make: impl FnOnce() -> Arc<Chunk>,
    ) -> Option<&Arc<Chunk>> {
        let (branch, node, slot) = path(self.position(index)?);
        let branch = self.root.get(branch)?.get_or_init(Node::new);
        branch.get_or_init(node, Node::new)?.get_or_init(slot, make)
    }

    /// Chunks that are present, with their indexes, from index `first` on, in order.
    pub(super) fn present(&self, first: u64) -> impl Iterator<Item = (u64, &Arc<Chunk>)> {
        // An index beyond the table leads to a branch that the root does not have.
        let start = path(usize::try_from(first).unwrap_or(usize::MAX));
        filled(&self.root, start.0).flat_map(move |(branch, nodes)| {
            let first = if branch == start.0 { start.1 } else { 0 };
            filled(&*nodes.0, first).flat_map(move |(node, slots)| {
                let first = if (branch, node) == (start.0, start.1) {
                    start.2
                } else {
                    0
                };
                filled(&*slots.0, first).map(move |(slot, chunk)| {
                    #[expect(
                        clippy::arithmetic_side_effects,
                        reason = "the inverse of path(), of an index below chunks_count"
                    )]
                    let index = (branch * CHUNKS_PER_BRANCH + node * FAN_OUT + slot) as u64;
                    (index, chunk)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn present_chunks_come_in_order_from_any_index_on() {
        let count = 3 * CHUNKS_PER_BRANCH as u64 - 5;
        let table = Table::new(count);
        let made = [0, 1, 127, 128, 5000, 16383, 16384, 40000, count - 1];
        for index in made {
            table.get_or_init(index, || Arc::new(Chunk::zeroed()));
        }
        for first in [0, 1, 2, 127, 129, 5000, 16383, 16385, count - 1, count] {
            let found: Vec<_> = table.present(first).map(|(index, _)| index).collect();
            let expected: Vec<_> = made.into_iter().filter(|index| *index >= first).collect();
            assert_eq!(found, expected, "from {first}");
        }
        assert_eq!(table.present(u64::MAX).count(), 0);
        for (index, chunk) in table.present(0) {
            assert!(
                table
                    .get(index)
                    .is_some_and(|same| Arc::ptr_eq(same, chunk))
            );
        }
    }

    #[test]
    fn nothing_is_beyond_the_end() {
        let table = Table::new(3);
        for index in [3, 127, 128, u64::MAX] {
            assert!(table.get(index).is_none());
            let made = table.get_or_init(index, || Arc::new(Chunk::zeroed()));
            assert!(made.is_none());
        }
        assert_eq!(table.present(0).count(), 0);
        assert_eq!(Table::new(0).present(0).count(), 0);
    }

    #[test]
    fn a_node_takes_what_the_documentation_says() {
        assert_eq!(size_of::<OnceLock<Branch>>(), 16);
        assert_eq!(size_of::<[OnceLock<Arc<Chunk>>; FAN_OUT]>(), 2048);
    }
}
