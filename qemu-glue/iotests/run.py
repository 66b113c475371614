#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs QEMU's block test-suite for the format qbm and judges what comes out.

Each test runs in a `check` of its own, with a time limit, in directories of its own.  What it has to do stands in the
list; anything else is a failure of the run, also a test that passes although its failure is expected.

The last line on stdout is `passed N failed N notrun N`.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PASS, FLAKY, FAIL, NOTRUN, SKIP, OVERRIDE = "pass", "flaky", "fail", "notrun", "skip", "override"
# How often a test that did not do what it has to do is run again, alone
REPEATS, FLAKY_REPEATS = 1, 4
# A skipped test whose reason begins so is counted.
BACKING = "backing"
SECONDS_MAX = 120
# What each process of a test has in its environment: where the test runs
MARK = "QBM_IOTESTS_PLACE"


def stop(text):
    sys.exit(f"error: {text}")


def parse_list(path):
    """The expectation of each test: word, how much of it fails or None, reason.  The tests with an output of qbm's."""
    tests, overrides = {}, {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path.name}:{number}"
        word, name, *reason = line.split(maxsplit=2)
        word, _, parts = word.partition(":")
        into = overrides if word == OVERRIDE else tests
        if word not in (PASS, FLAKY, FAIL, NOTRUN, SKIP, OVERRIDE):
            stop(f"{where}: '{word}' is no expectation")
        # A number says what fails, so that anything else that does is noticed
        if (word == FAIL) != parts.isdigit():
            stop(f"{where}: {name}: 'fail:N' says how much fails, no other word does")
        if name in into:
            stop(f"{where}: {name} stands there twice")
        if word != PASS and not reason:
            stop(f"{where}: {name}: the reason is missing")
        into[name] = (word, int(parts) if parts else None, reason[0] if reason else "")
    return tests, overrides


def check_overrides(overrides, tests, suite):
    """Each file with an expected output of qbm's has its reason in the list, and the other way round."""
    paths = {path.name[:-len(".out.qbm")]: path for path in suite.rglob("*.out.qbm")}
    files = paths.keys()
    for name in sorted(files - overrides.keys()):
        stop(f"{name}.out.qbm: the list has no reason for it")
    for name in sorted(overrides.keys() - files):
        stop(f"the list gives a reason for {name}.out.qbm, which is not there")
    for name in sorted(overrides.keys() - tests.keys()):
        stop(f"{name}.out.qbm is for a test that is not in the list")
    for name in sorted(files):
        common = paths[name].with_suffix("")
        if common.exists() and common.read_bytes() == paths[name].read_bytes():
            stop(f"{name}.out.qbm is the same as {name}.out")


def check_names(tests, suite):
    """Each test of the list is there, and each test that formats with bitmaps or all formats have is in the list."""
    paths = {path.name: path for place in (suite, suite / "tests") for path in place.iterdir()
             if path.is_file() and re.fullmatch(r"\d{3}|[a-z][a-z0-9-]*", path.name) and os.access(path, os.X_OK)
             and (place != suite or path.name[0].isdigit())}
    for name in sorted(tests.keys() - paths.keys()):
        stop(f"{name} of the list is no test")
    ours = re.compile(r"^_supported_fmt.*\b(?:qbm|generic)\b|supported_fmts=.*\b(?:qbm|generic)\b", re.MULTILINE)
    for name in sorted(paths.keys() - tests.keys()):
        if ours.search(paths[name].read_text(encoding="utf-8", errors="replace")):
            stop(f"{name} runs for qbm, but the list does not say what it has to do")


def leftovers(place):
    """The processes that a test left behind, in whatever session they are."""
    mark = f"{MARK}={place}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                yield int(directory.name)
        except OSError:
            pass


def kill_leftovers(place):
    """Returns the names of those that were there."""
    names = []
    deadline = time.monotonic() + 10
    # One that is about to die may just be starting another
    while (pids := list(leftovers(place))) and time.monotonic() < deadline:
        for pid in pids:
            try:
                names.append(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip())
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.01)
    return names


