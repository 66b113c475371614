#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints an apt source (deb822) for the source packages of a Debian suite.

Mirror and keyring are those of the machine's own Debian entry, whatever suite
that entry is for: this way no mirror is written down anywhere, and a machine
behind a local mirror uses it. Nothing of the machine's configuration is changed.

    debian-source.py SUITE < LIST-OF-FILES
"""
import re
import sys

# The suites of the main archive. Security and backports entries name other places.
DEBIAN_SUITES = {
    "bullseye", "bookworm", "trixie", "forky", "duke", "sid",
    "oldoldstable", "oldstable", "stable", "testing", "unstable",
}


def deb822_entries(text):
    """Entries of a .sources file: dictionaries, keys in lower case."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields, key = {}, None
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and key:
                fields[key] += "\n" + line
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields and fields.get("enabled", "yes").lower() not in ("no", "false", "0"):
            yield fields


def one_line_entries(text):
    """Entries of a .list file in the same shape."""
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if not match:
            continue
        options = dict(o.split("=", 1) for o in (match[1] or "").split() if "=" in o)
        fields = {"uris": match[2], "suites": match[3], "components": match[4]}
        if "signed-by" in options:
            fields["signed-by"] = options["signed-by"].replace(",", " ")
        yield fields


def rank(fields):
    """0 for what is surely Debian's archive, 1 for what may be, None for what is not."""
    if not DEBIAN_SUITES & set(fields.get("suites", "").split()):
        return None
    if "main" not in fields.get("components", "").split():
        return None
    # Other archives use Debian's suite names too, but bring a key of their own.
    key = fields.get("signed-by", "")
    return 0 if not key or "debian-archive" in key else 1


def main():
    suite = sys.argv[1]
    found = []
    for path in sys.stdin.read().split("\n"):
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError:
            continue
        entries = deb822_entries if path.endswith(".sources") else one_line_entries
        for fields in entries(text):
            if fields.get("uris") and rank(fields) is not None:
                found.append((rank(fields), len(found), fields))
    if not found:
        sys.exit("no Debian archive in the apt configuration of this machine")
    fields = min(found)[2]
    print("Types: deb-src")
    print("URIs:", fields["uris"].split()[0])
    print("Suites:", suite)
    print("Components: main")
    if fields.get("signed-by"):
        # May also be the key itself, on lines of its own.
        print("Signed-By:", fields["signed-by"])


main()
