#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong in a migration on the device's log leaves L2 where it was, with its traffic,
its memory and a device that does not log; and the next migration succeeds."""
from vlm import l2, nested, net, tap
from vlm.traffic import wrong

# slow enough for the first pass over L2's RAM to last until something has gone wrong
SLOW = 2 << 20
PAUSE = "pause-before-switchover"
SWITCHOVER = "pre-switchover"
# A stop and a start of the device, and two places that L2 changes to, for each case
GAPS = 4


def first_pass(migration):
    """L2's RAM is under way, with its device logging."""
    migration.wait("active", reached=lambda info: info["ram"]["transferred"] > SLOW)
    return migration.src.logging()


def cancelled(migration):
    """Cancel it, and wait until QEMU is done with that."""
    migration.cmd("migrate_cancel")
    migration.wait("cancelled")


def cancel_in_precopy(t, migration):
    t.ok(first_pass(migration), "the device logs")
    cancelled(migration)


def cancel_after_the_stop(t, migration):
    migration.wait(SWITCHOVER)
    t.equal(migration.cmd("query-status")["status"], "finish-migrate", "L2 is stopped")
    cancelled(migration)


def kill_in_setup(t, migration):
    # nothing was read yet at that end, which has been stopped
    migration.wait("setup", "active")
    l2.stop(migration.dst)
    migration.wait("failed")


def kill_in_precopy(t, migration):
    t.ok(first_pass(migration), "the device logs")
    l2.stop(migration.dst)
    migration.wait("failed")


def kill_after_the_stop(t, migration):
    migration.wait(SWITCHOVER)
    l2.stop(migration.dst)
    migration.cmd("migrate-continue", state=SWITCHOVER)
    migration.wait("failed")


def cut(migration, off):
    """Cut the link between the two L1s, or mend it; L0 reaches both all the time."""
    for l1 in migration.src, migration.dst:
        net.isolate(l1.mgr_tap, off)


def cut_in_precopy(t, migration):
    t.ok(first_pass(migration), "the device logs")
    cut(migration, True)
    TRAFFIC.wait_both_ways()
    t.equal(migration.info()["status"], "active", "L2 goes on while nothing gets through")
    cancelled(migration)
    cut(migration, False)


def cut_after_the_stop(t, migration):
    migration.wait(SWITCHOVER)
    cut(migration, True)
    cancelled(migration)
    cut(migration, False)


CASES = (
    ("cancelled in pre-copy", cancel_in_precopy, {"max_bandwidth": SLOW}),
    ("cancelled after the stop", cancel_after_the_stop, {"capabilities": [PAUSE]}),
    ("destination killed in setup", kill_in_setup, {"stopped": True}),
    ("destination killed in pre-copy", kill_in_precopy, {"max_bandwidth": SLOW}),
    ("destination killed after the stop", kill_after_the_stop, {"capabilities": [PAUSE]}),
    ("link cut in pre-copy", cut_in_precopy, {"max_bandwidth": SLOW}),
    ("link cut after the stop", cut_after_the_stop, {"capabilities": [PAUSE]}),
)

with tap.Tap() as t, nested.make_lab() as lab:
    here, there = lab.l1s
    TRAFFIC = nested.boot(t, lab)

    for what, happen, options in CASES:
        t.note(what)
        with l2.Migration(here, there, **options) as migration:
            happen(t, migration)
        l2.stop(there)
        t.equal(l2.running(here), "running", f"{what}: L2 runs where it was")
        TRAFFIC.wait_both_ways()
        t.ok(True, f"{what}: with its traffic")
        t.ok(not here.logging(), f"{what}: and its device does not log")
        moved = l2.migrate(here, there)
        t.note(moved)
        t.ok(moved.device_pages > 0, f"{what}: the next migration succeeds, by the device's log")
        t.equal(l2.traced(here, "vhost_vdpa_log_fault"), [], f"{what}: which misses nothing")
        TRAFFIC.wait_both_ways()
        t.equal(wrong(TRAFFIC.counts()), "", f"{what}: packets go both ways after it, and all is well")
        here, there = there, here

    nested.end(t, lab, TRAFFIC, GAPS * len(CASES))
