#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The installed library, as a C programmer meets it: run.sh PREFIX, which has bin/qemu-img and lib/libqbm.so
set -euo pipefail

prefix=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LD_LIBRARY_PATH=$prefix/lib
library=$prefix/lib/libqbm.so.0
passed=0
failed=0

# Runs a test, whose last line tells how much it did.
topic() {
    local what=$1
    shift
    SECONDS=0
    if "$@" > "$work/topic.out" 2> "$work/topic.err"; then
        passed=$((passed + 1))
        echo "ok: $what: $(tail -n 1 "$work/topic.out") (${SECONDS} s)"
        grep '^skipped' "$work/topic.err" || true
    else
        failed=$((failed + 1))
        echo "FAILED: $what: $*"
        cat "$work/topic.out" "$work/topic.err"
    fi
}

versions() {
    {
        "$work/plain/session" "$work/version.qbm" && PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --modversion qbm &&
            sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml"
    } | uniq -c | awk '{ print $2; same = $1 == 4 } END { exit NR != 1 || !same }'
}

# Every symbol at its node, and no other.
symbols() {
    nm -D --defined-only "$library" | sed -nE 's/.* [A-Z] ([^@]*)@@(.*)$/\1 \2/p' | sort > "$work/exported"
    awk '/^QBM_/ { node = $1 } /^    qbm_/ { sub(";", ""); print $1, node }' "$root/qbm-ffi/qbm.map" |
        sort > "$work/reviewed"
    # The nodes are symbols themselves.
    grep -v '^QBM_' "$work/exported" | diff "$work/reviewed" - &&
        echo "$(wc -l < "$work/reviewed") symbols"
}

topic "the header stands alone, its layout is the reviewed one" "$here/header.sh" "$prefix" "$work"
topic "the programs are built" "$here/build.sh" plain "$prefix" "$work/plain"
topic "one version in Cargo.toml, qbm.h, qbm.pc and the library; a session survives abort()" versions
topic "the library exports what was reviewed" symbols
topic "error buffers of any version" "$work/plain/buffers"
topic "every error path" "$here/errors.sh" "$prefix/include/qbm.h" "$root/qbm-ffi/qbm.map" "$work" "$work/plain/errors"
topic "dlopen() and dlclose()" "$work/plain/dlopen" "$library" "$work/version.qbm"
topic "16 threads write while bitmaps change" "$work/plain/threads" "$work/threads.qbm" "${QBM_SEED:-1}"
topic "the same, killed" "$work/plain/threads" "$work/killed.qbm" "${QBM_SEED:-1}" 8
topic "C programs, qemu-img and QEMU exclude each other" "$here/locks.sh" "$prefix/bin" "$work/plain/hold" "$work"
topic "valgrind" "$here/checked.sh" valgrind "$work/plain" "$library" "$work"
topic "the programs are built with ASan and UBSan" "$here/build.sh" address - "$work/address"
topic "ASan and UBSan" "$here/checked.sh" address "$work/address" "$work/address/libqbm.so" "$work"

topic "a panic at every storage operation" "$here/panic.sh" "$prefix"
topic "make install and uninstall, pkg-config, man pages" "$here/install.sh"
topic "the ABI is the committed one" "$here/abi.sh"
topic "the example programs" "$here/examples.sh" "$prefix" "$work/examples"
topic "a killed backup goes on" "$here/kill-backup.sh" "$prefix" "$work/kill"

echo "c: $passed passed, $failed failed"
[ "$failed" = 0 ]
