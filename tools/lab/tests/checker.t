#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=114 variants=stock form=all
"""The migration tests can fail: when the device drops one log bit in a few, without a word, the checks
of L2's memory find pages that are wrong after the migration, every time. In the same lab, without dropped
bits, they find nothing. An L2 that dies or a lab that fails is no find."""
from testlib import tap
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.migration import migrate
from vlm.qmp import QMPError
from vlm.traffic import BAD, Traffic

MIGRATIONS = 100 if tap.long_form() else 2
DROP_EVERY = 4
# A lost bit does harm where the page was sent already, and is not dirtied otherwise. With less
# bandwidth the device dirties more pages that were.
BANDWIDTH = 16 << 20
# for an L2 to get going again that may be damaged
SECONDS = 90
# what the checks of L2's memory count
PAGES = "pages_bad", "held_bad", "held_late"


def boot(lab, l1):
    """An L2 in that L1, with traffic."""
    l2.start(l1)
    l2.wait_up(l1)
    traffic = Traffic(lab)
    traffic.wait_both_ways()
    return traffic


def look(src, dst, traffic, seconds=PATIENCE):
    """Migrate, and have all that L2 holds looked at, for so many seconds at most: what was counted meanwhile, by its
    names in BAD, and why L2 is of no use any more, if so."""
    before = traffic.counts()
    why = ""
    try:
        migrate(src, dst, max_bandwidth=BANDWIDTH)
        traffic.wait_both_ways(seconds)
        traffic.wait_held(seconds)
    except (LabError, QMPError) as err:
        why = str(err)
    counts = traffic.counts()
    return {name: counts[name] - before[name] for name in BAD if counts[name] > before[name]}, why


tap.need_log()
with tap.Tap() as t, tap.make_lab(l1s=2, l2_memory=128, dirty_log="device") as lab:
    here, there = lab.l1s
    for l1 in here, there:
        l2.take_over(l1)
    traffic = boot(lab, here)
    t.equal(look(here, there, traffic), ({}, ""), "a migration, no bit dropped: nothing is wrong")
    here, there = there, here
    for l1 in here, there:
        l1.misbehave(0, drop_log_every=DROP_EVERY)
    done = tap.Progress(migrations=0, red=0, complaints=0)
    for n in range(done["migrations"], MIGRATIONS):
        found, why = look(here, there, traffic, SECONDS)
        red = t.ok(any(name in found for name in PAGES),
                   f"migration {n + 1}, one bit in {DROP_EVERY} dropped: the checks of L2's memory see that")
        t.note(", ".join(f"{name} +{count}" for name, count in found.items()))
        t.note(why)
        complaints = [line for l1 in lab.l1s for line in l1.complaints()]
        t.note("\n".join(complaints))
        done.save(migrations=n + 1, red=done["red"] + red, complaints=done["complaints"] + len(complaints))
        here, there = there, here
        if why:
            traffic.finish()
            for l1 in here, there:
                l2.stop(l1)
            traffic = boot(lab, here)
    t.equal(done["complaints"], 0, "the kernels have nothing to report of all that")
    t.figure("checker: migrations that went red with log bits dropped", done["red"], MIGRATIONS)
    traffic.finish()
    l2.stop(here)
    t.clean_logs(lab)
