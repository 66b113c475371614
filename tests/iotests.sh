#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Runs QEMU's block test-suite for qbm: iotests.sh [TEST...]. The last line is `passed N failed N notrun N`.
#
# The tests are QEMU's, patched as the series of that version says.
# QBM_IOTESTS_JOBS tests run at once (default: 2). Only with QEMU 10.0: 7.2's suite is another one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
glue=$root/qemu-glue
cache=${QBM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qbm}
version=10.0
QBM_QEMU=$(QBM_QEMU_VERSION=$version "$glue/build.sh")
"$glue/packages.sh" python3 git bc file psmisc seabios ipxe-qemu qemu-system-data >&2
suite_of_debian=$("$glue/suite.sh" "$version")
source=${QEMU_SRC:-$("$glue/source.sh" "$cache/source" "$suite_of_debian")}
found=$(cut -d. -f1,2 "$source/VERSION")
[ "$found" = "$version" ] || { echo "error: the tests are those of QEMU $version; $source is $found" >&2; exit 1; }

# Short, since sockets are made below it, and without a dot, which some tests refuse. Left behind only for who wants to see what failed.
work=$(mktemp -d -t qbm-iotests-XXXXXX)
suite=$work/src/tests/qemu-iotests
mkdir -p "$work/src/tests" "$work/bin"
cp -r "$source/tests/qemu-iotests" "$work/src/tests/"
cp -r "$source/python" "$work/src/"
for patch in "$glue/patches/$version"/*-iotests-*.patch; do
    GIT_CEILING_DIRECTORIES=$work git -C "$work/src" apply --include='tests/qemu-iotests/*' "$patch"
done

# Outputs name the program, so the one that knows the firmware has the same name.
cat > "$work/bin/qemu-system-x86_64" << EOF
#!/bin/sh
exec "$QBM_QEMU/bin/qemu-system-x86_64" -L /usr/share/seabios -L /usr/lib/ipxe/qemu -L /usr/share/qemu "\$@"
EOF
chmod +x "$work/bin/qemu-system-x86_64"
export QEMU_PROG=$work/bin/qemu-system-x86_64
export QEMU_IMG_PROG=$QBM_QEMU/bin/qemu-img QEMU_IO_PROG=$QBM_QEMU/bin/qemu-io
export QEMU_NBD_PROG=$QBM_QEMU/bin/qemu-nbd QSD_PROG=$QBM_QEMU/bin/qemu-storage-daemon

python3 "$glue/iotests/run.py" --work "$work" --suite "$suite" --list "$glue/iotests/list" \
    --jobs "${QBM_IOTESTS_JOBS:-2}" "$@"
rm -rf "$work"
