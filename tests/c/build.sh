#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Compiles the C tests: build.sh plain|address|thread PREFIX OUT
#
# plain links them with the library that is installed below PREFIX. The others link what cargo builds with that sanitizer;
# then PREFIX is not looked at. "thread" needs a nightly toolchain with rust-src: std is instrumented too.
set -euo pipefail

kind=$1
prefix=$2
out=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$out"

# The sanitized library; prints the directory that it is in. Its own target directory: the flags are part of every crate.
sanitized() {
    local target=${CARGO_TARGET_DIR:-$root/target}/sanitize-$kind
    (cd "$root" && RUSTFLAGS=-Zsanitizer=$kind CARGO_INCREMENTAL=0 \
        cargo "$@" --locked --quiet -p qbm-ffi --lib --target "$host" --target-dir "$target") >&2
    echo "$target/$host/debug"
}

flags=(-std=gnu11 -g -Wall -Wextra -Werror)
after=()
case $kind in
plain)
    export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    read -ra cflags <<< "$(pkg-config --cflags qbm)"
    read -ra libs <<< "$(pkg-config --libs qbm)"
    flags+=(-pedantic "${cflags[@]}")
    ;;
address)
    directory=$(RUSTC_BOOTSTRAP=1 sanitized build)
    # gcc's runtime serves both; UBSan is for C: what it looks for cannot happen in Rust.
    flags+=("-fsanitize=address,undefined" -fno-sanitize-recover=all -fno-omit-frame-pointer -I"$root/include")
    libs=("$directory/libqbm.a")
    cp "$directory/libqbm.so" "$out/libqbm.so"
    ;;
thread)
    directory=$(sanitized +nightly build -Zbuild-std)
    flags+=(-fsanitize=thread -I"$root/include")
    # gcc's runtime is older than what rustc's code calls: rustc's serves both.
    runtime=$(find "$(rustc +nightly --print sysroot)/lib/rustlib/$host/lib" -name 'librustc*_rt.tsan.a')
    libs=("$directory/libqbm.a")
    after=(-fno-sanitize=thread "-Wl,--export-dynamic" "-Wl,--whole-archive,$runtime,--no-whole-archive" -ldl -lm -lrt)
    ;;
esac

program() {
    local name=$1
    shift
    local sources=("$@") objects=() source object
    for source in "${sources[@]}"; do
        object=$out/$name-$(basename "$source" .c).o
        cc "${flags[@]}" -c -o "$object" "$here/$source"
        objects+=("$object")
    done
    if [ "$kind" = thread ]; then
        cc -o "$out/$name" "${objects[@]}" "${libs[@]}" "${after[@]}" -lpthread
    else
        cc "${flags[@]}" -o "$out/$name" "${objects[@]}" "${libs[@]}" -lpthread
    fi
}

cd "$here"
program threads threads/*.c
# The compiler finds some of its bugs too.
(flags+=(-w) && program canary canary.c)
[ "$kind" != thread ] || exit 0
program session session.c
program hold hold.c
program buffers buffers.c
program errors errors/*.c
libs=(-ldl)
program dlopen dlopen.c
