#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=114 variants=stock
"""The migration tests can fail: when the device drops one log bit in a few, without a word, what L2
holds in its memory is seen to be wrong after the migration, every time."""
from testlib import tap
from vlm import l2
from vlm.l1 import LabError
from vlm.migration import migrate
from vlm.qmp import QMPError
from vlm.traffic import BAD, Traffic

MIGRATIONS = 100 if tap.long_form() else 2
DROP_EVERY = 4
# A lost bit does harm where the page was sent already, and is not dirtied otherwise. With less
# bandwidth the device dirties more pages that were.
BANDWIDTH = 16 << 20
# for L2 to get going again; else that is what was wrong
SECONDS = 40


def boot(lab, l1):
    """An L2 in that L1, with traffic."""
    l2.start(l1)
    l2.wait_up(l1)
    traffic = Traffic(lab)
    traffic.wait_both_ways(60)
    return traffic


def what_is_wrong(src, dst, traffic):
    """Migrate, and have all that L2 holds looked at: what is wrong afterwards; and whether L2 is
    still of use."""
    before = traffic.counts()
    try:
        migrate(src, dst, max_bandwidth=BANDWIDTH)
        traffic.wait_both_ways(SECONDS)
        counts = traffic.wait_held(SECONDS)
    except (LabError, QMPError) as err:
        return str(err), False
    return ", ".join(f"{name} +{counts[name] - before[name]}" for name in BAD
                     if counts[name] > before[name]), True


tap.need_log()
with tap.Tap() as t, tap.make_lab(l1s=2, l2_memory=128, dirty_log="device") as lab:
    here, there = lab.l1s
    for l1 in here, there:
        l2.take_over(l1)
        l1.misbehave(0, drop_log_every=DROP_EVERY)
    traffic = boot(lab, here)
    done = tap.Progress(migrations=0, red=0, complaints=0)
    for n in range(done["migrations"], MIGRATIONS):
        found, alive = what_is_wrong(here, there, traffic)
        red = t.ok(found != "", f"migration {n + 1}, one bit in {DROP_EVERY} dropped: that is seen")
        t.note(found)
        complaints = [line for l1 in lab.l1s for line in l1.complaints()]
        t.note("\n".join(complaints))
        done.save(migrations=n + 1, red=done["red"] + red, complaints=done["complaints"] + len(complaints))
        here, there = there, here
        if not alive:
            traffic.finish()
            for l1 in here, there:
                l2.stop(l1)
            traffic = boot(lab, here)
    t.equal(done["complaints"], 0, "the kernels have nothing to report of all that")
    t.figure("checker: migrations that went red with log bits dropped", done["red"], MIGRATIONS)
    traffic.finish()
    l2.stop(here)
    t.clean_logs(lab)
