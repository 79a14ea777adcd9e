#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""failed-tests.py LOG.json...: which of Meson's tests failed, and the last lines of each.

The logs are those that `meson test` writes (meson-logs/testlog.json), one test a line. One that is not there
is passed over: its tests were not run.
"""

import json
import sys

LINES = 15
FINE = ("OK", "SKIP", "EXPECTEDFAIL")


def show(test):
    said = (test.get("stdout") or "") + (test.get("stderr") or "")
    print(f"\n{test['name']}: {test['result']}, status {test['returncode']}, {test['duration']:.0f} s")
    for line in said.splitlines()[-LINES:]:
        print(f"    {line}")


def main(paths):
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as log:
                tests = [json.loads(line) for line in log]
        except FileNotFoundError:
            continue
        for test in tests:
            if test["result"] not in FINE:
                show(test)


main(sys.argv[1:])
