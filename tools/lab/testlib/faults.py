# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong with a migration: how it is brought about, from the start of the migration to
where QEMU has given it up. L2 is to go on where it was then."""
from vlm import net
from vlm.l2 import l2

# Slow enough for the first pass over L2's RAM, which takes a minute, to last until something has gone wrong. L2 dirties
# as much in a second, by nested.PAGES, so that a migration does not end by itself
SLOW = 1 << 20
PAUSE = "pause-before-switchover"
SWITCHOVER = "pre-switchover"


def first_pass(t, migration):
    """L2's RAM is under way, with its device logging."""
    migration.wait("active", reached=lambda info: info["ram"]["transferred"] > SLOW)
    t.ok(migration.src.logging(), "the device logs")


def cancelled(migration):
    """Cancel it, and wait until QEMU is done with that."""
    migration.cmd("migrate_cancel")
    migration.wait("cancelled")


def cancel_in_precopy(t, migration, _):
    first_pass(t, migration)
    cancelled(migration)


def cancel_after_the_stop(t, migration, _):
    migration.wait(SWITCHOVER)
    t.equal(migration.cmd("query-status")["status"], "finish-migrate", "L2 is stopped")
    cancelled(migration)


def kill_in_setup(_t, migration, _):
    # nothing was read yet at that end, which has been stopped
    migration.wait("setup", "active")
    l2.stop(migration.dst)
    migration.wait("failed")


def kill_in_precopy(t, migration, _):
    first_pass(t, migration)
    l2.stop(migration.dst)
    migration.wait("failed")


def kill_after_the_stop(_t, migration, _):
    migration.wait(SWITCHOVER)
    l2.stop(migration.dst)
    migration.cmd("migrate-continue", state=SWITCHOVER)
    migration.wait("failed")


def cut(migration, off):
    """Cut the link between the two L1s, or mend it; L0 reaches both all the time."""
    for l1 in migration.src, migration.dst:
        net.isolate(l1.mgr_tap, off)


def cut_in_precopy(t, migration, traffic):
    first_pass(t, migration)
    cut(migration, True)
    traffic.wait_both_ways()
    t.equal(migration.info()["status"], "active", "L2 goes on while nothing gets through")
    cancelled(migration)
    cut(migration, False)


def cut_after_the_stop(_t, migration, _):
    migration.wait(SWITCHOVER)
    cut(migration, True)
    cancelled(migration)
    cut(migration, False)


# what goes wrong, how, the options of the Migration to which it does, and how often L2's device stops
# for it. A VMM that has stopped L2 resets the device; from there until L2 goes on it has no driver, and drops
# what comes. What goes wrong before L2 is stopped stops no device
FAULTS = (
    ("cancelled in pre-copy", cancel_in_precopy, {"max_bandwidth": SLOW}, 0),
    ("cancelled after the stop", cancel_after_the_stop, {"capabilities": [PAUSE]}, 1),
    ("destination killed in setup", kill_in_setup, {"stopped": True}, 0),
    ("destination killed in pre-copy", kill_in_precopy, {"max_bandwidth": SLOW}, 0),
    ("destination killed after the stop", kill_after_the_stop, {"capabilities": [PAUSE]}, 1),
    ("link cut in pre-copy", cut_in_precopy, {"max_bandwidth": SLOW}, 0),
    ("link cut after the stop", cut_after_the_stop, {"capabilities": [PAUSE]}, 1),
)
