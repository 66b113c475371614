// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places where the engine can be broken on purpose, for `tests/sabotage.sh` to see whether the tests notice.
//!
//! One name at a time is given to rustc: `RUSTFLAGS='--cfg qbm_sabotaged --cfg qbm_sabotage="NAME"'`. No feature turns it on,
//! so no program that depends on this crate can; and a build without debug assertions, as every release is, refuses it.

#[cfg(all(qbm_sabotaged, not(debug_assertions)))]
compile_error!("a sabotaged engine is for tests: it cannot be built for a release");

/// Whether this build does it wrong at the place of that name; `false`, and compiled away, in every other build.
macro_rules! sabotaged {
    ($name:literal) => {
        cfg!(all(qbm_sabotaged, qbm_sabotage = $name))
    };
}

pub(crate) use sabotaged;
