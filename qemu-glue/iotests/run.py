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
from pathlib import Path

PASS, FAIL, NOTRUN, SKIP, OVERRIDE = "pass", "fail", "notrun", "skip", "override"
# A skipped test whose reason begins so is counted.
BACKING = "backing"
SECONDS_MAX = 180


def stop(text):
    sys.exit(f"error: {text}")


def parse_list(path):
    """The expectation of each test: word, number of cases that fail or None, reason.  The tests with an output of qbm's."""
    tests, overrides = {}, {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path.name}:{number}"
        word, name, *reason = line.split(maxsplit=2)
        word, _, cases = word.partition(":")
        into = overrides if word == OVERRIDE else tests
        if word not in (PASS, FAIL, NOTRUN, SKIP, OVERRIDE) or cases and not (cases.isdigit() and word == FAIL):
            stop(f"{where}: '{word}' is no expectation")
        if name in into:
            stop(f"{where}: {name} stands there twice")
        if word != PASS and not reason:
            stop(f"{where}: {name}: the reason is missing")
        into[name] = (word, int(cases) if cases else None, reason[0] if reason else "")
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


class Runner:
    def __init__(self, work, suite, environment):
        self.work = work
        self.suite = suite
        self.environment = environment

    def run(self, name):
        """Runs one test.  Returns 'pass', 'fail' or 'notrun', and what `check` printed."""
        place = self.work / "run" / name
        shutil.rmtree(place, ignore_errors=True)
        scratch, sockets = place / "scratch", Path("/tmp") / f"qbm-iot-{os.getpid()}-{name}"
        build = place / "build" / "tests" / "qemu-iotests"
        for directory in (scratch, sockets, build):
            directory.mkdir(parents=True)
        # The path of a socket is short
        environment = dict(self.environment, TEST_DIR=str(scratch), SOCK_DIR=str(sockets))
        command = [sys.executable, str(self.suite / "check"), "--build-dir", str(build),
                   "--source-dir", str(self.suite), "-qbm", name]
        # A session of its own: what a test leaves running is ended with it
        process = subprocess.Popen(command, cwd=build, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                   start_new_session=True)
        try:
            output, _ = process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += f"\nended after {SECONDS_MAX} seconds\n"
            process.returncode = 1
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        shutil.rmtree(sockets, ignore_errors=True)
        (place / "output").write_text(output, encoding="utf-8")
        if process.returncode != 0:
            return "fail", output
        shutil.rmtree(scratch, ignore_errors=True)
        ran = re.search(r"^Passed all (\d+) iotests$", output, re.MULTILINE)
        return ("pass" if ran and int(ran[1]) > 0 else "notrun"), output


def failed_cases(output):
    """How many cases of a Python test failed, as unittest counts them."""
    found = re.search(r"^.FAILED \((.*)\)$", output, re.MULTILINE)
    return sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", found[1]))) if found else None


def judge(expected, cases, outcome, output):
    """Returns what is counted, and what is wrong or None."""
    if outcome == expected == FAIL and cases is not None and failed_cases(output) != cases:
        return "fail", f"{failed_cases(output)} of its cases fail, not {cases}"
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

    tests, overrides = parse_list(arguments.list)
    check_overrides(overrides, tests, arguments.suite)
    for name in tests:
        if not any((arguments.suite / place / name).exists() for place in (".", "tests")):
            stop(f"{name} of the list is no test")
    names = arguments.names or [name for name, (word, _, _) in tests.items() if word != SKIP]
    skipped = [] if arguments.names else [reason for word, _, reason in tests.values() if word == SKIP]

    runner = Runner(arguments.work, arguments.suite, dict(os.environ))
    counts = {"pass": 0, "fail": 0, "notrun": 0}

    def finish(name, outcome, output, may_repeat):
        expected, cases, _ = tests.get(name, (PASS, None, ""))
        counted, wrong = judge(PASS if expected == SKIP else expected, cases, outcome, output)
        if wrong and may_repeat:
            return False
        counts[counted] += 1
        if wrong:
            print(f"{name}: {wrong}; see {arguments.work}/run/{name}/output", flush=True)
            if arguments.names:
                print(output, flush=True)
        return True

    again = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = {pool.submit(runner.run, name): name for name in names}
        for future in concurrent.futures.as_completed(running):
            outcome, output = future.result()
            if not finish(running[future], outcome, output, may_repeat=True):
                again.append(running[future])
    # Some are sensitive to load: once more, alone
    for name in again:
        finish(name, *runner.run(name), may_repeat=False)

    if skipped:
        waiting = sum(reason.startswith(BACKING) for reason in skipped)
        print(f"left out: {waiting} that need backing files, {len(skipped) - waiting} for other reasons, see the list")
    print(f"passed {counts['pass']} failed {counts['fail']} notrun {counts['notrun']}")
    sys.exit(1 if counts["fail"] else 0)


main()
