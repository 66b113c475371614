#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Installs the Debian packages that are named and missing; without names, those
# that building QEMU needs. Says nothing and asks for no privileges when there is
# nothing to do.
#
#   packages.sh [PACKAGE...]
set -euo pipefail

build_packages=(
    gcc libc6-dev make patch pkg-config ninja-build flex bison
    libglib2.0-dev libpixman-1-dev zlib1g-dev libaio-dev liburing-dev
    libfuse3-dev libgcrypt20-dev libfdt-dev
    python3 python3-venv
    dpkg-dev xz-utils ca-certificates debian-archive-keyring
)

die() { echo "${0##*/}: $*" >&2; exit 1; }

[ $# -gt 0 ] || set -- "${build_packages[@]}"

missing=()
for package; do
    # dpkg-query fails for a package it never heard of: that one is missing too.
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null ||
    die "this is not Debian; install what corresponds to: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
        die "run this as root, or install sudo: packages are missing: ${missing[*]}"
    as_root=(sudo)
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT

# One line for a person to read; what apt has to say only when it fails.
apt() {
    # Another dpkg at work is waited for, not an error.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=600 "$@" >> "$output" 2>&1
}

echo "${0##*/}: installing ${missing[*]}" >&2
# Fails while another apt-get is at the lists. The lists may be good as they are, so
# whether a failure matters shows in the next step.
apt update || { sleep 20; apt update; } || true
apt install -y --no-install-recommends "${missing[@]}" || {
    tail -n 40 "$output" >&2
    die "apt-get failed; its last words are above"
}
