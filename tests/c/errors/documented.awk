# SPDX-License-Identifier: MIT OR Apache-2.0
# Reads qbm.h; prints "FUNCTION ERRNO" for each error that the header names for a function. "As qbm_x()" takes over its.

/^\/\*$/ { comment = 1; text = ""; next }
/^ \*\/$/ { comment = 0; next }
comment { text = text " " $0; next }
/^[a-z].*qbm_[a-z_]+\(/ {
    match($0, /qbm_[a-z_]+\(/)
    function_name = substr($0, RSTART, RLENGTH - 1)
    order[++count] = function_name
    says[function_name] = text
    text = ""
}

function print_of(function_name, from, depth,    rest, name, seen) {
    rest = says[from]
    while (match(rest, /-E[A-Z0-9]+/)) {
        name = substr(rest, RSTART + 1, RLENGTH - 1)
        rest = substr(rest, RSTART + RLENGTH)
        print function_name, name
    }
    rest = says[from]
    # Where errors are taken over: "Errors: as qbm_x()", "As qbm_x(), for ...", "as qbm_x(), with its errors".
    while (depth < 3 && match(rest, /([Ee]rrors: as|As|in parallel as) qbm_[a-z_]+\(\)/)) {
        name = substr(rest, RSTART, RLENGTH - 2)
        sub(/.* /, "", name)
        rest = substr(rest, RSTART + RLENGTH)
        print_of(function_name, name, depth + 1)
    }
}

END {
    for (number = 1; number <= count; number++) {
        print_of(order[number], order[number], 0)
    }
}
