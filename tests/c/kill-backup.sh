#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# qbm-backup killed at random moments, 200 times: kill-backup.sh PREFIX DIRECTORY [SEED [KILLS]]
set -euo pipefail

prefix=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$2"
work=$(cd "$2" && pwd)
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
read -ra flags <<< "$(pkg-config --cflags --libs qbm)"
strict=(-Wall -Wextra -pedantic -Werror -O2)

cc -std=c99 "${strict[@]}" "$prefix/share/doc/libqbm/examples/qbm-backup.c" "${flags[@]}" -o "$work/qbm-backup"
cc -std=c99 "${strict[@]}" "$here/kill-backup.c" "${flags[@]}" -o "$work/kill-backup"

# What a killed process leaves is in the page cache: where there is one without a disk, nobody waits for it.
disks=$(mktemp -d -p /dev/shm 2> /dev/null || mktemp -d -p "$work")
trap 'rm -rf "$disks"' EXIT
"$work/kill-backup" "${3:-$((RANDOM * 32768 + RANDOM))}" "${4:-200}" "$work/qbm-backup" "$disks"
