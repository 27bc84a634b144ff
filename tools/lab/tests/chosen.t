#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=lab cost=3
"""`lab check` runs the tests that it is asked for, and none is left without a word."""
import os
import tempfile
import time

from cli import report, runner, tests
from testlib import tap


def forms_of_check():
    """What each command runs."""
    def chosen(every=False, long=False, variants=None):
        return {test.name for test in tests.choose([], None, variants, every, long)}

    known = tests.find()
    forms = {form: {name for name, test in known.items() if test.form == form and test.group != "bench"}
             for form in tests.FORMS}
    t.equal(chosen(), forms["both"], "lab check runs those that take 20 minutes together")
    t.equal(chosen(every=True), forms["both"] | forms["all"], "lab check --all all that do not need the long form")
    t.equal(chosen(long=True), forms["both"] | forms["all"] | forms["long"], "and lab check --long these, too")
    t.ok(chosen(variants=["debug"]) & forms["all"], "who asks for a kernel gets all of its tests")


def in_time():
    """What has no time left is left, and said to be."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/one.t"
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho 'ok 1 - it runs'\necho 1..1\n")
        os.chmod(path, 0o755)
        some = [tests.Test(f"in-time-{name}", path, "", "lab", cost, "", (), form)
                for name, cost, form in (("a", 1000, "both"), ("b", 2, "all"), ("c", 1, "both"), ("d", 1000, "all"))]
        done = runner.Runner(some, tap.CHECK, False, time.monotonic() + 60)
        order = [test.name for test in done.waiting]
        results = {result.name: result for result in done.run()}
    t.equal(order, [f"in-time-{name}" for name in "acdb"],
            "--minutes: those of check come before the others, the longest first")
    t.equal({name: (result.passed(), len(result.skipped()), len(result.failed())) for name, result in results.items()},
            {"in-time-a": (0, 0, 1), "in-time-b": (1, 0, 0), "in-time-c": (1, 0, 0), "in-time-d": (0, 1, 0)},
            "--minutes: what would take longer is skipped, and has failed if it is one of check's")
    t.ok("--minutes" in report.skips(results.values())[0], "--minutes: and that is the reason")


with tap.Tap() as t:
    forms_of_check()
    in_time()
