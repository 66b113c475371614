// SPDX-License-Identifier: MIT OR Apache-2.0
//! A value that many threads look at all the time, and that is replaced now and then.
//!
//! A reader neither waits nor shares a cache line with most of the others, and nothing is kept per thread: a C program may
//! unload the library from under threads that have used it (`dlclose(3)`), which ends badly for destructors of
//! thread-local variables. That rules out the usual crates for this (arc-swap, crossbeam-epoch).

use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

/// Readers are spread over so many places. More than one, so that there is one that is not being replaced.
const PLACES_COUNT: usize = 4;

/// The value, held once for each place: readers of different places do not count on the same counter.
#[derive(Debug)]
struct Shared<T>(Arc<T>);

/// Alone in its cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Place<T>(RwLock<Arc<Shared<T>>>);

/// A value that can be replaced while it is being read.
#[derive(Debug)]
pub(super) struct Published<T> {
    /// All hold the same value.
    places: [Place<T>; PLACES_COUNT],
    /// Held while the value is replaced, so that at most one place at a time is not to be had.
    replacing: Mutex<()>,
}

/// The value as it was when it was loaded.
#[derive(Debug)]
pub(super) struct Loaded<T>(Arc<Shared<T>>);

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T> Published<T> {
    pub(super) fn new(value: T) -> Self {
        let value = Arc::new(value);
        Self {
            places: std::array::from_fn(|_| {
                Place(RwLock::new(Arc::new(Shared(Arc::clone(&value)))))
            }),
            replacing: Mutex::new(()),
        }
    }

    /// The value now. Beside a [`replace`](Self::replace) that has not returned: the old one or the new one, and perhaps
    /// the old one after the new one.
    pub(super) fn load(&self) -> Loaded<T> {
        // Threads and coroutines differ in where their stacks are.
        let here = 0_u8;
        let first = (ptr::from_ref(&here).addr() >> 12) % PLACES_COUNT;
        let (before, after) = self.places.split_at(first);
        loop {
            // One that is being replaced is passed by; the next one is not, or has been.
            for Place(place) in after.iter().chain(before) {
                match place.try_read() {
                    Ok(value) => return Loaded(Arc::clone(&value)),
                    Err(TryLockError::Poisoned(value)) => {
                        return Loaded(Arc::clone(value.get_ref()));
                    }
                    Err(TryLockError::WouldBlock) => {}
                }
            }
        }
    }

    /// When this returns, every later [`load`](Self::load) gets the new value. Whoever loaded the old one keeps it.
    pub(super) fn replace(&self, value: Arc<T>) {
        let _replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for Place(place) in &self.places {
            let new = Arc::new(Shared(Arc::clone(&value)));
            let mut held = place.write().unwrap_or_else(PoisonError::into_inner);
            let old = std::mem::replace(&mut *held, new);
            drop(held);
            // What may free a whole bitmap comes after readers are let in again.
            drop(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn readers_see_at_least_what_was_published_before_they_looked() {
        let published = Published::new(0_u64);
        let last = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while last.load(Ordering::SeqCst) < 20_000 {
                        let before = last.load(Ordering::SeqCst);
                        let seen = *published.load();
                        assert!(seen >= before, "{seen} after {before}");
                    }
                });
            }
            for value in 1..=20_000 {
                published.replace(Arc::new(value));
                last.store(value, Ordering::SeqCst);
            }
        });
    }

    #[test]
    fn a_value_is_freed_once_nobody_has_it() {
        let first = Arc::new(1);
        let published = Published::new(0);
        published.replace(Arc::clone(&first));
        let loaded = published.load();
        published.replace(Arc::new(2));
        assert_eq!((*loaded, *published.load()), (1, 2));
        assert_eq!(Arc::strong_count(&first), 2);
        drop(loaded);
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn a_place_that_is_being_replaced_is_passed_by() {
        let published = Published::new(7);
        for Place(place) in &published.places {
            let _held = place.write().unwrap();
            assert_eq!(*published.load(), 7);
        }
    }
}
