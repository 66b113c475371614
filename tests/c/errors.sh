#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Every error path once: errors.sh HEADER MAP WORK PROGRAM [PREFIX_COMMAND...]
#
# Every function of the map must have been seen to fail, or to bear what it must; with every errno that the header names.
set -euo pipefail

header=$1
map=$2
work=$3
program=$4
shift 4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What takes more than this: a panic (panic.sh) or a disk that fails (the engine's tests on a simulated one), a block
# device; a discard never needs space; and what takes over another's errors without this one: bits may be merged while frozen.
exempt='^[a-z_]+ EIO$|^qbm_bitmap_merge_bits EBUSY$|^qbm_truncate ENOTSUP$|^qbm_discard ENOSPC$'

rm -rf "$work/errors"
mkdir "$work/errors"
own=()
# A file system of its own can be full.
if unshare -rm true 2> /dev/null; then own=(unshare -rm); fi
"${own[@]}" "$@" "$program" "$work/errors" > "$work/seen" 2> "$work/said" || { cat "$work/said" >&2; exit 1; }
cat "$work/said" >&2
if grep -q '^skipped: a full file system' "$work/said"; then exempt+='| ENOSPC$'; fi
sort -u -o "$work/seen" "$work/seen"

sed -n 's/^    \(qbm_[a-z_]*\);$/\1/p' "$map" | sort > "$work/functions"
untested=$(cut -d' ' -f1 "$work/seen" | sort -u | comm -23 "$work/functions" -)
[ -z "$untested" ] || { echo "error: no error path is tested of: ${untested//$'\n'/ }" >&2; exit 1; }

awk -f "$here/errors/documented.awk" "$header" | grep -vE "$exempt" | sort -u > "$work/documented"
unseen=$(comm -23 "$work/documented" "$work/seen")
[ -z "$unseen" ] || { printf 'error: the header names what no test has seen:\n%s\n' "$unseen" >&2; exit 1; }
echo "$(grep -vc ' 0$' "$work/seen") pairs of function and errno, $(wc -l < "$work/documented") of them in the header"
