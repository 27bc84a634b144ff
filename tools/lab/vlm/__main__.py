# SPDX-License-Identifier: GPL-2.0-or-later
"""python3 -m vlm --run RUN link L1 FUNCTION MAC up|down: the kselftests' link hook. MAC is what they call the
hook with, and says no more than the words before it."""
import sys

from .lab import Lab

if __name__ == "__main__":
    _, run, _, name, function, _, state = sys.argv[1:]
    Lab.attach(run).l1(name).set_link(int(function), state == "up")
