#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What `make install` puts in place, as a distribution and a C programmer meet it: install.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
stage=${CARGO_TARGET_DIR:-$root/target}/libqbm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "error: install.sh: $*" >&2; exit 1; }
ok() { echo "ok: install: $*"; }
run() { make -s --no-print-directory -C "$root" "$@"; }
files() { (cd "$1" && find . -not -type d | LC_ALL=C sort); }

# As a package is built: everything below DESTDIR, and every directory chosen.
dest="$work/with space"
chosen=(PREFIX=/usr LIBDIR=/usr/lib/triplet "DESTDIR=$dest")
run install "${chosen[@]}"
{
    echo ./usr/include/qbm.h
    printf './usr/lib/triplet/%s\n' libqbm.a libqbm.so libqbm.so.0 "libqbm.so.$version" pkgconfig/qbm.pc
    (cd "$root/qbm-ffi/man" && printf './usr/share/man/%s\n' man?/*)
    printf './usr/share/doc/libqbm/%s\n' LICENSE-APACHE LICENSE-MIT README.md
    (cd "$root/qbm-ffi" && find examples -name '*.c' -printf './usr/share/doc/libqbm/%p\n' 2> /dev/null) || true
} | LC_ALL=C sort > "$work/expected"
files "$dest" | diff "$work/expected" - || die "other files than expected"
[ -z "$(find "$dest" -type f -perm /022)" ] || die "files that others may write"
[ "$(readlink "$dest/usr/lib/triplet/libqbm.so")" = libqbm.so.0 ]
[ "$(readlink "$dest/usr/lib/triplet/libqbm.so.0")" = "libqbm.so.$version" ]
! grep -rqF "$root" "$dest/usr/lib/triplet/pkgconfig" "$dest/usr/include" "$dest/usr/share" || die "a path of the source tree is installed"
ok "$(wc -l < "$work/expected") files below DESTDIR, in the directories that were chosen"

run install "${chosen[@]}"
! grep -q Compiling "$stage/cargo.log" || die "the second run compiles: $(cat "$stage/cargo.log")"
CARGO=/nonexistent run install "${chosen[@]}"
ok "installing again compiles nothing, and needs no cargo"

# What was installed by an older version of the library, and somebody else's files.
touch "$dest/usr/lib/triplet/libqbm.so.0.0.1" "$dest/usr/share/man/man3/other.3"
ln -sf libqbm.so.0.0.1 "$dest/usr/lib/triplet/libqbm.so.0"
run install "${chosen[@]}"
run uninstall "${chosen[@]}"
[ "$(files "$dest")" = ./usr/share/man/man3/other.3 ] || die "uninstall leaves: $(files "$dest")"
[ ! -e "$dest/usr/share/doc/libqbm" ] || die "uninstall leaves its directory"
run uninstall "${chosen[@]}"
ok "uninstalling leaves nothing, and takes nothing of others"

# Errors are errors.
for wrong in CC=false CARGO=false PREFIX=relative LIBDIR=relative LDFLAGS=-lnowhere; do
    if run install "DESTDIR=$work/wrong" "$wrong" > "$work/output" 2>&1; then
        die "$wrong is no error"
    fi
    grep -q '^install.sh: error: ' "$work/output" || die "$wrong: $(cat "$work/output")"
    [ ! -e "$work/wrong" ] || die "$wrong: something was installed"
done
: > "$work/file"
if run install PREFIX="$work/file" > /dev/null 2>&1; then
    die "a file in the place of a directory is no error"
fi
ok "what fails says so"

prefix=$work/usr
run install PREFIX="$prefix"
library=$prefix/lib/libqbm.so.$version

# Exactly the reviewed symbols, each in its node.
awk '/^QBM_[0-9.]+ \{/ { node = $1 } /^ *qbm_[a-z0-9_]*;/ { sub(/;/, "", $1); print $1 "@@" node }' \
    "$root/qbm-ffi/qbm.map" | LC_ALL=C sort > "$work/reviewed"
nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort | diff "$work/reviewed" - ||
    die "the library exports other symbols than qbm.map"
readelf -dW "$library" > "$work/dynamic"
readelf -lW "$library" > "$work/segments"
! grep -E 'TEXTREL|RPATH|RUNPATH' "$work/dynamic" || die "relocations in the text, or a path"
grep -q 'SONAME.*\[libqbm.so.0\]' "$work/dynamic"
grep -q BIND_NOW "$work/dynamic" || die "symbols are bound late"
grep -q GNU_RELRO "$work/segments" || die "relocations stay writable"
grep -q 'GNU_STACK.* RW ' "$work/segments" || die "an executable stack"
needed=$(sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' "$work/dynamic" | grep -vE '^(libc|libgcc_s|ld-linux.*)\.so\.' || true)
[ -z "$needed" ] || die "needs $needed"
# No constructors but those of the C runtime and, to learn argv, of Rust's standard library.
bytes=$(readelf -dW "$library" | sed -n 's/.*INIT_ARRAYSZ.* \([0-9]*\) (bytes)/\1/p')
[ "$bytes" -le 16 ] || die "$((bytes / 8)) constructors"
ok "$(wc -l < "$work/reviewed") versioned symbols, no constructor, needs $(grep -c NEEDED "$work/dynamic") libraries, $(stat -c %s "$library") bytes"

run install-strip PREFIX="$work/stripped" STRIP="${STRIP:-strip}"
[ -z "$(nm "$work/stripped/lib/libqbm.so.$version" 2> /dev/null)" ] || die "install-strip leaves symbols"
[ "$(stat -c %s "$work/stripped/lib/libqbm.so.$version")" -lt "$(stat -c %s "$library")" ]

# pkg-config, where the tree is: as installed, in a sysroot, moved.
export PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig
cat > "$work/prog.c" << 'C'
#include <stdio.h>
#include <qbm.h>
int main(void)
{
    return puts(qbm_version()) < 0;
}
C
# compile OUTPUT [PKG-CONFIG-OPTION [CC-OPTION]]
compile() {
    local flags
    read -ra flags <<< "$(pkg-config ${2:+"$2"} --cflags --libs qbm)"
    cc ${3:+"$3"} -o "$1" "$work/prog.c" "${flags[@]}" || die "$*: does not compile"
}
compile "$work/shared"
[ "$(LD_LIBRARY_PATH=$prefix/lib "$work/shared")" = "$version" ]
[ "$(pkg-config --modversion qbm)" = "$version" ]
run install PREFIX=/usr DESTDIR="$work/sysroot"
export PKG_CONFIG_LIBDIR=$work/sysroot/usr/lib/pkgconfig
[ "$(pkg-config --cflags --libs qbm | xargs)" = -lqbm ] || die "qbm.pc of /usr: $(pkg-config --cflags --libs qbm)"
PKG_CONFIG_SYSROOT_DIR=$work/sysroot compile "$work/in-sysroot"

# With the archive alone.
cp -a "$prefix" "$work/archive"
rm "$work"/archive/lib/libqbm.so*
PKG_CONFIG_LIBDIR=$work/archive/lib/pkgconfig
sed -i "s|^prefix=.*|prefix=$work/archive|" "$PKG_CONFIG_LIBDIR/qbm.pc"
for kind in '' -static-pie -static; do
    compile "$work/static" --static "$kind"
    [ "$("$work/static")" = "$version" ] || die "cc $kind: does not run"
done
ok "programs link with pkg-config: shared, in a sysroot, with the archive alone, -static-pie, -static"

pages=$("$here/man.sh" "$prefix")
ok "man: $pages"
