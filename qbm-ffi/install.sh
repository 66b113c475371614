#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds, installs and removes libqbm: install.sh build|install|install-strip|uninstall
#
# Environment: PREFIX and what stands below it (LIBDIR, INCLUDEDIR, MANDIR, DOCDIR, PKGCONFIGDIR); DESTDIR, put before
# all of them; CARGO, CARGO_TARGET_DIR, CC, CFLAGS, LDFLAGS, STRIP. Only `build` needs cargo and a compiler: where there
# is no cargo, as often under sudo, `install` takes what `build` left.
set -eu

say() { printf 'libqbm: %s\n' "$*" >&2; }
die() { printf 'install.sh: error: %s\n' "$*" >&2; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
case $version in
*[!0-9.]* | '') die "Cargo.toml: version: \"$version\" is not a version" ;;
esac
# The soname changes when the ABI breaks, not when the version does.
soname=libqbm.so.0
real=libqbm.so.$version

prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
libdir=${LIBDIR:-$prefix/lib}
includedir=${INCLUDEDIR:-$prefix/include}
mandir=${MANDIR:-$prefix/share/man}
docdir=${DOCDIR:-$prefix/share/doc/libqbm}
pkgconfigdir=${PKGCONFIGDIR:-$libdir/pkgconfig}
# What is installed: the archive, what it needs from the system, the shared library.
stage=${CARGO_TARGET_DIR:-target}/libqbm

# rustc ignores a version script for a cdylib, so the shared library is linked here from the static one: exactly the
# symbols of qbm.map come out, with their versions.
build() {
    mkdir -p "$stage"
    say "building $version"
    # cargo repeats what rustc printed when there is nothing to compile.
    "${CARGO:-cargo}" rustc --release --locked -p qbm-ffi --features c-library --crate-type staticlib \
        --message-format json-render-diagnostics \
        -- --print native-static-libs > "$stage/cargo.json" 2> "$stage/cargo.log" || {
        cat "$stage/cargo.log" >&2
        die "cargo failed"
    }
    archive=$(sed -n 's/.*"filenames":\["\([^"]*\/libqbm\.a\)"\].*/\1/p' "$stage/cargo.json")
    [ -f "$archive" ] || die "cargo names no libqbm.a: see $stage/cargo.json"
    libs=$(sed -n 's/.*native-static-libs: *//p' "$stage/cargo.log")
    [ -n "$libs" ] || die "rustc names no native-static-libs: see $stage/cargo.log"
    rm -f "$stage/libqbm.a"
    ln "$archive" "$stage/libqbm.a" 2> /dev/null || cp "$archive" "$stage/libqbm.a"
    # As cargo does for what it links itself: without debug information unless it was asked for. That of the standard
    # library is three quarters of the file.
    debug=-Wl,--strip-debug
    [ -z "${CARGO_PROFILE_RELEASE_DEBUG:-}" ] || debug=
    # shellcheck disable=SC2086 # lists of flags
    ${CC:-cc} ${CFLAGS:-} -shared -o "$stage/$real" $debug \
        -Wl,--whole-archive "$stage/libqbm.a" -Wl,--no-whole-archive \
        -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,noexecstack,-z,text -Wl,--as-needed \
        -Wl,-soname,$soname -Wl,--version-script=qbm-ffi/qbm.map ${LDFLAGS:-} $libs ||
        die "linking $real failed"
    # The compiler adds these two itself, the one that fits: for -static there is no libgcc_s.
    printf '%s\n' "$libs" | sed 's/-lgcc_s *//; s/ *-lc$//' > "$stage/libs"
}

# What `build` left, if it is newer than what it was made from.
built() {
    for file in "$real" libqbm.a libs; do
        [ -s "$stage/$file" ] || die "cargo is not in PATH, and $stage/$file is missing: run \`make\` first"
    done
    newer=$(find Cargo.toml Cargo.lock qbm-core/Cargo.toml qbm-core/src qbm-ffi/Cargo.toml qbm-ffi/qbm.map qbm-ffi/src \
        -type f -newer "$stage/$real" | head -n 1)
    [ -z "$newer" ] || die "cargo is not in PATH, and $newer is newer than $stage/$real: run \`make\` first"
}

