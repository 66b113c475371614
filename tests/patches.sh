#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What QEMU asks of a submission: each series in qemu-glue/patches applies to the QEMU that it is for, in its order, and
# checkpatch.pl finds neither an error nor a warning in its patches and the driver's files, all of which are built. And
# qemu-glue's README says what each patch is for.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
glue=$root/qemu-glue
cache=${QBM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qbm}
work=$(mktemp -d -t qbm-patches-XXXXXX)
trap 'rm -rf "$work"' EXIT
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

check_series() {
    local series=$1 version=${1##*/} suite source tree patch file said subject
    suite=$("$glue/suite.sh" "$version")
    [ -e "$cache/source/$suite/VERSION" ] || "$glue/packages.sh" dpkg-dev python3 >&2
    source=$("$glue/source.sh" "$cache/source" "$suite")
    [ "$(cut -d. -f1,2 "$source/VERSION")" = "$version" ] || fail "$source is not of QEMU $version"
    # Of a whole QEMU git would take long: what the series touches is enough
    tree=$work/$version
    mkdir "$tree"
    git -C "$tree" init -q
    sed -n 's,^diff --git a/\(.*\) b/\(.*\)$,\1\n\2,p' "$series"/*.patch | sort -u | while read -r file; do
        [ ! -e "$source/$file" ] || (cd "$source" && cp --parents "$file" "$tree")
    done
    git -C "$tree" add -A
    git -C "$tree" commit -q -m "QEMU $version"
    git -C "$tree" am -q "$series"/*.patch || fail "QEMU $version: the series does not apply"
    git -C "$tree" log --format=%s -n "$(find "$series" -name '*.patch' | wc -l)" | while read -r subject; do
        grep -qF "**$subject.**" "$glue/README.md" || fail "qemu-glue/README.md does not say what this patch is for: $subject"
    done

    # checkpatch looks for its helpers beside itself
    for patch in "$series"/*.patch; do
        said=$(perl "$source/scripts/checkpatch.pl" --no-tree --strict --terse "$patch") && continue
        # What a test prints has no line for a license: no output of QEMU's has
        if grep -v -e "Does new file '.*\.out\.qbm' need 'SPDX" -e '^total: ' <<< "$said" ||
            ! grep -q '^total: 0 errors,' <<< "$said"; then
            fail "checkpatch: $patch"
        fi
    done
    perl "$source/scripts/checkpatch.pl" --no-tree --strict --terse -f "$glue"/*.[ch] || fail "checkpatch: the driver"
    for file in "$glue"/*.c; do
        grep -q "'${file##*/}'" "$tree/block/meson.build" || fail "QEMU $version would be built without ${file##*/}"
    done
}

for series in "$glue"/patches/*; do
    check_series "$series"
done
echo "patches: 0 complaints"
