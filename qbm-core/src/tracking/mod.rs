// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recording writes before they reach the data image (I1).

mod in_flight;
mod published;
mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::sabotage::sabotaged;
use in_flight::InFlight;
pub use in_flight::Ticket;
use published::Published;
pub(crate) use recorder::Recorder;

/// What a write that has been announced has to do before its data moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: everything is recorded.
    Ready,
    /// Call [`Image::wait_write`](crate::Image::wait_write) where waiting for a disk is allowed.
    MustWait,
}

/// The bitmaps that record now, and the writes in flight.
///
/// [`begin`](Self::begin) and [`end`](Self::end) are lock-free while the bits of a write are already set.
#[derive(Debug)]
pub(crate) struct Tracker {
    writable: AtomicBool,
    /// A write was announced since the image became writable.
    written: AtomicBool,
    recorders: Published<Vec<Arc<Recorder>>>,
    in_flight: InFlight,
}

impl Tracker {
    pub(crate) fn new() -> Self {
        Self {
            writable: AtomicBool::new(false),
            written: AtomicBool::new(false),
            recorders: Published::new(Vec::new()),
            in_flight: InFlight::new(),
        }
    }

    pub(crate) fn set_writable(&self, writable: bool) {
        if writable {
            self.written.store(false, Ordering::SeqCst);
        }
        self.writable.store(writable, Ordering::SeqCst);
    }

    /// Whether a write was announced since the image became writable.
    pub(crate) fn was_written(&self) -> bool {
        self.written.load(Ordering::SeqCst)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::SeqCst)
    }

    /// Records a write of `length_bytes` at `offset_bytes` everywhere; `None` when the image is not open for writing.
    pub(crate) fn begin(&self, offset_bytes: u64, length_bytes: u64) -> Option<(Ticket, Begun)> {
        if !self.is_writable() {
            return None;
        }
        // Looking first keeps the line shared between writers.
        if !self.written.load(Ordering::Relaxed) {
            self.written.store(true, Ordering::Relaxed);
        }
        // First be seen in flight, then look which bitmaps record: a bitmap that is added meanwhile is either seen
        // here, or sees this write (see `publish`).
        let ticket = self.in_flight.enter(offset_bytes, length_bytes);
        fence(Ordering::SeqCst);
        let mut begun = Begun::Ready;
        for recorder in self.recorders.load().iter() {
            if !recorder.record(offset_bytes, length_bytes) {
                begun = Begun::MustWait;
            }
        }
        Some((ticket, begun))
    }

    pub(crate) fn end(&self, ticket: Ticket) {
        self.in_flight.leave(ticket);
    }

    /// Whether no write is between begin and end.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.ranges().next().is_none()
    }

    /// From now on exactly `recorders` record. Writes in flight are recorded in those that are new.
    pub(crate) fn publish(&self, recorders: Vec<Arc<Recorder>>) {
        let old = self.recorders.load();
        self.recorders.replace(Arc::new(recorders));
        fence(Ordering::SeqCst);
        for recorder in self.recorders.load().iter() {
            if old.iter().any(|known| Arc::ptr_eq(known, recorder)) {
                continue;
            }
            if sabotaged!("writes-in-flight-forgotten") {
                continue;
            }
            for (start, end) in self.in_flight.ranges() {
                // A failure marks the recorder as failed; the next look at it settles that.
                recorder.record(start, end.saturating_sub(start));
            }
        }
    }

    /// The bitmaps that could not record a write.
    pub(crate) fn failed(&self) -> Vec<Arc<Recorder>> {
        let recorders = self.recorders.load();
        let failed = recorders.iter().filter(|recorder| recorder.has_failed());
        failed.cloned().collect()
    }
}
