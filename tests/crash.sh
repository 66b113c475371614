#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Kills QEMU with SIGKILL under random load, 50 times in a row or as often as the
# first argument says, and shows after each kill how many changed blocks the bitmap
# missed (none, ever) and how many it marks without need.
#
#   tests/crash.sh [ROUNDS [SEED]]

exec "$(dirname -- "$0")/run.sh" crash "$@"
