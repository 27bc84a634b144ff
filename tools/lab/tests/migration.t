#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 migrates live between two L1s, there and back, on QEMU's shadow virtqueues, under
traffic in both directions: no packet is doubled, reordered or damaged, none that L2 sent is
lost, and every page of its memory holds what was written to it."""
from vlm import l2, tap
from vlm.traffic import Traffic

# What comes while L2 is nowhere, or until the bridge has learnt where it is, is lost: as
# much as was sent in the gaps, and in those that are too short to be listed as gaps. Each
# migration has two: the source changes over to shadow virtqueues, L2 changes its place.
SHORT_GAP_MS = 250
MIGRATIONS = 2

with tap.Tap() as t, tap.make_lab(l1s=2) as lab:
    here, there = lab.l1s
    for l1 in here, there:
        t.equal(l2.take_over(l1), "/dev/vhost-vdpa-0", f"{l1.name}: the driver takes the function over")
    l2.start(here)
    t.note(f"L2 up after {l2.wait_up(here):.1f} s")
    traffic = Traffic(f"{lab.config.tools}/peer", lab.config.rate, f"{lab.run_dir}/traffic.log")
    traffic.wait_both_ways()
    t.ok(True, "packets go both ways before any migration")
    traffic.wait("a pass over L2's memory", lambda c: c["passes"] >= 1, 60)

    for src, dst in (here, there), (there, here):
        way = f"{src.name} to {dst.name}"
        moved = l2.migrate(src, dst)
        t.note(moved)
        t.equal(l2.running(dst), "running", f"{way}: L2 runs on the destination")
        t.equal(l2.running(src), None, f"{way}: and nowhere else")
        traffic.wait_both_ways()
        t.ok(True, f"{way}: packets go both ways after it")
        counts = traffic.wait_pass()
        t.equal(counts["pages_bad"], 0, f"{way}: every page of L2's memory is intact")

    counts = traffic.finish()
    t.note(" ".join(f"{k}={v}" for k, v in counts.items()))
    for prefix, name in ("in_", "L2 to L0"), ("out_", "L0 to L2"):
        t.equal(counts[prefix + "duplicate"], 0, f"{name}: no packet comes twice")
        t.equal(counts[prefix + "late"], 0, f"{name}: no packet comes out of sequence")
        t.equal(counts[prefix + "corrupt"], 0, f"{name}: no packet is damaged")
    t.equal(counts["in_lost"], 0, "L2 to L0: no packet is lost")
    may_lose = (traffic.gaps_ms("out") + 2 * MIGRATIONS * SHORT_GAP_MS) * lab.config.rate // 1000
    t.at_most(counts["out_lost"], may_lose, "L0 to L2: only what came while L2 was nowhere is lost")
    t.equal(counts["in_sessions"], 1, "L2 is the same all along: its agent never started anew")
    # the agent's own account, over its serial port and not over the network
    t.equal(l2.agent_count(here, "received", counts["out_received"]), counts["out_received"],
            "L2's own counter is what its packets have said")
    l2.stop(here)
    t.clean_logs(lab)
