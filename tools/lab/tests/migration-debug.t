#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 migrates live on the device's log between two L1s whose kernel reports what a stock one lets
pass (tools/linux/debug.config): first it is cancelled, then it goes there, and then back with a log
that fails. Nothing is reported."""
import os

from vlm import kselftest, l2, tap
from vlm.lab import parse_config
from vlm.traffic import Traffic, account

# packets per second: what L1s several times slower than usual can do
RATE = 50
# slow enough for the first pass over L2's RAM to last until it is cancelled
SLOW = 2 << 20
stock = parse_config(os.environ["LM_OPTIONS"].split("\n")[1:])

with tap.Tap() as t, tap.make_lab(l1s=2, kernel=os.environ["LM_DEBUG_KERNEL"], vdpa_modules="stock",
                                  driver="", append="kasan_multi_shot log_buf_len=8M", memory=1536,
                                  l2_kernel=f"{stock.kernel}/vmlinux", l2_initrd=f"{stock.kernel}/l2.gz",
                                  l2_memory=128, rate=RATE, dirty_log="device") as lab:
    here, there = lab.l1s
    for l1 in here, there:
        l2.take_over(l1)
    l2.start(here)
    t.note(f"L2 up after {l2.wait_up(here):.1f} s")
    traffic = Traffic(f"{lab.config.tools}/peer", lab.config.rate, f"{lab.run_dir}/traffic.log")
    traffic.wait_both_ways(120)
    traffic.wait("a pass over L2's memory", lambda c: c["passes"] >= 1, 240)

    with l2.Migration(here, there, max_bandwidth=SLOW) as migration:
        migration.wait("active", reached=lambda info: info["ram"]["transferred"] > SLOW)
        t.ok(here.logging(), "cancelled: the device logs before")
        migration.cmd("migrate_cancel")
        migration.wait("cancelled")
    l2.stop(there)
    t.ok(not here.logging(), "cancelled: and does not any more")
    traffic.wait_both_ways(120)
    t.equal(l2.running(here), "running", "cancelled: L2 runs where it was")

    for src, dst in (here, there), (there, here):
        way = f"{src.name} to {dst.name}"
        fails = src is there
        if fails:
            src.misbehave(0, log_fault_after=1)
        moved = l2.migrate(src, dst)
        t.note(moved)
        t.ok(fails or moved.device_pages > 0, f"{way}: the device has logged pages: {moved.device_pages}")
        t.equal(len(l2.traced(src, "vhost_vdpa_log_fault")), int(fails),
                f"{way}: the log {'fails, and L2 is told' if fails else 'does not fail'}")
        t.ok(not src.logging() and not dst.logging(), f"{way}: no device logs any more")
        traffic.wait_both_ways(120)
        counts = traffic.wait_pass(240)
        t.equal((counts["pages_bad"], counts["held_bad"]), (0, 0), f"{way}: every page of L2's memory is intact")

    account(t, traffic, RATE, 3)
    l2.stop(here)
    for l1 in here, there:
        t.equal(kselftest.debug_findings(l1), [], f"{l1.name}: the checks were on to the end, and found nothing")
    t.clean_logs(lab)
