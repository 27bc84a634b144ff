#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 migrates live between two L1s, there and back, with its virtqueues in the devices' hands:
the device logs the pages that it dirties. Under traffic in both directions, all the while. At
last with a log that fails: then all of L2's RAM is sent again."""
import os
import re
import time

from vlm import l2, tap
from vlm.traffic import Traffic, account

# registers of the LM block, see include/linux/virtio_lm.h
LOGGING_CTRL, DEV_CTRL, STATUS = 0x00, 0x08, 0x0c
# there and back
ROUNDS = int(os.environ["LM_ROUNDS"] or 5)


def accesses(l1, since):
    """How many accesses to its device's registers have started, and stopped, the log since then:
    those before the one that suspends, and the last that writes LM_LOGGING_CTRL and on, as far as
    LM_STATUS is read."""
    events = l1.events("virtio_lm_read", "virtio_lm_write", since=since)
    registers = [(name, int(re.search(r"addr (0x\w+)", text)[1], 16)) for _, name, text in events]
    starts = registers.index(("virtio_lm_write", DEV_CTRL))
    last = len(registers) - 1 - registers[::-1].index(("virtio_lm_write", LOGGING_CTRL))
    stops = next(n for n, access in enumerate(registers[last + 1:] + [None])
                 if access != ("virtio_lm_read", STATUS))
    return starts, 1 + stops


tap.need_log()
with tap.Tap() as t, tap.make_lab(l1s=2, l2_memory=128, dirty_log="device") as lab:
    here, there = lab.l1s
    for l1 in here, there:
        l2.take_over(l1)
    l2.start(here)
    t.equal(l2.dirty_log(here), "device", "L2's QEMU says that it migrates by the device's log")
    t.note(f"L2 up after {l2.wait_up(here):.1f} s")
    traffic = Traffic(f"{lab.config.tools}/peer", lab.config.rate, f"{lab.run_dir}/traffic.log")
    traffic.wait_both_ways()
    traffic.wait("a pass over L2's memory", lambda c: c["passes"] >= 1, 60)
    t.equal(here.events("virtio_lm_log_start"), [], "the device does not log before a migration")

    begin = time.time()
    for n in range(ROUNDS):
        for src, dst in (here, there), (there, here):
            way = f"round {n + 1}, {src.name} to {dst.name}"
            moved = l2.migrate(src, dst)
            t.note(f"{moved}; unserved {moved.unserved_ms:.0f} ms")
            if not n and src is here:
                starts, stops = accesses(src, begin)
                t.at_most(starts, 6, f"{way}: registers that it takes to start the log")
                t.at_most(stops, 2, f"{way}: and to stop it")
            t.equal(l2.running(dst), "running", f"{way}: L2 runs on the destination")
            t.equal(l2.running(src), None, f"{way}: and nowhere else")
            t.ok(moved.device_pages > 0, f"{way}: the device has logged pages: {moved.device_pages}")
            t.ok(not src.logging() and not dst.logging(), f"{way}: no device logs any more")
            traffic.wait_both_ways()
            counts = traffic.wait_pass()
            t.equal((counts["pages_bad"], counts["held_bad"]), (0, 0), f"{way}: every page of L2's memory is intact")

    # what the device dirties from its second page on, it does not know
    here.misbehave(0, log_fault_after=1)
    moved = l2.migrate(here, there)
    t.note(moved)
    t.ok(l2.traced(here, "vhost_vdpa_log_fault"), "a failing log: the device says that it lost pages")
    t.ok("taking all RAM as dirty" in l2.said(here), "a failing log: L2's QEMU says that it sends all RAM again")
    traffic.wait_both_ways()
    counts = traffic.wait_pass()
    t.equal((counts["pages_bad"], counts["held_bad"]), (0, 0), "a failing log: every page of L2's memory is intact")

    account(t, traffic, lab.config.rate, 2 * ROUNDS + 1)
    l2.stop(there)
    t.clean_logs(lab)
