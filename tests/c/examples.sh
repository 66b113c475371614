#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The example programs, built and used as their readers would: examples.sh PREFIX DIRECTORY
set -euo pipefail
trap 'echo "error: examples.sh:$LINENO: $BASH_COMMAND" >&2' ERR

prefix=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
examples=$prefix/share/doc/libqbm/examples
mkdir -p "$2/bin"
work=$(cd "$2" && pwd)
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib PATH=$work/bin:$PATH
# What the system says is looked for in English.
export LC_ALL=C
strict=(-std=c99 -Wall -Wextra -pedantic -Werror -O2)

# shellcheck disable=SC2046 # lists of flags
build() {
    cc "${strict[@]}" "$1" $(pkg-config --cflags --libs qbm) -o "$work/bin/$(basename "$1" .c)"
}
for program in qbm-info qbm-backup qbm-verify; do
    build "$examples/$program.c"
done
build "$here/disk.c"
build "$here/hold.c"
cd "$work"

checks=0
# expect CODE PATTERN COMMAND...: how it ends, and what it says on stdout or stderr.
expect() {
    local code=$1 pattern=$2 got=0
    shift 2
    "$@" > said 2>&1 || got=$?
    if [ "$got" != "$code" ] || { [ -n "$pattern" ] && ! grep -qE -- "$pattern" said; }; then
        echo "error: $*: exit $got, expected $code with '$pattern':" >&2
        cat said >&2
        exit 1
    fi
    checks=$((checks + 1))
}
same() { expect 0 '' cmp "$1" "$2"; }
# What a run of qbm-backup is to copy; then target and disk are the same.
copies() {
    expect 0 "^$4: up to date: $1 of $1 bytes copied" qbm-backup "$2" "$3" "$4"
    same "$4" "$2.raw"
}
# Writes behind QBM's back.
meddle() { printf '%s' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
all=10485760

for program in qbm-info qbm-backup qbm-verify; do
    expect 0 "^usage: $program" "$program" --help
    expect 2 "^usage: $program" "$program"
done
expect 2 usage qbm-backup --checkpoint 0 d.qbm daily copy
expect 2 usage qbm-backup --checkpoint 64M d.qbm daily copy
expect 2 usage qbm-info --yaml d.qbm

# First copy, increments.
disk d.qbm create $all process
disk d.qbm write 1000000 300000 a
copies $all d.qbm daily copy
copies 0 d.qbm daily copy
disk d.qbm write 5000000 1 b
disk d.qbm write 65536 65536 a
expect 0 '"daily": granularity 65536, recording, 131072 bytes dirty, 43 bytes of user data' qbm-info d.qbm
expect 0 '^state: closed$' qbm-info d.qbm
cp copy previous
expect 0 '^131072 bytes of a disk of 10485760 differ' qbm-verify previous d.qbm daily
disk d.qbm write 0 1 c
disk d.qbm write 131072 65536 d
expect 0 '^262144 bytes are marked, 0 of them in vain' qbm-verify previous d.qbm daily
copies 262144 d.qbm daily copy
disk d.qbm write 65536 65536 a
expect 0 '^65536 bytes are marked, 65536 of them in vain' qbm-verify copy d.qbm daily
expect 0 '^0 bytes are missed' qbm-verify copy d.qbm daily

# A file that ends within a sector.
disk odd.qbm create 2097152 process
disk odd.qbm truncate 1000001
disk odd.qbm write 999990 10 x
copies 1000448 odd.qbm daily odd.copy
disk odd.qbm write 1000000 1 y
copies 17408 odd.qbm daily odd.copy
expect 0 '^0 bytes are missed' qbm-verify odd.copy odd.qbm daily
copies 0 odd.qbm daily odd.copy

# A block that the bitmap lacks: nothing but the oracle can tell.
cp copy previous
touch -r d.qbm.raw times
meddle d.qbm.raw 9000000 '!!!'
touch -r times d.qbm.raw
expect 1 '^missed: 65536 bytes at 8978432$' qbm-verify previous d.qbm daily
expect 1 '^65536 bytes are missed$' qbm-verify previous d.qbm daily
expect 2 "own data" qbm-verify d.qbm.raw d.qbm daily
expect 2 'no bitmap' qbm-verify previous d.qbm weekly
expect 2 'nowhere: cannot open: No such file' qbm-verify nowhere d.qbm daily

# Where the times tell, everything is copied.
meddle d.qbm.raw 9000000 '???'
expect 0 'inconsistent: good for removal only' qbm-info d.qbm
expect 2 'inconsistent' qbm-verify previous d.qbm daily
expect 0 'inconsistent, and made anew' qbm-backup d.qbm daily copy
same copy d.qbm.raw
copies 0 d.qbm daily copy
disk fine.qbm create 1048576 process
disk fine.qbm add daily 4096
meddle fine.qbm.raw 0 '!!!'
copies 1048576 fine.qbm daily fine.copy
expect 0 '"daily": granularity 4096, recording, 0 bytes dirty' qbm-info fine.qbm

# Another target, none, an empty one, one from another time.
disk d.qbm write 200000 10 e
copies $all d.qbm daily other
disk d.qbm write 300000 10 f
copies $all d.qbm daily copy
rm copy
copies $all d.qbm daily copy
: > copy
copies $all d.qbm daily copy
mkdir kept
cp copy copy.qbm-backup kept
disk d.qbm write 400000 10 g
copies 65536 d.qbm daily copy
disk d.qbm write 500000 10 h
cp kept/* .
copies $all d.qbm daily copy

# What is not a target of ours stays as it is.
echo precious > letter
expect 1 'letter: exists, and is not known to be a copy' qbm-backup d.qbm daily letter
echo precious > letter.qbm-backup
for bitmap in daily new; do
    expect 1 'letter.qbm-backup: was not written by qbm-backup' qbm-backup d.qbm $bitmap letter
done
[ "$(cat letter letter.qbm-backup | uniq -c | tr -s ' ')" = ' 2 precious' ]
ln d.qbm.raw alias
expect 1 'belongs to the image itself' qbm-backup d.qbm daily alias
expect 1 'belongs to the image itself' qbm-backup d.qbm daily d.qbm
expect 1 'exists, and is not known' qbm-backup d.qbm daily d.qbm.daily.bitmap
expect 1 'is not a regular file' qbm-backup d.qbm daily /dev/null
mkfifo pipe
expect 1 'is not a regular file' qbm-backup d.qbm daily pipe
expect 1 'kept: cannot open: Is a directory' qbm-backup d.qbm daily kept
expect 1 'nowhere/copy: cannot open: No such file' qbm-backup d.qbm daily nowhere/copy
disk d.qbm add theirs 4096
disk d.qbm tag theirs 'of another program'
expect 1 'carries user data of another program' qbm-backup d.qbm theirs third
copies 0 d.qbm daily copy

# A bitmap that did not record; a name that a terminal would obey.
disk d.qbm disable daily
disk d.qbm write 600000 10 i
copies $all d.qbm daily copy
disk d.qbm add "$(printf 'a\033[2J"\302\233')" 65536
expect 0 '"a\\u001b\[2J\\"\\u009b": granularity' qbm-info d.qbm
if command -v python3 > /dev/null; then
    qbm-info --json d.qbm | python3 -c '
import json, sys
image = json.load(sys.stdin)
names = sorted(bitmap["name"] for bitmap in image["bitmaps"])
assert names == ["a\x1b[2J\"\x9b", "daily", "new", "theirs"], names
assert (image["state"], image["size-bytes"]) == ("closed", 10485760), image
'
    checks=$((checks + 1))
else
    echo "skipped: python3 is not installed, nobody reads the JSON" >&2
fi

# The disk is resized.
disk d.qbm write 10000000 1000 j
disk d.qbm truncate 12582912
expect 0 "up to date" qbm-backup d.qbm daily copy
same copy d.qbm.raw
disk d.qbm truncate 5242880
copies 0 d.qbm daily copy
expect 0 '^0 bytes of a disk of 5242880 differ' qbm-verify copy d.qbm daily

# Other users of the image.
# Tries for two minutes.
soon() {
    for _ in $(seq 2400); do
        if "$@" 2> /dev/null; then
            return
        fi
        sleep 0.05
    done
    echo "error: still not true: $*" >&2
    exit 1
}
take() {
    exec 9> >(exec hold "$1" d.qbm > held)
    soon grep -q length held
}
leave() {
    exec 9>&-
    soon disk d.qbm write 0 1 k
    rm held
}
take write
expect 3 'lock|in use|another process' qbm-backup d.qbm daily copy
expect 2 'lock|in use|another process' qbm-verify copy d.qbm daily
expect 0 '^state: in use by another process$' qbm-info d.qbm
expect 0 '"daily": granularity 65536, recording, in use, 43 bytes' qbm-info d.qbm
leave
take read
expect 3 'lock|in use|another process' qbm-backup d.qbm daily copy
expect 0 'bytes are missed' qbm-verify copy d.qbm daily
expect 0 '^state: closed$' qbm-info d.qbm
leave

# Stopped in the middle: what was copied is not copied again. Nor where bitmaps are to survive clean closes only.
disk big.qbm create 2147483648 close
disk big.qbm write 1500000000 5000000 l
tags_differ() { [ -e big.copy.qbm-backup ] && [ "$(cat big.copy.qbm-backup)" != "$1" ]; }
# Starts a copy, and halts it before it has ended.
halt() {
    local tags
    tags=$(cat big.copy.qbm-backup 2> /dev/null || true)
    qbm-backup --checkpoint "$1" big.qbm daily big.copy > halted 2>&1 &
    halted=$!
    soon tags_differ "$tags"
    kill -STOP $halted
}
left() { qbm-info big.qbm 2> /dev/null | sed -n 's/.* \([0-9]*\) bytes dirty.*/\1/p'; }
halt 4294967296
expect 0 '^state: in use by another process$' qbm-info big.qbm
expect 3 'big.copy: cannot lock' qbm-backup d.qbm daily big.copy
kill -TERM $halted
kill -CONT $halted
expect 143 '' wait $halted
copied=$(sed -n 's/.*big.copy: not finished: \([0-9]*\) of 2147483648 bytes copied$/\1/p' halted)
[ "$copied" -gt 0 ]
[ "$(left)" = $((2147483648 - copied)) ]
halt 1048576
kill -KILL $halted
expect 137 '' wait $halted 2> /dev/null
expect 0 '^state: not closed cleanly$' qbm-info big.qbm
left=$(left)
[ "$left" -lt 2147483648 ]
expect 0 "up to date: $left of $left bytes copied" qbm-backup big.qbm daily big.copy
expect 0 '^0 bytes of a disk of 2147483648 differ' qbm-verify big.copy big.qbm daily
[ "$(stat -c %b big.copy)" -lt 100000 ]

# Progress is for terminals.
expect 0 'up to date' qbm-backup d.qbm daily other
if grep -q MiB said; then
    echo "error: progress without a terminal" >&2
    exit 1
fi
if command -v script > /dev/null; then
    expect 0 'MiB' script -qec 'qbm-backup d.qbm daily copy' /dev/null
else
    echo "skipped: script is not installed, there is no terminal for progress" >&2
fi

# No space for the target; afterwards there is some.
if unshare -rm true 2> /dev/null; then
    # shellcheck disable=SC2016 # for the inner shell
    expect 0 'up to date' unshare -rm bash -euc '
        mkdir small
        mount -t tmpfs -o size=16m none small
        head -c 15M /dev/zero > small/filling
        disk d.qbm write 0 3000000 m
        code=0
        qbm-backup --checkpoint 65536 d.qbm daily small/copy || code=$?
        [ $code = 1 ]
        rm small/filling
        qbm-backup d.qbm daily small/copy
        cmp small/copy d.qbm.raw
    '
    cp said full
    expect 0 'small/copy: cannot write at [0-9]+: No space left' cat full
    expect 0 'small/copy: not finished: [1-9][0-9]* of' cat full
else
    echo "skipped: unshare -rm is not allowed, no file system can be full" >&2
fi

# Damage.
mv d.qbm.raw elsewhere
expect 1 'd.qbm.raw' qbm-backup d.qbm daily copy
expect 1 'No such file' qbm-info d.qbm
mv elsewhere d.qbm.raw
head -c 100 d.qbm > torn.qbm
expect 1 'torn.qbm' qbm-info torn.qbm
expect 1 'torn.qbm' qbm-backup torn.qbm daily fourth
expect 2 'torn.qbm' qbm-verify copy torn.qbm daily
[ ! -e fourth ]

echo "examples: $checks checks"
