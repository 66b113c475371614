#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Kills QEMU with SIGKILL under random load, 50 times in a row or as often as the
# first argument says, and shows after each kill how many changed blocks the bitmap
# missed (none, ever) and how many it marks without need.
#
#   tests/crash.sh [ROUNDS [SEED]]

set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
if [ -z "${QBM_QEMU:-}" ]; then
    QBM_QEMU=$("$top/qemu-glue/build.sh" | tail -n 1)
    export QBM_QEMU
fi
cd "$top"
exec cargo run --quiet --package qbm-e2e --bin crash -- "$@"
