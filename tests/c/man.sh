#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The installed man pages are well-formed, and their programs do what they say: man.sh PREFIX
#
# A program is an example with a main(); the example after it is what a terminal shows: commands after "$ ", and what
# they print. libqbm(3) comes first: every other page begins with what its tour leaves.
set -euo pipefail

prefix=$1
man=$prefix/share/man
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
mapfile -t pages < <(grep -L '^\.so ' "$man"/man[357]/*)

for page in "${pages[@]}"; do
    if command -v groff > /dev/null; then
        groff -t -man -ww -Tutf8 -z -rLL=78n "$page" 2>> "$work/complaints"
    fi
    if command -v mandoc > /dev/null; then
        mandoc -Tlint -W warning "$page" >> "$work/complaints" || true
    fi
done
for tool in groff mandoc; do
    command -v "$tool" > /dev/null || echo "skipped: $tool is not installed" >&2
done
if [ -s "$work/complaints" ]; then
    cat "$work/complaints" >&2
    exit 1
fi

# Every link leads to a page.
for page in "$man"/man3/*; do
    target=$(sed -n 's/^\.so //p' "$page")
    [ -z "$target" ] || [ -s "$man/$target" ] || { echo "error: $page leads to $target" >&2; exit 1; }
done

# examples PAGE: writes the examples of a page to $work/N, as a reader sees them.
examples() {
    rm -f "$work"/[0-9]*
    awk -v work="$work" '
        /^\.EE/ { inside = 0 }
        inside { print > (work "/" count) }
        /^\.EX/ { inside = 1; count++ }
    ' "$1"
    local file
    for file in "$work"/[0-9]*; do
        [ -e "$file" ] || continue
        sed -i 's/^\\&//; s/\\-/-/g; s/\\(aq/'"'"'/g; s/\\(dq/"/g; s/\\(ga/`/g; s/\\(ha/^/g; s/\\(ti/~/g; s/\\e/\\/g' "$file"
    done
}

mkdir "$work/run"
programs=0
for page in "$man/man3/libqbm.3" "${pages[@]/$man\/man3\/libqbm.3/}"; do
    [ -n "$page" ] || continue
    examples "$page"
    [ ! -e "$work/tour" ] || { rm -rf "$work/run"; cp -a "$work/tour" "$work/run"; }
    for ((at = 1; ; at++)); do
        [ -e "$work/$at" ] || break
        grep -q '^int main' "$work/$at" || continue
        transcript=$work/$((at + 1))
        name=$(sed -n 's/^\$ cc -o \([a-z]*\) \1\.c .*/\1/p' "$transcript" | head -n 1)
        [ -n "$name" ] || { echo "error: $page: example $at is not compiled by the next one" >&2; exit 1; }
        # Strictly, before the reader's command: the examples are what people copy.
        # shellcheck disable=SC2046 # a list of flags
        cc -std=c99 -D_XOPEN_SOURCE=700 -Wall -Wextra -pedantic -Werror -x c "$work/$at" -o /dev/null \
            $(pkg-config --cflags --libs qbm)
        cp "$work/$at" "$work/run/$name.c"
        while IFS= read -r line; do
            echo "$line"
            case $line in
            '$ '*) (cd "$work/run" && LC_ALL=C sh -c "${line#\$ }" 2> "$work/stderr") || echo "(failed: $(cat "$work/stderr"))" ;;
            esac
        done < <(grep '^\$ ' "$transcript") > "$work/shown"
        diff -u "$transcript" "$work/shown" >&2 ||
            { echo "error: ${page##*/}: $name shows something else" >&2; exit 1; }
        programs=$((programs + 1))
    done
    # With its times: a data image that has another one was changed by somebody else.
    [ -e "$work/tour" ] || cp -a "$work/run" "$work/tour"
done
[ "$programs" -gt 0 ] || { echo "error: no program in $man" >&2; exit 1; }
echo "${#pages[@]} pages, $programs programs"
