// SPDX-License-Identifier: MIT OR Apache-2.0
//! Before and after guest data moves: one trio of entries for each of QEMU's callbacks.

use qbm_core::{Begun, Ticket};

use crate::args;
use crate::call::with_in_any_process;
use crate::error::{Failure, qbm_error};
use crate::image::qbm_image;

/// A _begin function's way to say: call the _wait function of the same group before the data moves.
pub const QBM_MUST_WAIT: i32 = 1;

/// Stands for one write between _begin and _end. Its content is the library's.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct qbm_ticket {
    /// Not to be looked at.
    pub opaque: [u64; 4],
}

/// # Safety
/// As the entries below.
unsafe fn begin(image: *mut qbm_image, offset: u64, bytes: u64, ticket: *mut qbm_ticket) -> i32 {
    let body = |image: &qbm_image| {
        // SAFETY: promised by the caller.
        let out = unsafe { args::place(ticket, "ticket") }?;
        let (ticket, begun) = image.image.begin_write(offset, bytes)?;
        let [place, range] = ticket.to_raw();
        out.opaque = [place, range, 0, 0];
        Ok(match begun {
            Begun::Ready => 0,
            Begun::MustWait => QBM_MUST_WAIT,
        })
    };
    // SAFETY: promised by the caller; no error buffer.
    unsafe { with_in_any_process(image, std::ptr::null_mut(), body) }
}

/// # Safety
/// As the entries below.
unsafe fn wait(image: *mut qbm_image, ticket: *const qbm_ticket, error: *mut qbm_error) -> i32 {
    let body = |image: &qbm_image| {
        if ticket.is_null() {
            return Err(Failure::new(libc::EINVAL, "ticket is NULL"));
        }
        image.image.wait_write()?;
        Ok(0)
    };
    // SAFETY: promised by the caller.
    unsafe { with_in_any_process(image, error, body) }
}

/// # Safety
/// As the entries below.
unsafe fn end(image: *mut qbm_image, ticket: *const qbm_ticket) {
    let body = |image: &qbm_image| {
        // SAFETY: NULL or the caller's ticket.
        let ticket = unsafe { ticket.as_ref() };
        let ticket = ticket.ok_or_else(|| Failure::new(libc::EINVAL, "ticket is NULL"))?;
        let [place, range, ..] = ticket.opaque;
        image.image.end_write(Ticket::from_raw([place, range]));
        Ok(0)
    };
    // SAFETY: promised by the caller; no error buffer.
    unsafe { with_in_any_process(image, std::ptr::null_mut(), body) };
}

/// Announces a write of bytes at offset: recorded in every recording bitmap, rounded outwards, before the data moves.
///
/// Returns 0: go ahead; QBM_MUST_WAIT: first call qbm_co_writev_wait() from a thread that may wait for a disk;
/// -errno: fail the write (-EROFS when the image is not active for writing, -EIO for a poisoned handle), without _end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_writev_begin(
    image: *mut qbm_image,
    offset: u64,
    bytes: u64,
    ticket: *mut qbm_ticket,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { begin(image, offset, bytes, ticket) }
}

/// What QBM_MUST_WAIT asks for. Returns 0: go ahead; -errno: fail the write. _end follows in both cases. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_writev_wait(
    image: *mut qbm_image,
    ticket: *const qbm_ticket,
    error: *mut qbm_error,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { wait(image, ticket, error) }
}

/// Says that the data moved, or failed to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_writev_end(image: *mut qbm_image, ticket: *const qbm_ticket) {
    // SAFETY: promised by the caller.
    unsafe { end(image, ticket) }
}

/// As qbm_co_writev_begin(), for a write of zeroes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_write_zeroes_begin(
    image: *mut qbm_image,
    offset: u64,
    bytes: u64,
    ticket: *mut qbm_ticket,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { begin(image, offset, bytes, ticket) }
}

/// As qbm_co_writev_wait(), for a write of zeroes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_write_zeroes_wait(
    image: *mut qbm_image,
    ticket: *const qbm_ticket,
    error: *mut qbm_error,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { wait(image, ticket, error) }
}

/// As qbm_co_writev_end(), for a write of zeroes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_write_zeroes_end(image: *mut qbm_image, ticket: *const qbm_ticket) {
    // SAFETY: promised by the caller.
    unsafe { end(image, ticket) }
}

/// As qbm_co_writev_begin(), for a discard: what is read afterwards may differ.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_discard_begin(
    image: *mut qbm_image,
    offset: u64,
    bytes: u64,
    ticket: *mut qbm_ticket,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { begin(image, offset, bytes, ticket) }
}

/// As qbm_co_writev_wait(), for a discard.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_discard_wait(
    image: *mut qbm_image,
    ticket: *const qbm_ticket,
    error: *mut qbm_error,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { wait(image, ticket, error) }
}

/// As qbm_co_writev_end(), for a discard.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qbm_co_discard_end(image: *mut qbm_image, ticket: *const qbm_ticket) {
    // SAFETY: promised by the caller.
    unsafe { end(image, ticket) }
}
