// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who speaks when the library panics: in the installed one nobody; the error tells.

/// Makes panics print nothing, from the first call on. With feature `c-library` only: a Rust program keeps its messages.
///
/// The hook is the process's in Rust's eyes, but it lives in `std`, and the installed `libqbm.so` has a copy of `std` to
/// itself: its symbols are local to it. No other Rust code in the process sees this hook, none is taken away, and it goes
/// when the library is unloaded. A program that links `libqbm.a` together with other Rust code of the very same compiler
/// may share one `std` with it; then the hook is shared too.
#[inline]
pub(crate) fn silence() {
    #[cfg(feature = "c-library")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    }
}
