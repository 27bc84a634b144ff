#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=2500 variants=stock form=long
"""L2 goes there and back again and again under traffic, and is intact each time."""
from cli import soak
from testlib import tap

ROUNDS = tap.parameter("rounds", 20)
# as many with one L2
AT_ONCE = 10

with tap.Tap() as t:
    done = tap.Progress(rounds=0, checks=0, packets=0)
    while t.failed == 0 and done["rounds"] < ROUNDS:
        with tap.make_lab(l1s=2, l2_memory=128) as lab:
            result = soak.Soak(lab)
            result.run(min(AT_ONCE, ROUNDS - done["rounds"]))
            t.note(result)
            t.equal(result.failure, "", "L2 is intact each time")
            t.clean_logs(lab)
        if t.failed == 0:
            done.save(rounds=done["rounds"] + len(result.moves) // 2,
                      checks=done["checks"] + result.counts["pages_checked"],
                      packets=done["packets"] + result.packets())
    t.figure("soak: rounds of migrations, there and back", done["rounds"], ROUNDS)
    t.figure("soak: page checks", done["checks"])
    t.figure("soak: packets in sequence", done["packets"])
