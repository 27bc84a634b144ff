#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 migrates live between two L1s, there and back, on QEMU's shadow virtqueues, for that is all
there is where one of the parts knows of no dirty log: there, as the kernel's vDPA modules are
stock; back, as L2's QEMU is without patches/qemu/log."""
import dataclasses

from vlm import l2, tap
from vlm.traffic import Traffic, account

# Each migration has two gaps in the traffic: the source changes over to shadow virtqueues, L2
# changes its place.
GAPS = 4

with tap.Tap() as t, tap.make_lab(l1s=2) as lab:
    here, there = lab.l1s
    here.config = dataclasses.replace(lab.config, vdpa_modules="stock")
    there.config = dataclasses.replace(lab.config, l2_qemu=lab.config.qemu)
    for l1 in here, there:
        t.equal(l2.take_over(l1), l2.NODE, f"{l1.name}: the driver takes the function over")
    l2.start(here)
    t.equal(l2.dirty_log(here), "svq", "stock modules: L2's QEMU says that it migrates by shadow virtqueues")
    t.note(f"L2 up after {l2.wait_up(here):.1f} s")
    traffic = Traffic(f"{lab.config.tools}/peer", lab.config.rate, f"{lab.run_dir}/traffic.log")
    traffic.wait_both_ways()
    t.ok(True, "packets go both ways before any migration")
    traffic.wait("a pass over L2's memory", lambda c: c["passes"] >= 1, 60)

    for src, dst in (here, there), (there, here):
        way = f"{src.name} to {dst.name}"
        t.note(l2.migrate(src, dst))
        t.equal(l2.running(dst), "running", f"{way}: L2 runs on the destination")
        t.equal(l2.running(src), None, f"{way}: and nowhere else")
        t.equal(src.events("virtio_lm_log_start"), [], f"{way}: the device has never logged")
        traffic.wait_both_ways()
        t.ok(True, f"{way}: packets go both ways after it")
        counts = traffic.wait_pass()
        t.equal((counts["pages_bad"], counts["held_bad"]), (0, 0), f"{way}: every page of L2's memory is intact")

    account(t, traffic, lab.config.rate, GAPS)
    # the agent's own account, over its serial port and not over the network
    received = traffic.counts()["out_received"]
    t.equal(l2.agent_count(here, "received", received), received, "L2's own counter is what its packets have said")
    l2.stop(here)
    t.clean_logs(lab)
