# SPDX-License-Identifier: GPL-2.0-or-later
"""python3 -m testlib.link RUN L1 FUNCTION MAC up|down: the kselftests' link hook. MAC is what they call the hook
with, and says no more than the words before it."""
import sys

from vlm.lab import Lab

if __name__ == "__main__":
    _, run, name, function, _, state = sys.argv
    Lab.attach(run).l1(name).set_link(int(function), state == "up")
