#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The installed library, as a C programmer meets it: run.sh PREFIX
set -euo pipefail

prefix=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
passed=0
ok() { echo "ok: $*"; passed=$((passed + 1)); }

read -ra cflags <<< "$(pkg-config --cflags qbm)"
read -ra libs <<< "$(pkg-config --libs qbm)"
strict=(-Wall -Wextra -pedantic -Werror)

echo '#include <qbm.h>' > "$work/alone.c"
cp "$work/alone.c" "$work/alone.cc"
cc -std=c99 "${strict[@]}" "${cflags[@]}" -fsyntax-only "$work/alone.c"
c++ -std=c++11 "${strict[@]}" "${cflags[@]}" -fsyntax-only "$work/alone.cc"
ok "the header stands alone in C99 and C++11"

cc -std=gnu99 "${strict[@]}" -g "${cflags[@]}" -o "$work/session" "$here/session.c" "${libs[@]}"
cc -std=c99 "${strict[@]}" "${cflags[@]}" -o "$work/hold" "$here/hold.c" "${libs[@]}"
pairs=$("$here/locks.sh" "$prefix/bin" "$work/hold" "$work")
ok "a C program, qemu-img and QEMU exclude each other as they should: $pairs"

version=$("$work/session" "$work/x.qbm")
ok "a session in C survives abort()"

[ "$version" = "$(pkg-config --modversion qbm)" ]
[ "$version" = "$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)" ]
ok "one version in Cargo.toml, qbm.pc and the library: $version"

nm -D --defined-only "$prefix/lib/libqbm.so.0" | sed -n 's/.* T \([^@]*\)@@.*/\1/p' | sort > "$work/exported"
sed -n 's/^    \(qbm_[a-z_]*\);$/\1/p' "$root/qbm-ffi/qbm.map" | sort > "$work/reviewed"
diff "$work/reviewed" "$work/exported"
ok "the library exports the $(wc -l < "$work/reviewed") reviewed symbols and no other"

if command -v valgrind > /dev/null; then
    rm -f "$work"/x.qbm*
    valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite,indirect,possible \
        --child-silent-after-fork=yes --error-exitcode=9 "$work/session" "$work/x.qbm" > /dev/null
    ok "valgrind finds nothing"
else
    echo "skipped: valgrind is not installed"
fi

echo "c: $passed passed, 0 failed"
