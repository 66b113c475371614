// SPDX-License-Identifier: MIT OR Apache-2.0
//! Telling the process that opened a handle from those that fork(2) made of it.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

/// What [`Origin::mark`] holds until the kernel wipes it.
const HERE: u32 = 1;

/// The process in which this was made.
#[derive(Debug)]
pub(crate) struct Origin {
    id: u32,
    /// A page that is zeros in every child (`MADV_WIPEONFORK`, Linux 4.14): in a PID namespace of its own a child may have
    /// its parent's number. `None` where the kernel cannot do it.
    mark: Option<NonNull<AtomicU32>>,
}

// SAFETY: the page is reached through an atomic integer only, and unmapped by whoever owns it last.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

fn page_bytes() -> usize {
    // SAFETY: no pointers.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

fn marked_page() -> Option<NonNull<AtomicU32>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at no address in particular, of no file.
    let page = unsafe { libc::mmap(ptr::null_mut(), page_bytes(), protection, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping that was just made.
    let wiped = unsafe { libc::madvise(page, page_bytes(), libc::MADV_WIPEONFORK) } == 0;
    if !wiped {
        // SAFETY: as above; nobody else knows it.
        unsafe { libc::munmap(page, page_bytes()) };
        return None;
    }
    let mark = NonNull::new(page.cast::<AtomicU32>())?;
    // SAFETY: mapped, of zeros, and aligned to a page.
    unsafe { mark.as_ref() }.store(HERE, Ordering::Relaxed);
    Some(mark)
}

impl Origin {
    pub(crate) fn here() -> Self {
        Self {
            id: std::process::id(),
            mark: marked_page(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn is_here(&self) -> bool {
        // SAFETY: mapped for as long as this lives.
        let mark = self.mark.map(|mark| unsafe { mark.as_ref() });
        let is_wiped = mark.is_some_and(|mark| mark.load(Ordering::Relaxed) != HERE);
        !is_wiped && std::process::id() == self.id
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            // SAFETY: the mapping of `marked_page`, which nobody else has.
            unsafe { libc::munmap(mark.as_ptr().cast(), page_bytes()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_with_its_parents_number_is_another_process() {
        // Under a container's first process a child in a new PID namespace was taken for its parent, and wrote.
        let mut origin = Origin::here();
        assert!(origin.is_here());
        if origin.mark.is_none() {
            eprintln!("skipped: this kernel has no MADV_WIPEONFORK");
            return;
        }
        // SAFETY: the child calls what a child of a process with threads may, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            origin.id = std::process::id();
            let taken_for_parent = i32::from(origin.is_here());
            // SAFETY: as above.
            unsafe { libc::_exit(taken_for_parent) };
        }
        let mut status = -1;
        // SAFETY: the child that was just made.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        assert!(origin.is_here());
    }
}
