#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Gets, patches, configures and builds QEMU with the qbm driver and libqbm. The last
# (and only) line on stdout is the directory that holds bin/ and lib/; what is going
# on is told on stderr. When the result for what is in the checkout is there already,
# that is all it does.
#
#   build.sh
#
# Environment:
#   QBM_CACHE         where everything is kept (default: ${XDG_CACHE_HOME:-~/.cache}/qbm)
#   QBM_QEMU_VERSION  10.0, Debian 13's (default), or 7.2, Debian 12's
#   QEMU_SRC          build this QEMU tree, which is copied, instead of Debian's
#   QBM_JOBS          how many compilers to run at once (default: one for each processor)
#
# The cache, from what changes least to what changes most:
#   source/       QEMU as Debian ships it, one for each suite
#   venv/         meson
#   tree-*/       one for each QEMU, patch series and set of configure options:
#                 src/ (patched), build/ (where ninja finds what there is to do) and
#                 qbm/ (the libqbm that QEMU is linked with)
#   qemu-*/       results, one for each state of the checkout
# Each is complete when it has its final name or, inside, its stamp; what an
# interrupted run left is done again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${QBM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qbm}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
log=$cache/build.log
# What one tree compiled is of use to the next, if the compiler is run by ccache.
export CCACHE_BASEDIR=$cache CCACHE_NOHASHDIR=1
results_kept=6
trees_kept=2 # of each version

qemu_version=${QBM_QEMU_VERSION:-10.0}
suite=$("$here/suite.sh" "$qemu_version")

programs=(
    qemu-img qemu-io qemu-nbd
    storage-daemon/qemu-storage-daemon
    qemu-system-x86_64
)

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Runs a command with its output in the log, without the lock: what it may leave
# running must not hold it.
logged() {
    { echo; echo "+ $*"; } >> "$log"
    "$@" >> "$log" 2>&1 9>&- || {
        local status=$?
        say "failed (exit status $status): $*"
        say "the end of $log:"
        # Command lines of a linker are long, and say little.
        tail -n 40 "$log" | cut -c1-400 >&2
        exit 1
    }
}

hash_stdin() { sha256sum | cut -c1-16; }

# Names, sizes and times: reading a whole QEMU tree each time would take too long.
hash_listing() {
    (cd "$1" && find . -name .git -prune -o -type f -printf '%P %s %T@\n' |
        LC_ALL=C sort | hash_stdin)
}

hash_contents() {
    (cd "$root" && find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | hash_stdin)
}

# What the result is made from. Tests, benchmarks and texts do not go into it.
hash_checkout() {
    local parts=(qemu-glue qbm-core qbm-ffi include Cargo.toml Makefile)
    [ ! -e "$root/Cargo.lock" ] || parts+=(Cargo.lock)
    hash_contents "${parts[@]}" \
        -not -path '*/target/*' -not -path 'qbm-*/tests/*' -not -path 'qbm-*/benches/*' \
        -not -path 'qbm-*/fuzz/*' -not -path '*/iotests/*' -not -name '*.md' \
        -not -path 'qemu-glue/patches/*' # those are in the tree's key
}

# Finds the pristine source, without getting it: $source, $source_id, $version,
# $patches. Fails when it is not there yet.
locate_source() {
    source=${QEMU_SRC:-$cache/source/$suite}
    [ -e "$source/VERSION" ] && [ -x "$source/configure" ] || return 1
    source=$(cd "$source" && pwd)
    version=$(tr -d '[:space:]' < "$source/VERSION")
    if [ -n "${QEMU_SRC:-}" ]; then
        source_id=$(hash_listing "$source")
    else
        source_id=$(head -n 1 "$source/debian/changelog")
    fi
    patches=$here/patches/$(cut -d. -f1,2 <<< "$version")
    choose_options
    [ -d "$patches" ] ||
        die "no patches for QEMU $version; there are some for $(cd "$here/patches" && echo *)"
}

# Says how this version is configured: $configure_options, $meson_option.
choose_options() {
    local own=(--enable-pixman --disable-fdt)
    meson_option=--python=$cache/venv/bin/python3
    if [ "${version%%.*}" -lt 10 ]; then
        # 7.2 insists on libfdt, for the microvm machine, and takes --python only
        # together with a meson inside its tree.
        own=(--enable-fdt=system)
        meson_option=--meson=$cache/venv/bin/meson
    fi
    configure_options=(
        --target-list=x86_64-softmmu
        --without-default-features
        --enable-tools --enable-system --disable-user
        --enable-tcg --enable-kvm "${own[@]}"
        --enable-linux-aio --enable-linux-io-uring --enable-gcrypt
        --enable-fuse --enable-vhost-user --enable-vhost-user-blk-server
        --enable-qbm
        # A function without a declaration returns an int: half a pointer
        --extra-cflags=-Werror=implicit-function-declaration
        --disable-docs --disable-debug-info --disable-install-blobs
    )
}

