#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Gets what the tests need (packages, QEMU with qbm, a guest), then runs: run.sh test|demo|crash [ROUNDS]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
verb=${1:?usage: run.sh test|demo|crash [ROUNDS]}
shift

command -v cargo > /dev/null || {
    echo "error: Rust is missing: install rustup, then the stable toolchain" >&2
    exit 1
}
QBM_QEMU=$(qemu-glue/build.sh)
QBM_GUEST=$(tests/guest/fetch.sh)
export QBM_QEMU QBM_GUEST

case $verb in
test)
    qemu-glue/packages.sh g++ valgrind abigail-tools groff mandoc pkg-config libnbd-bin strace
    cargo test --workspace --exclude qbm-simulator --locked
    # Shows how many crashes it judged.
    cargo test -p qbm-simulator --locked -- --nocapture
    tests/c/run.sh "$QBM_QEMU"
    ;;
demo)
    cargo run --release --locked --quiet -p qbm-e2e --bin demo
    ;;
crash)
    cargo run --release --locked --quiet -p qbm-e2e --bin crash -- "$@"
    ;;
*)
    echo "error: unknown verb $verb" >&2
    exit 2
    ;;
esac
