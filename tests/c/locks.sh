#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A C program, qemu-img and QEMU exclude each other as they should: locks.sh BIN HOLD DIRECTORY
# FORMAT: L1 L2 L3
set -euo pipefail

bin=$1
hold=$2
cd "$3"
"$bin/qemu-img" create -q -f qbm locked.qbm 1M
"$bin/qemu-img" bitmap -f qbm --add locked.qbm b0
mkfifo input

# Starts a holder, and waits until it has the image.
take() {
    case $1 in
    qemu-write) "$bin/qemu-io" -f qbm locked.qbm < input > output & ;;
    qemu-read) "$bin/qemu-io" -r -f qbm locked.qbm < input > output & ;;
    qemu-shared) "$bin/qemu-io" -r -U -f qbm locked.qbm < input > output & ;;
    raw-write) "$bin/qemu-io" -f raw locked.qbm.raw < input > output & ;;
    raw-read) "$bin/qemu-io" -r -f raw locked.qbm.raw < input > output & ;;
    *) "$hold" "${1#c-}" locked.qbm < input > output & ;;
    esac
    holder=$!
    exec 9> input
    echo length >&9
    for _ in $(seq 1200); do
        # What qemu-io answers, or the C program says.
        if grep -qE 'MiB|length' output; then
            return
        fi
        sleep 0.05
    done
    echo "error: $1 did not get the image" >&2
    exit 1
}

leave() {
    exec 9>&-
    wait "$holder"
}

# Whether somebody gets the image as well.
gets() {
    case $1 in
    qemu-write) "$bin/qemu-io" -f qbm -c length locked.qbm ;;
    qemu-read) "$bin/qemu-io" -r -f qbm -c length locked.qbm ;;
    qemu-shared) "$bin/qemu-io" -r -U -f qbm -c length locked.qbm ;;
    raw-write) "$bin/qemu-io" -f raw -c length locked.qbm.raw ;;
    raw-read) "$bin/qemu-io" -r -f raw -c length locked.qbm.raw ;;
    qemu-info) "$bin/qemu-img" info locked.qbm ;;
    qemu-info-shared) "$bin/qemu-img" info -U locked.qbm ;;
    *) "$hold" "${1#c-}" locked.qbm < /dev/null ;;
    esac > other 2>&1
}

pairs=0
expect() {
    local holder_kind=$1 verdict=$2 other
    shift 2
    take "$holder_kind"
    for other in "$@"; do
        if gets "$other"; then got=with; else got=without; fi
        if [ "$got" != "$verdict" ]; then
            echo "error: $other beside $holder_kind: expected $verdict, got $got: $(cat other)" >&2
            exit 1
        fi
        if [ "$got" = without ] && ! grep -qiE 'lock|another process' other; then
            echo "error: $other beside $holder_kind does not say why: $(cat other)" >&2
            exit 1
        fi
        pairs=$((pairs + 1))
    done
    leave
}

for writer in c-write qemu-write; do
    expect "$writer" without c-write c-read qemu-write qemu-read qemu-info
    expect "$writer" with c-shared qemu-shared qemu-info-shared
done
for reader in c-read qemu-read; do
    expect "$reader" without c-write qemu-write
    expect "$reader" with c-read c-shared qemu-read qemu-shared qemu-info qemu-info-shared
done
for shared in c-shared qemu-shared; do
    expect "$shared" with c-write c-read c-shared qemu-write qemu-read qemu-shared qemu-info
done
# Who opens the data image through the library, and who opens it past the descriptor. qemu-io itself shares a raw image
# with everybody; it is the library that keeps writers away, and does not open what one has.
expect c-data-write without c-write c-read c-data-write c-data-read qemu-write qemu-read qemu-info raw-write
expect c-data-write with c-shared qemu-info-shared raw-read
expect c-data-read without c-write c-data-write qemu-write raw-write
expect c-data-read with c-read c-data-read c-shared qemu-read qemu-info raw-read
expect raw-write without c-data-write c-data-read
expect raw-read with c-data-write c-data-read
for writer in c-write qemu-write; do
    expect "$writer" without c-data-write c-data-read
done
for reader in c-read qemu-read; do
    expect "$reader" without c-data-write
    expect "$reader" with c-data-read
done
# Nobody beside a writer changed anything: the bitmap is as it was.
"$bin/qemu-img" info locked.qbm | grep -q 'name: b0'
echo "$pairs pairs"
