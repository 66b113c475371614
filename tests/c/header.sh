#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The header stands alone in every C and C++, and its layout is the reviewed one: header.sh PREFIX WORK
set -euo pipefail

prefix=$1
work=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
read -ra cflags <<< "$(pkg-config --cflags qbm)"
header=$prefix/include/qbm.h

# Twice: it guards itself.
printf '#include <qbm.h>\n#include <qbm.h>\n' > "$work/alone.c"
cp "$work/alone.c" "$work/alone.cc"
strict=(-Wall -Wextra -pedantic -Werror -fsyntax-only)
dialects=0
for standard in c99 c11 c17; do
    cc "-std=$standard" "${strict[@]}" -Wc++-compat -Wstrict-prototypes -Wconversion "${cflags[@]}" "$work/alone.c"
    dialects=$((dialects + 1))
done
for standard in c++11 c++17 c++20; do
    c++ "-std=$standard" "${strict[@]}" -Wconversion "${cflags[@]}" "$work/alone.cc"
    dialects=$((dialects + 1))
done
# Nothing but its own names, and the standard's.
foreign=$(cc -dM -E "${cflags[@]}" "$work/alone.c" > "$work/with"
    printf '#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n' | cc -dM -E -xc - |
        grep -vxFf - "$work/with" | grep -v '^#define QBM_' || true)
[ -z "$foreign" ] || { echo "error: the header defines: $foreign" >&2; exit 1; }

cc -std=c11 "${strict[@]}" "${cflags[@]}" "$here/layout.c"

# The two lists say the same, and name all that the header has.
list() { sed -nE 's/^ *((SIZE|MEMBER|CONSTANT)\((qbm|QBM)_.*\))$/\1/p' "$1" | sort; }
list "$here/layout.c" > "$work/layout.c.list"
list "$root/qbm-ffi/src/layout.rs" > "$work/layout.rs.list"
diff "$work/layout.c.list" "$work/layout.rs.list"
{
    sed -nE 's/^#define (QBM_[A-Z0-9_]+) (.+)$/CONSTANT(\1, \2)/p' "$header"
    awk '
        /^ *\/\*$/ { comment = 1 }
        /^ *\*\/$/ { comment = 0 }
        comment { next }
        /^typedef struct qbm_[a-z_]+ \{/ { type = $3; print "SIZE(" type ","; next }
        type && /^}/ { type = "" }
        type && /;$/ {
            name = $NF
            gsub(/[*;]|\[.*\]/, "", name)
            print "MEMBER(" type ", " name ","
        }
    ' "$header"
} > "$work/public"
missing=0
while read -r entry; do
    grep -qF "$entry" "$work/layout.c.list" || { echo "error: layout.c lacks $entry" >&2; missing=1; }
done < "$work/public"
[ "$missing" = 0 ]
[ "$(wc -l < "$work/public")" = "$(wc -l < "$work/layout.c.list")" ] ||
    { echo "error: layout.c has what the header does not" >&2; exit 1; }
echo "$dialects dialects, $(wc -l < "$work/public") entries"
