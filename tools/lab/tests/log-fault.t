#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=400 variants=stock form=long
"""A log that fails costs L2 passes over its memory, and does not stop it: a large L2 migrates while its device misses
pages, with all of its RAM dirty at each pass, and runs on all the while. When the log works again the migration
ends. The downtime, and that of a migration without a fault, are noted beside the limit."""
from testlib import nested, tap
from vlm.l2 import l2
from vlm.migration import Migration

L2_MEMORY = 2048
# all of L2's memory is pinned
L1_MEMORY = L2_MEMORY + 1024
PASSES = 3


def move(t, what, src, dst, traffic, meanwhile=lambda migration: None):
    """One migration; its downtime beside the limit."""
    with traffic.may_lose(what):
        with Migration(src, dst) as migration:
            limit = migration.cmd("query-migrate-parameters")["downtime-limit"]
            meanwhile(migration)
            moved = migration.finish()
        t.note(f"{what}: {moved}; limit {limit} ms, unserved {moved.unserved_ms:.0f} ms")
        nested.well(t, what, traffic)
    return moved


def miss_pages(t, what, migration):
    """The device misses pages at each of some passes."""
    src = migration.src
    migration.wait("active", reached=lambda info: info["ram"]["dirty-sync-count"] > PASSES)
    t.equal(migration.cmd("query-status")["status"], "running", f"{what}: L2 runs after {PASSES} passes")
    remaining = migration.info()["ram"]["remaining"]
    t.ok(remaining > 0, f"{what}: and has RAM to be sent: {remaining >> 20} MiB")
    faults = len(l2.traced(src, "vhost_vdpa_log_fault"))
    t.ok(faults >= PASSES, f"{what}: each pass tells of it: {faults}")
    src.misbehave(0, log_fault_after=0)


with tap.Tap() as t, nested.make_lab(l2_memory=L2_MEMORY, memory=L1_MEMORY) as lab:
    here, there = lab.l1s
    traffic = nested.boot(t, lab)
    without = move(t, "without a fault", here, there, traffic)
    what = "with a log that fails"
    there.misbehave(0, log_fault_after=1)
    moved = move(t, what, there, here, traffic, lambda migration: miss_pages(t, what, migration))
    t.note(f"{what}: {moved.dirty_sync_count} passes, {without.dirty_sync_count} without")
    nested.end(t, lab, traffic)
