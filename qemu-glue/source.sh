#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Gets QEMU's source as a suite of Debian ships it, unpacked with Debian's patches,
# into DIR/SUITE, and prints that directory. What is there already is used as it is,
# without asking the network for news; to get a newer one, remove DIR/SUITE.
#
#   source.sh DIR SUITE
#
# The download goes through an apt configuration of its own inside DIR: the
# machine's sources and package lists are read, never changed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -eq 2 ] || { echo "usage: ${0##*/} DIR SUITE" >&2; exit 2; }
suite=$2
mkdir -p "$1"
dir=$(cd "$1" && pwd)

if [ ! -e "$dir/$suite/VERSION" ]; then
    # Of its own: the other suite may be on its way, too.
    work=$(mktemp -d "$dir/.work-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/{sources,lists/partial,archives/partial}

    list='' parts=''
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    printf '%s\n' "$list" "$parts"/*.sources "$parts"/*.list |
        python3 "$here/debian-source.py" "$suite" > "$work/sources/qbm.sources"
    cat > "$work/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::State::Lists "$work/lists";
Dir::Cache "$work";
Acquire::Retries "3";
CONF
    # As root, apt would drop to a user who cannot write here.
    [ "$(id -u)" -ne 0 ] || echo 'APT::Sandbox::User "root";' >> "$work/apt.conf"
    export APT_CONFIG=$work/apt.conf

    cd "$work"
    apt-get -q update >&2
    apt-get -q source --download-only qemu >&2
    dpkg-source -x qemu_*.dsc unpacked >&2
    # A rename, so that an interrupted run leaves nothing that looks complete.
    cd "$dir"
    mv -T "$work/unpacked" "$dir/$suite" || [ -e "$dir/$suite/VERSION" ]
fi
echo "$dir/$suite"
