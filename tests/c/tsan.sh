#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The threads beneath ThreadSanitizer: tsan.sh [SEED...]
#
# Needs a nightly toolchain with rust-src, which no version pins: it is no part of `make test`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -gt 0 ] || set -- 1 2 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TSAN_OPTIONS=exitcode=9

"$here/build.sh" thread - "$work/thread"
if "$work/thread/canary" race "$work/canary.qbm" > "$work/out" 2>&1; then
    echo "error: a data race is not found" >&2
    exit 1
fi
for seed; do
    "$work/thread/threads" "$work/threads.qbm" "$seed"
done
echo "tsan: 0 races, and the one that was planted"
