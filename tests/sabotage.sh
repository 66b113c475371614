#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Breaks the engine on purpose, one way at a time, and demands that the simulator's tests notice: a violated invariant, not
# some other failure. Then it demands that the engine as it is passes.
#
#   tests/sabotage.sh [NAME...]        without names: every place that says sabotaged!("NAME") in qbm-core
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

names=("$@")
if [ $# -eq 0 ]; then
    mapfile -t names < <(grep -rhoE 'sabotaged!\("[a-z-]+"\)' qbm-core/src | sed -E 's/.*"(.*)".*/\1/' | sort -u)
fi
log=target/sabotage/log
mkdir -p target/sabotage

# Builds the simulator with one sabotage (none: an empty name), in a target directory of its own, and runs it from its
# first seed on, to so many crash points at most. A wrapper for rustc of each name, so that cargo builds our own crates
# anew for each, and the libraries they use once for all. Each build stays beside the others: as little of it as can be.
simulate() {
    local wrapper=$PWD/target/sabotage/rustc-$1
    local flags=''
    [ -z "$1" ] || flags="--cfg qbm_sabotaged --cfg 'qbm_sabotage=\"$1\"'"
    printf '#!/bin/sh\nexec "$@" %s\n' "$flags" > "$wrapper"
    chmod +x "$wrapper"
    CARGO_TARGET_DIR=target/sabotage RUSTC_WORKSPACE_WRAPPER=$wrapper CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 \
        cargo run --locked --quiet -p qbm-simulator -- --seed 1 --crash-points "$2" > "$log" 2>&1
}

wrong=0
printf '%-30s %s\n' sabotage noticed
for name in "${names[@]}"; do
    if simulate "$name" 3000000; then
        verdict='NOT NOTICED'
        wrong=1
    elif verdict=$(grep -m 1 -oE 'violated I[0-9]: .*' "$log"); then
        verdict=${verdict#violated }
    else
        verdict="FAILED OTHERWISE: $(grep -m 1 -E '^error|panicked|violated' "$log" || echo "see $log")"
        wrong=1
    fi
    printf '%-30s %s\n' "$name" "$verdict"
    [ $wrong -eq 0 ] || cp "$log" "target/sabotage/$name.log"
done
if simulate '' 200000; then
    printf '%-30s %s\n' '(none)' "$(grep -m 1 'crash points' "$log")"
else
    printf '%-30s %s\n' '(none)' "FAILED: $(grep -m 1 -E 'violated|^error|panicked' "$log" || echo "see $log")"
    wrong=1
fi
exit $wrong