# Names what is to be built: $tree, $result. The system is in the keys because the
# binaries need its libraries, and a cache may be seen from several systems.
name_result() {
    local system tree_key result_key
    # shellcheck source=/dev/null
    system=$(. /etc/os-release && echo "$ID ${VERSION_ID:-} $(uname -m)")
    tree_key=$(printf '%s\n' "$source_id" "$system" "${configure_options[@]}" \
        "$(hash_contents "qemu-glue/patches/${patches##*/}" -not -name '*-iotests-*')" | hash_stdin)
    result_key=$(printf '%s\n' "$tree_key" "$(hash_checkout)" | hash_stdin)
    tree=$cache/tree-$version-$tree_key
    result=$cache/qemu-$version-$result_key
}

finish() {
    # The time of its last use, for prune.
    touch "$result/complete"
    echo "$result"
    exit 0
}

finish_if_built() {
    locate_source || return 0
    name_result
    [ ! -e "$result/complete" ] || finish
}

prepare_venv() {
    [ ! -e "$cache/venv/complete" ] || return 0
    say "installing meson from PyPI"
    rm -rf "$cache/venv"
    # The system's python: it is the one that python3-venv belongs to.
    logged /usr/bin/python3 -m venv "$cache/venv"
    logged "$cache/venv/bin/pip" install --disable-pip-version-check 'meson>=1.5'
    touch "$cache/venv/complete"
}

prepare_source() {
    if [ -n "${QEMU_SRC:-}" ]; then
        die "QEMU_SRC=$QEMU_SRC is not a QEMU source tree"
    fi
    say "getting QEMU $qemu_version's source package from Debian's $suite"
    logged "$here/source.sh" "$cache/source" "$suite"
    locate_source || die "no QEMU source in $cache/source"
}

prepare_tree() {
    local patch
    mkdir -p "$tree"
    [ ! -d "$tree/src" ] || return 0
    say "patching QEMU $version"
    rm -rf "$tree/src.new"
    if [ -n "${QEMU_SRC:-}" ]; then
        logged cp -a --reflink=auto "$source" "$tree/src.new"
        # A .git would make QEMU's configure look after submodules.
        rm -rf "$tree/src.new/.git" "$tree/src.new/build"
    else
        # patch and cp --remove-destination replace files, so links will do.
        logged cp -al "$source" "$tree/src.new"
    fi
    for patch in "$patches"/*.patch; do
        # QEMU's tests are patched where they are run (tests/iotests.sh)
        [[ $patch != *-iotests-* ]] || continue
        logged patch -d "$tree/src.new" -p1 --no-backup-if-mismatch -i "$patch"
    done
    mv "$tree/src.new" "$tree/src"
}

# Installs libqbm to be linked with. While neither header nor symbols change, the
# one that is there stays, so that ninja sees no reason to link QEMU again: it
# is linked dynamically, and runs with the library that lies beside it.
prepare_library() {
    local new
    say "building libqbm"
    rm -rf "$tree/stage"
    logged make -C "$root" install PREFIX="$tree/qbm" DESTDIR="$tree/stage"
    new=$tree/stage$tree/qbm
    [ -e "$new/lib/libqbm.so.0" ] || die "make install gave no lib/libqbm.so.0"
    if [ "$(library_interface "$new")" != "$(library_interface "$tree/qbm")" ]; then
        rm -rf "$tree/qbm"
        mv "$new" "$tree/qbm"
    fi
    rm -rf "$tree/stage"
}

library_interface() {
    [ -e "$1/lib/libqbm.so.0" ] || return 0
    cat "$1/include/qbm.h" "$1/lib/pkgconfig/qbm.pc"
    nm -D --defined-only "$1/lib/libqbm.so.0" | cut -d' ' -f2-
}

# Puts the driver's sources into the tree; those that did not change keep their time.
prepare_driver() {
    local file
    for file in "$here"/*.[ch]; do
        [ -e "$file" ] || continue
        cmp -s "$file" "$tree/src/block/${file##*/}" ||
            cp --remove-destination "$file" "$tree/src/block/"
    done
}

# QEMU 7.2 asks libgcrypt-config for the library, which Debian 13 no longer has.
prepare_gcrypt() {
    ! command -v libgcrypt-config > /dev/null || return 0
    mkdir -p "$tree/tools"
    cat > "$tree/tools/libgcrypt-config" << 'SCRIPT'
#!/bin/sh
case $1 in
--version) exec pkg-config --modversion libgcrypt ;;
*) exec pkg-config "$@" libgcrypt ;;
esac
SCRIPT
    chmod +x "$tree/tools/libgcrypt-config"
    PATH=$tree/tools:$PATH
}

