// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one input may cost in memory.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Largest sum of live allocations that an input may lead to.
const LIVE_BYTES_MAX: usize = 64 << 20;
/// Files in memory would be on a disk; what they take is not held against the input.
static FILES_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Files in memory took so many bytes more.
pub(crate) fn grant(bytes: usize) {
    FILES_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// Runs `work`.
///
/// # Panics
/// It had more than [`LIVE_BYTES_MAX`] allocated at once, however small the pieces.
pub(crate) fn within(work: impl FnOnce()) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    FILES_BYTES.store(0, Ordering::Relaxed);
    work();
    let granted = before + FILES_BYTES.load(Ordering::Relaxed);
    let live = ALLOCATOR.peak_usage().saturating_sub(granted);
    assert!(
        live <= LIVE_BYTES_MAX,
        "{live} bytes were allocated at once"
    );
}

/// Shows what the bytes of an input mean, for somebody who looks into a finding.
pub(crate) fn show(input: &impl Debug) {
    if std::env::var_os("QBM_FUZZ_SHOW").is_some() {
        eprintln!("{input:#?}");
    }
}
