#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Fuzzes qbm-core. Each target gets SECONDS (default: 60), all targets unless some are
# named. Fails on a crash, an input that takes longer than a second, or one that has
# more than 64 MiB allocated at once. What is found stays in tests/fuzz/artifacts.
#
#   tests/fuzz.sh [SECONDS [TARGET...]]
#
# The corpus that is kept in the tree is read, never written: a run adds to a copy in
# the cache, from where `cargo fuzz cmin` takes what is worth keeping.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${QBM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qbm}
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- descriptor bitmap_file operations

# libFuzzer is C++.
qemu-glue/packages.sh g++ libc6-dev

PATH=$PATH:$cache/cargo-fuzz/bin
command -v cargo-fuzz > /dev/null || {
    echo "fuzz.sh: installing cargo-fuzz" >&2
    cargo install cargo-fuzz --locked --quiet --root "$cache/cargo-fuzz" --target-dir "$cache/cargo-fuzz/target"
    rm -rf "$cache/cargo-fuzz/target"
}

# cargo-fuzz would bring a stale lock file up to date, and change the tree.
cargo fetch --locked --quiet --manifest-path tests/fuzz/Cargo.toml || {
    echo "fuzz.sh: bring tests/fuzz/Cargo.lock up to date: cargo update -w --manifest-path tests/fuzz/Cargo.toml" >&2
    exit 1
}

# cargo-fuzz wants a nightly toolchain; the stable one does, if told to act like it.
export RUSTC_BOOTSTRAP=1
# The core has no unsafe code for AddressSanitizer to look into, and runs six times as
# fast without. QBM_FUZZ_SANITIZER=address looks at the crates that it uses.
options=(--fuzz-dir tests/fuzz --sanitizer "${QBM_FUZZ_SANITIZER:-none}")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo fuzz build "${options[@]}" > "$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}

# Whether an input that took too long is fast enough when it is run again: other programs share this machine.
is_fast() {
    for _ in 1 2 3; do
        if cargo fuzz run "$1" "${options[@]}" "$2" -- -timeout=1 > /dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

found=0
for target; do
    corpus=$cache/fuzz/$target
    mkdir -p "$corpus"
    cp -n "tests/fuzz/corpus/$target/"* "$corpus/"
    arguments=(
        -timeout=1 -max_len=1048575
        -malloc_limit_mb=64 -rss_limit_mb=1024 -print_final_stats=1
    )
    dictionary=tests/fuzz/$target.dict
    [ ! -f "$dictionary" ] || arguments+=(-dict="$dictionary")
    end=$((SECONDS + seconds))
    while ! cargo fuzz run "$target" "${options[@]}" "$corpus" -- \
        "${arguments[@]}" -max_total_time=$((end - SECONDS)) > "$log" 2>&1; do
        artifact=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        if ! grep -qa '^SUMMARY: libFuzzer: timeout' "$log" || ! is_fast "$target" "$artifact"; then
            found=1
            grep -aE -A 3 'panicked at|ERROR: libFuzzer|^(SUMMARY|artifact_prefix)' "$log" || tail -n 40 "$log"
            echo "$target: found something, kept in the file that is named above; again with:"
            echo "    QBM_FUZZ_SHOW=1 RUSTC_BOOTSTRAP=1 cargo fuzz run ${options[*]} $target FILE"
            continue 2
        fi
        echo "$target: an input took over a second, and less when it was run again: the machine was busy"
        rm "$artifact"
        [ "$SECONDS" -lt "$end" ] || break
    done
    executed=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: //p' "$log")
    slowest=$(sed -n 's/^stat::slowest_unit_time_sec: //p' "$log")
    memory=$(sed -n 's/^stat::peak_rss_mb: //p' "$log")
    coverage=$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -n 1)
    echo "$target: $executed executions, $rate a second, slowest ${slowest}s, ${memory} MiB, $coverage"
done
exit "$found"
