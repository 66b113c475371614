#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A bug in the library as a C program meets it: panic.sh PREFIX, where PREFIX has libqbm's pkg-config file. Prints what
# panicked.
set -euo pipefail

prefix=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# Hundreds of disks; none has to survive anything but the panic.
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$work"' EXIT

cd "$root"
cargo test --locked --quiet -p qbm-ffi --features test-hooks --test panics > "$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
cargo rustc --locked --quiet -p qbm-ffi --features c-library,test-hooks --crate-type staticlib
target=${CARGO_TARGET_DIR:-target}
# What the static library needs from the system is the same with these features.
libs=$(sed -n 's/^Libs.private: //p' "$prefix/lib/pkgconfig/qbm.pc")
# shellcheck disable=SC2086 # a list of flags
"${CC:-cc}" -std=gnu99 -Wall -Wextra -pedantic -Wno-missing-field-initializers -Werror -g -Iinclude \
    -o "$work/panic" "$here/panic.c" "$target/debug/libqbm.a" $libs
mkdir "$work/disks"
"$work/panic" "$work/disks"
