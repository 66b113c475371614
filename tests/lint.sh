#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What must hold of the text of the tree.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --document-private-items --quiet

missing=$(git ls-files -- '*.rs' '*.c' '*.h' '*.sh' '*.py' '*.toml' '*.map' Makefile .ci/run |
    xargs grep -L 'SPDX-License-Identifier' || true)
[ -z "$missing" ] || {
    printf 'without an SPDX line:\n%s\n' "$missing" >&2
    exit 1
}

if command -v shellcheck > /dev/null; then
    git ls-files -- '*.sh' .ci/run | xargs shellcheck
else
    echo "skipped: shellcheck is not installed" >&2
fi

tests/patches.sh
echo "lint: 0 complaints"