class Runner:
    def __init__(self, work, suite, environment):
        self.work = work
        self.suite = suite
        self.environment = environment

    def run(self, name):
        """Runs one test.  Returns 'pass', 'fail' or 'notrun', and what `check` printed."""
        place = self.work / "run" / name
        shutil.rmtree(place, ignore_errors=True)
        # The path of a socket is short
        scratch, sockets = place / "scratch", Path("/tmp") / f"qbm-iot-{os.getpid()}-{name}"
        build = place / "build" / "tests" / "qemu-iotests"
        for directory in (scratch, sockets, build):
            directory.mkdir(parents=True)
        environment = dict(self.environment, TEST_DIR=str(scratch), SOCK_DIR=str(sockets), **{MARK: str(place)})
        command = [sys.executable, str(self.suite / "check"), "--build-dir", str(build),
                   "--source-dir", str(self.suite), "-qbm", name]
        # Not a pipe, which whoever is left behind would keep open
        with open(place / "output", "w+", encoding="utf-8", errors="replace") as output:
            process = subprocess.Popen(command, cwd=build, env=environment, stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=subprocess.STDOUT)
            try:
                returncode = process.wait(timeout=SECONDS_MAX)
            except subprocess.TimeoutExpired:
                returncode = 1
                print(f"\nended after {SECONDS_MAX} seconds", file=output)
            left = kill_leftovers(place)
            process.wait()
            if left:
                print(f"\nleft behind: {' '.join(left)}", file=output)
            output.seek(0)
            text = output.read()
        shutil.rmtree(sockets, ignore_errors=True)
        if returncode != 0:
            return "fail", text
        shutil.rmtree(scratch, ignore_errors=True)
        ran = re.search(r"^Passed all (\d+) iotests$", text, re.MULTILINE)
        return ("pass" if ran and int(ran[1]) > 0 else "notrun"), text


def failed_parts(output):
    """How many cases of a Python test failed, as unittest counts them, or lines of the expected output did not come."""
    diff = re.search(r"^--- .*\n\+\+\+ .*\n(?:[-+@ ].*\n|\n)*", output, re.MULTILINE)
    if not diff:
        return None
    found = re.search(r"^\+FAILED \((.*)\)$", diff[0], re.MULTILINE)
    if found:
        return sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", found[1])))
    return len(re.findall(r"^-(?!-- )", diff[0], re.MULTILINE))


def judge(expected, parts, outcome, output):
    """Returns what is counted, and what is wrong or None."""
    if outcome == expected == FAIL and failed_parts(output) != parts:
        return "fail", f"{failed_parts(output)} of its cases or lines fail, not {parts}"
    if outcome == expected:
        return ("pass" if outcome == "fail" else outcome), None
    if expected == FAIL and outcome == "pass":
        return "fail", "passes, although the list expects it to fail"
    if outcome == "notrun":
        return "fail", "was not run"
    if expected == NOTRUN:
        return "fail", "ran, although the list says that it cannot"
    return "fail", "failed"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="directory for copies and results")
    parser.add_argument("--suite", type=Path, required=True, help="patched tests/qemu-iotests")
    parser.add_argument("--list", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*", help="tests to run, in the list or not (default: all of the list)")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tests, overrides = parse_list(arguments.list)
    check_overrides(overrides, tests, arguments.suite)
    check_names(tests, arguments.suite)
    names = arguments.names or [name for name, (word, _, _) in tests.items() if word != SKIP]
    skipped = [] if arguments.names else [reason for word, _, reason in tests.values() if word == SKIP]

    runner = Runner(arguments.work, arguments.suite, dict(os.environ))
    counts = {"pass": 0, "fail": 0, "notrun": 0}

    def finish(name, outcome, output, may_repeat, repeated=False):
        expected, parts, _ = tests.get(name, (PASS, None, ""))
        counted, wrong = judge(PASS if expected in (SKIP, FLAKY) else expected, parts, outcome, output)
        if wrong and may_repeat:
            return False
        counts[counted] += 1
        if wrong:
            print(f"{name}: {wrong}; see {arguments.work}/run/{name}/output", flush=True)
            if arguments.names:
                print(output, flush=True)
        elif repeated:
            print(f"{name}: as expected when run again, alone", flush=True)
        return True

    again = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = {pool.submit(runner.run, name): name for name in names}
        try:
            for future in concurrent.futures.as_completed(running):
                outcome, output = future.result()
                if not finish(running[future], outcome, output, may_repeat=True):
                    again.append(running[future])
        except BaseException:
            for future in running:
                future.cancel()
            for name in names:
                kill_leftovers(arguments.work / "run" / name)
            raise
    # Some are sensitive to load
    for name in again:
        left = FLAKY_REPEATS if tests.get(name, (PASS,))[0] == FLAKY else REPEATS
        while not finish(name, *runner.run(name), may_repeat=left > 1, repeated=True):
            left -= 1

    if skipped:
        waiting = sum(reason.startswith(BACKING) for reason in skipped)
        print(f"left out: {waiting} that need backing files, {len(skipped) - waiting} for other reasons, see the list")
    print(f"passed {counts['pass']} failed {counts['fail']} notrun {counts['notrun']}")
    sys.exit(1 if counts["fail"] else 0)


main()
