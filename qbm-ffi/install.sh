#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Installs libqbm: install.sh DESTDIR PREFIX LIBDIR
#
# rustc ignores a version script for a cdylib, so the shared library is linked here from the static one: exactly the
# symbols of qbm.map come out, with their versions.
set -eu

destdir=$1 prefix=$2 libdir=$3
root=$(cd "$(dirname "$0")/.." && pwd)
cargo=${CARGO:-cargo}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
# The soname changes when the ABI breaks, not when the crate's version does.
soname=libqbm.so.0
real=libqbm.so.0.2.0

cd "$root"
target=${CARGO_TARGET_DIR:-target}
build() {
    "$cargo" rustc --release --locked --quiet -p qbm-ffi --features c-library --crate-type staticlib -- --print native-static-libs
}
# What the static library needs from the system, as rustc says it.
libs=$(build 2>&1 | sed -n 's/^note: native-static-libs: //p' | tail -n 1)
[ -n "$libs" ] || {
    # Nothing was compiled, so nothing was printed: compile this one crate again.
    "$cargo" clean --release --quiet -p qbm-ffi
    log=$(build 2>&1) || { printf '%s\n' "$log" >&2; exit 1; }
    libs=$(printf '%s\n' "$log" | sed -n 's/^note: native-static-libs: //p' | tail -n 1)
}
[ -f "$target/release/libqbm.a" ] || { build >&2; exit 1; }

install -d "$destdir$libdir/pkgconfig" "$destdir$prefix/include"
# shellcheck disable=SC2086 # a list of flags
${CC:-cc} -shared -o "$destdir$libdir/$real" \
    -Wl,--whole-archive "$target/release/libqbm.a" -Wl,--no-whole-archive \
    -Wl,--gc-sections -Wl,-z,relro,-z,now -Wl,-s \
    -Wl,-soname,$soname -Wl,--version-script="qbm-ffi/qbm.map" $libs
ln -sf $real "$destdir$libdir/$soname"
ln -sf $soname "$destdir$libdir/libqbm.so"
install -m 644 "$target/release/libqbm.a" "$destdir$libdir/libqbm.a"
install -m 644 include/qbm.h "$destdir$prefix/include/qbm.h"
cat > "$destdir$libdir/pkgconfig/qbm.pc" <<PC
prefix=$prefix
libdir=$libdir
includedir=\${prefix}/include

Name: qbm
Description: Persistent dirty bitmaps for any disk image
Version: $version
Libs: -L\${libdir} -lqbm
Libs.private: $libs
Cflags: -I\${includedir}
PC
