#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=126 variants=stock
"""make demo shows a migration on the device's log and one by shadow virtqueues, side by side."""
import contextlib
import io

from cli import demo
from testlib import tap

tap.need_log()
with tap.Tap() as t:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        status = demo.run(tap.config(l1s=2), tap.run_dir())
    t.note(shown.getvalue())
    lines = shown.getvalue().splitlines()
    t.equal(status, 0, "all is as it should be")
    t.ok(any(line.split() == " ".join(demo.NAMES.values()).split() for line in lines), "a column for each way")
    for what, _ in demo.ROWS:
        values = [line[40:].strip() for line in lines if line[2:40].rstrip() == what]
        t.ok(len(values) == 1 and len(values[0]) > 24 and "-1 ms" not in values[0], f"{what}: for both")