# A directory as the .pc file has it: relative to the prefix where that holds it, so that the tree can be moved.
below_prefix() {
    # shellcheck disable=SC2016 # pkg-config expands it
    case $1 in
    "$prefix"/*) printf '${prefix}%s' "${1#"$prefix"}" ;;
    *) printf '%s' "$1" ;;
    esac
}

pkgconfig() {
    cat << PC
prefix=$prefix
libdir=$(below_prefix "$libdir")
includedir=$(below_prefix "$includedir")

Name: qbm
Description: Persistent dirty bitmaps for any disk image
Version: $version
Libs: -L\${libdir} -lqbm
Libs.private: $(cat "$stage/libs")
Cflags: -I\${includedir}
PC
}

# put MODE FILE... DIRECTORY, the last one below DESTDIR
put() {
    mode=$1
    shift
    for directory; do :; done
    install -d "$destdir$directory"
    while [ $# -gt 1 ]; do
        install -m "$mode" "$1" "$destdir$directory/"
        shift
    done
}

install_files() {
    put 755 "$stage/$real" "$libdir"
    # The library that this one takes the place of.
    old=$(readlink "$destdir$libdir/$soname" || :)
    case $old in
    */* | "$real" | '') ;;
    libqbm.so.*) rm -f "$destdir$libdir/$old" ;;
    esac
    ln -sf "$real" "$destdir$libdir/$soname"
    ln -sf "$soname" "$destdir$libdir/libqbm.so"
    put 644 "$stage/libqbm.a" "$libdir"
    put 644 include/qbm.h "$includedir"
    pkgconfig > "$stage/qbm.pc"
    put 644 "$stage/qbm.pc" "$pkgconfigdir"
    for section in 3 5 7; do
        put 644 qbm-ffi/man/man$section/*.$section "$mandir/man$section"
    done
    put 644 qbm-ffi/README.md LICENSE-APACHE LICENSE-MIT "$docdir"
    for file in qbm-ffi/examples/*.c; do
        [ ! -f "$file" ] || put 644 "$file" "$docdir/examples"
    done
}

uninstall_files() {
    rm -f "$destdir$libdir/libqbm.so" "$destdir$libdir/$soname" "$destdir$libdir/$real" "$destdir$libdir/libqbm.a" \
        "$destdir$includedir/qbm.h" "$destdir$pkgconfigdir/qbm.pc"
    for section in 3 5 7; do
        for file in qbm-ffi/man/man"$section"/*; do
            rm -f "$destdir$mandir/man$section/${file##*/}"
        done
    done
    for file in qbm-ffi/examples/*.c; do
        rm -f "$destdir$docdir/examples/${file##*/}"
    done
    for file in README.md LICENSE-APACHE LICENSE-MIT; do
        rm -f "$destdir$docdir/$file"
    done
    # These two are nobody else's.
    for directory in "$destdir$docdir/examples" "$destdir$docdir"; do
        [ ! -d "$directory" ] || rmdir "$directory" 2> /dev/null || :
    done
}

# Programs look for libraries in a cache of the system's; that of a staging directory is not this system's.
refresh_cache() {
    if [ -n "$destdir" ] || [ "$(id -u)" != 0 ]; then
        return
    fi
    # What `su` leaves out of PATH.
    PATH=$PATH:/usr/sbin:/sbin ldconfig || say "ldconfig failed: run it for programs to find $soname"
}

for directory in "$prefix" "$libdir" "$includedir" "$mandir" "$docdir" "$pkgconfigdir"; do
    case $directory in
    /*) ;;
    *) die "$directory is not an absolute path" ;;
    esac
done
case ${1:-} in
build) build ;;
install | install-strip)
    if command -v "${CARGO:-cargo}" > /dev/null; then build; else built; fi
    install_files
    [ "$1" = install ] || "${STRIP:-strip}" --strip-unneeded "$destdir$libdir/$real"
    refresh_cache
    say "installed $version below $destdir$prefix; next: man libqbm"
    ;;
uninstall)
    uninstall_files
    refresh_cache
    ;;
*) die "usage: install.sh build|install|install-strip|uninstall" ;;
esac
