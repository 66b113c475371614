#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Prints the suite of Debian that ships a version of QEMU: suite.sh 10.0|7.2
set -euo pipefail

case ${1-} in
10.0) echo trixie ;;
7.2) echo bookworm ;;
*)
    echo "error: the version of QEMU must be 10.0 or 7.2, not '${1-}'" >&2
    exit 2
    ;;
esac
