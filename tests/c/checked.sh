#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Every program beneath something that looks at memory: checked.sh valgrind|address PROGRAMS LIBRARY WORK
#
# PROGRAMS is what build.sh made: plain for valgrind, address for itself. The canaries show that what they must find is
# found, in the programs and in the library.
set -euo pipefail

checker=$1
programs=$2
library=$3
work=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

beneath=(env ASAN_OPTIONS=detect_leaks=1:exitcode=9 UBSAN_OPTIONS=print_stacktrace=1)
beneath_forks=("${beneath[@]}")
rounds=100
bugs=(use-after-free leak library-writes-freed handle-leak overflow)
if [ "$checker" = valgrind ]; then
    beneath=(valgrind --quiet --error-exitcode=9 --leak-check=full --child-silent-after-fork=yes --track-fds=yes
        "--errors-for-leak-kinds=definite,indirect,possible" --log-file="$work/valgrind.%p")
    # To valgrind 3.24 what a child has open at its end is an error, too; the program counts for itself.
    beneath_forks=("${beneath[@]}" --track-fds=no)
    # So is what it inherits. bash reads this script from 255.
    for fd in "/proc/$$/fd"/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || [ "$fd" = 255 ] || exec {fd}>&-
    done
    # It reads the library's symbols each time.
    rounds=10
    bugs=(use-after-free leak library-writes-freed handle-leak)
fi

# What valgrind has to say; descriptors that are open at the end are no error to it.
complaints() {
    cat "$work"/valgrind.* 2> /dev/null |
        awk '/Open file descriptor/ { open = $0; getline; if (!/inherited from parent/) print open; next }
             /FILE DESCRIPTORS/ || /^==[0-9]+== *$/ || /inherited from parent/ { next } { print }'
    rm -f "$work"/valgrind.*
}

passed=0
passes() {
    local name said
    name=$(printf '%s\n' "$@" | grep -m 1 "^$programs/")
    "$@" > "$work/out" 2> "$work/err" || {
        echo "error: beneath $checker: $name: exit $?" >&2
        cat "$work/out" "$work/err" >&2
        complaints >&2
        exit 1
    }
    said=$(complaints)
    [ -z "$said" ] || { printf 'error: beneath %s: %s\n%s\n' "$checker" "$name" "$said" >&2; exit 1; }
    passed=$((passed + 1))
}

rm -f "$work"/memory.qbm* "$work"/valgrind.*
passes "${beneath[@]}" "$programs/canary" none "$work/memory.qbm"
for bug in "${bugs[@]}"; do
    if "${beneath[@]}" "$programs/canary" "$bug" "$work/memory.qbm" > "$work/out" 2> "$work/err"; then
        echo "error: $checker does not find: $bug" >&2
        exit 1
    fi
    rm -f "$work"/valgrind.*
done

passes "${beneath[@]}" "$programs/buffers"
passes "${beneath[@]}" "$programs/session" "$work/session-$checker.qbm"
passes "${beneath[@]}" "$programs/dlopen" "$library" "$work/session-$checker.qbm" "$rounds"
passes "${beneath[@]}" "$programs/threads" "$work/threads-$checker.qbm"
passes "${beneath[@]}" "$programs/threads" "$work/killed-$checker.qbm" 1 2
passes "$here/errors.sh" "$root/include/qbm.h" "$root/qbm-ffi/qbm.map" "$work" "$programs/errors" "${beneath_forks[@]}"
echo "$passed programs; all ${#bugs[@]} bugs that were planted"
