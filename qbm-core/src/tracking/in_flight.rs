// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which byte ranges are being written right now.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "numbers of slots, units that are shifted 64-bit numbers, and lengths that are not 0"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Writes that find a slot; more than that at once share the overflow list.
const SLOTS_COUNT: usize = 256;
/// Ranges are kept in units of 64 KiB, rounded outwards; an offset beyond 2^48 counts as "from there to the end".
const UNIT_SHIFT: u32 = 16;
const UNITS_MAX: u64 = u32::MAX as u64;

/// Proof that a write was announced; to be given back when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// 0: an empty range; up to [`SLOTS_COUNT`]: slot + 1; larger: on the overflow list.
    place: u64,
    range: u64,
}

impl Ticket {
    /// As two integers that a C structure can carry.
    pub fn to_raw(self) -> [u64; 2] {
        [self.place, self.range]
    }

    /// Back from [`to_raw`](Self::to_raw).
    pub fn from_raw([place, range]: [u64; 2]) -> Self {
        Self { place, range }
    }
}

/// Start and end in units, rounded outwards, in one word: never 0 for a range that is not empty.
fn pack(offset_bytes: u64, length_bytes: u64) -> u64 {
    let start = (offset_bytes >> UNIT_SHIFT).min(UNITS_MAX - 1);
    let last_byte = offset_bytes.saturating_add(length_bytes - 1);
    let end = ((last_byte >> UNIT_SHIFT) + 1).min(UNITS_MAX);
    start << 32 | end
}

fn unpack(range: u64) -> (u64, u64) {
    let (start, end) = (range >> 32, range & UNITS_MAX);
    let end_bytes = if end == UNITS_MAX {
        u64::MAX
    } else {
        end << UNIT_SHIFT
    };
    (start << UNIT_SHIFT, end_bytes)
}

/// The ranges, each from before its bits are looked at until after its data moved.
#[derive(Debug)]
pub(super) struct InFlight {
    slots: Box<[AtomicU64]>,
    overflow: Mutex<Vec<Ticket>>,
    overflow_next: AtomicU64,
    overflow_count: AtomicU64,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS_COUNT).map(|_| AtomicU64::new(0)).collect(),
            overflow: Mutex::new(Vec::new()),
            overflow_next: AtomicU64::new(SLOTS_COUNT as u64 + 1),
            overflow_count: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self, offset_bytes: u64, length_bytes: u64) -> Ticket {
        if length_bytes == 0 {
            return Ticket { place: 0, range: 0 };
        }
        let range = pack(offset_bytes, length_bytes);
        // Spread by offset, so that concurrent writers rarely meet.
        let first = (range.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        for step in 0..SLOTS_COUNT {
            let index = (first + step) % SLOTS_COUNT;
            let taken = self.slots.get(index).is_some_and(|slot| {
                slot.compare_exchange(0, range, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            });
            if taken {
                let place = index as u64 + 1;
                return Ticket { place, range };
            }
        }
        let place = self.overflow_next.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { place, range };
        let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        overflow.push(ticket);
        self.overflow_count.fetch_add(1, Ordering::SeqCst);
        ticket
    }

    pub(super) fn leave(&self, ticket: Ticket) {
        let Some(index) = ticket.place.checked_sub(1) else {
            return;
        };
        if let Some(slot) = self.slots.get(usize::try_from(index).unwrap_or(usize::MAX)) {
            // A ticket that is given back twice must not take the place of a write elsewhere.
            let given = slot.compare_exchange(ticket.range, 0, Ordering::SeqCst, Ordering::Relaxed);
            debug_assert!(given.is_ok(), "a ticket is given back once");
            return;
        }
        let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = overflow.iter().position(|other| *other == ticket) {
            overflow.swap_remove(index);
            self.overflow_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Byte ranges `[start, end)` that contain every write in flight.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let overflow = if self.overflow_count.load(Ordering::SeqCst) == 0 {
            Vec::new()
        } else {
            let list = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
            list.clone()
        };
        let slots = self.slots.iter().map(|slot| slot.load(Ordering::SeqCst));
        slots
            .filter(|range| *range != 0)
            .chain(overflow.into_iter().map(|ticket| ticket.range))
            .map(unpack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_its_write_wherever_it_is() {
        for (offset, length) in [
            (0, 1),
            (65535, 2),
            (1 << 47, 4096),
            (1 << 60, 512),
            ((1 << 63) - 512, 512),
        ] {
            let (start, end) = unpack(pack(offset, length));
            assert!(start <= offset && end >= offset + length, "{offset}");
        }
    }

    #[test]
    fn more_writes_than_slots() {
        let in_flight = InFlight::new();
        let tickets: Vec<_> = (0..1000)
            .map(|n| in_flight.enter(n << 20, 1 << 20))
            .collect();
        let mut starts: Vec<_> = in_flight.ranges().map(|(start, _)| start).collect();
        starts.sort_unstable();
        let expected: Vec<_> = (0..1000).map(|n| n << 20).collect();
        assert_eq!(starts, expected);
        for ticket in tickets {
            in_flight.leave(ticket);
        }
        assert_eq!(in_flight.ranges().count(), 0);
        let empty = in_flight.enter(0, 0);
        assert_eq!(in_flight.ranges().count(), 0);
        in_flight.leave(empty);
    }
}
