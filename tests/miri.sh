#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The engine under miri: the unit tests that touch no files, and a few crashes of the simulator, whose disk is in memory.
# What is left out asks the kernel for what miri does not know: OFD locks, holes, syncs of directories.
# Needs a nightly toolchain with miri, which no version pins: it is no part of `make test`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
rustup component add --toolchain nightly miri rust-src
export CARGO_TARGET_DIR=target/miri MIRIFLAGS=-Zmiri-disable-isolation
# The tests that are skipped count to millions, which takes miri hours.
cargo +nightly miri test --locked -p qbm-core --lib -- \
    bits:: caps:: error:: descriptor::layout descriptor::object descriptor::parse descriptor::write descriptor::tests \
    image::names image::recover tracking::in_flight \
    --skip any_map_is --skip merging_is --skip resizing_keeps --skip a_long_run_is --skip runs_of_zeros \
    --skip too_many_bitmaps --skip many_entries --skip user_data_is --skip deep_levels
cargo +nightly miri run --locked -p qbm-simulator --bin simulate -- --seed 1 --crash-points 200