configure_tree() {
    if [ -e "$tree/build/configured" ]; then
        # The time of its last use, for prune.
        touch "$tree/build/configured"
        return 0
    fi
    say "configuring QEMU $version"
    rm -rf "$tree/build"
    mkdir "$tree/build"
    # The library beside the program comes first in its run path, before the one it
    # was linked with, which meson adds.
    # shellcheck disable=SC2016  # $ORIGIN is for the dynamic linker
    (cd "$tree/build" &&
        PKG_CONFIG_PATH=$tree/qbm/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} \
            logged "$tree/src/configure" "$meson_option" "${configure_options[@]}" \
            '--extra-ldflags=-Wl,-rpath,$ORIGIN/../lib')
    touch "$tree/build/configured"
}

compile() {
    local note=
    [ -e "$tree/build/qemu-system-x86_64" ] || note=", which takes some minutes"
    say "compiling QEMU $version$note"
    logged ninja -C "$tree/build" ${QBM_JOBS:+-j "$QBM_JOBS"} "${programs[@]}"
}

publish() {
    local new=$result.new program used
    say "installing into $result"
    rm -rf "$new" "$result"
    mkdir -p "$new"
    logged make -C "$root" install PREFIX="$result" DESTDIR="$new/stage"
    mv "$new/stage$result"/* "$new"
    rm -rf "$new/stage"
    mkdir -p "$new/bin"
    for program in "${programs[@]}"; do
        # Copies, since a later build links into the same files.
        cp --reflink=auto "$tree/build/$program" "$new/bin/"
        used=$(ldd "$new/bin/${program##*/}" | sed -n 's/.*libqbm\.so\.0 => \([^ ]*\).*/\1/p')
        [ "$(realpath -m "${used:-none}")" = "$(realpath "$new/lib/libqbm.so.0")" ] ||
            die "${program##*/} would run with ${used:-no libqbm}, not with $new/lib/libqbm.so.0"
    done
    touch "$new/complete"
    check_unchanged "$new"
    mv "$new" "$result"
}

# A result must be what its name says: someone may have edited the checkout meanwhile.
check_unchanged() {
    local named=$result
    name_result
    [ "$named" != "$result" ] || return 0
    say "the checkout has changed meanwhile; building again"
    rm -rf "$1"
    exec "$here/${0##*/}"
}

# Keeps the results that were used last, and all of the last day: someone may be
# running one of them. Likewise for the trees, which are the larger part.
prune() {
    local stale of
    # shellcheck disable=SC2012  # our own names
    { ls -dt "$cache"/qemu-*/complete 2>/dev/null | tail -n "+$((results_kept + 1))"
      for of in 10 7; do
          # There need be none of a version.
          ls -dt "$cache"/tree-"$of".*/build/configured 2>/dev/null |
              tail -n "+$((trees_kept + 1))" || true
      done
    } | while read -r stale; do
        if [ -n "$(find "$stale" -mmin +1440)" ]; then
            stale=${stale%/complete} stale=${stale%/build/configured}
            say "removing $stale, which was not used for a day"
            rm -rf "$stale"
        fi
    done
}

main() {
    finish_if_built

    exec 9> "$cache/lock"
    flock -n 9 || {
        say "waiting for another build in $cache"
        flock 9
        finish_if_built
    }
    : > "$log"

    say "building QEMU with the qbm driver in $cache"
    "$here/packages.sh" 9>&-
    locate_source || prepare_source
    name_result
    prepare_venv
    prepare_tree
    prepare_library
    prepare_driver
    [ "${version%%.*}" -ge 10 ] || prepare_gcrypt
    configure_tree
    compile
    publish
    prune
    say "done"
    finish
}

# All of the script has been read when this runs: it may be edited while it does.
main
