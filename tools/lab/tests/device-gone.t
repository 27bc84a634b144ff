#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=100 variants=stock form=all
"""An L2 whose device is gone, as after its surprise removal, leaves its host, and has its network again at the
destination: where the device goes while L2 migrates, and where it was gone before. A device that is gone writes
nothing. So all of L2's RAM is sent at most once more for it, and the migration ends. When the driver finds out, L2
has no link, and what it sends is lost until it is at the destination."""
from testlib import nested, tap
from testlib.faults import SLOW, first_pass
from vlm.l2 import l2
from vlm.migration import BANDWIDTH, Migration
from vlm.traffic import BAD, wrong

NODEV = "ret: -19"


def leave(t, what, src, dst, traffic, gone_before):
    """A migration with the source's device gone."""
    with traffic.may_lose(what):
        if gone_before:
            src.misbehave(0, gone=True)
        with Migration(src, dst, max_bandwidth=SLOW) as migration:
            if not gone_before:
                first_pass(t, migration)
                src.misbehave(0, gone=True)
            else:
                migration.wait("active")
                t.ok(nested.sees_link(src, False), f"{what}: L2 has no link, once the driver has found out")
            migration.cmd("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH})
            t.note(migration.finish())
        faults = l2.traced(src, "vhost_vdpa_log_fault")
        t.equal([NODEV in line for line in faults], [True], f"{what}: L2's QEMU has asked it once, and not again")
        t.ok("No such device" in l2.said(src), f"{what}: and says what it is about")
        t.note(l2.said(src))
        nested.well(t, what, traffic)
    traffic.wait_pass()
    src.misbehave(0, gone=False)


with tap.Tap() as t, nested.make_lab() as lab:
    here, there = lab.l1s
    traffic = nested.boot(t, lab)
    traffic.bad = tuple(name for name in BAD if name != "in_lost")
    leave(t, "gone while L2 migrates", here, there, traffic, False)
    leave(t, "gone before", there, here, traffic, True)
    counts = traffic.finish()
    t.equal(wrong(counts, traffic.bad), "", "no packet is doubled, late or damaged, and every page is right")
    t.note(f"lost from L2: {counts['in_lost']} of {counts['in_sent']} packets, in {counts['in_lost_runs']} runs")
    t.at_most(counts["out_lost_runs"], 2, "to L2, packets are lost in runs, one for each device that is gone")
    l2.stop(here)
    t.clean_logs(lab, "device does not answer|its log cannot be ended")
