#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Gets what the tests need (packages, QEMU with qbm, a guest), then runs: run.sh test|demo|crash [ROUNDS]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
verb=${1:?usage: run.sh test|demo|crash [ROUNDS]}
shift

# What programs say is compared, in English.
export LC_ALL=C.UTF-8

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! command -v cargo > /dev/null || ! rust=$(rustc --version | cut -d ' ' -f 2); then
    echo "error: Rust is missing: install rustup, then the stable toolchain" >&2
    exit 1
fi
printf '%s\n' "$needed" "$rust" | sort -VC || {
    echo "error: Rust $rust is too old, $needed is needed: install rustup, then the stable toolchain" >&2
    exit 1
}
QBM_QEMU=$(qemu-glue/build.sh)
QBM_GUEST=$(tests/guest/fetch.sh)
export QBM_QEMU QBM_GUEST

# Runs the end-to-end tests with one QEMU.
end_to_end() {
    echo "== end to end with $("$1/bin/qemu-img" --version | head -n 1)"
    QBM_QEMU=$1 cargo test -p qbm-e2e --locked
    echo "== passed with QEMU in $1"
}

case $verb in
test)
    qemu-glue/packages.sh g++ valgrind abigail-tools groff mandoc pkg-config libnbd-bin nbdkit fuse3 strace mount procps
    cargo test --workspace --exclude qbm-simulator --exclude qbm-e2e --locked
    # Shows how many crashes it judged.
    cargo test -p qbm-simulator --locked -- --nocapture
    tests/c/run.sh "$QBM_QEMU"
    end_to_end "$QBM_QEMU"
    # The other version, unless the caller has chosen a QEMU.
    if [ -z "${QEMU_SRC:-}${QBM_QEMU_VERSION:-}" ]; then
        other=$(QBM_QEMU_VERSION=7.2 qemu-glue/build.sh)
        end_to_end "$other"
    fi
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
