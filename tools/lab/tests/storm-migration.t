#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=220 variants=stock form=all
"""Whatever happens to the source's function while L2 migrates on the device's log: the migration
comes to an end, and what happens does; L2 runs in one place alone, and the device works afterwards.
What waits for L2 to leave the function does not keep it from that, with all of its memory."""
import contextlib

from testlib import nested, tap
from testlib.storm import EVENTS, FORGETS, PROPS, PROVOKED, REMOVES, Event, Storm
from vlm.config import PATIENCE, Config
from vlm.l2 import l2
from vlm.migration import BANDWIDTH, ENDED, Migration
from vlm.traffic import BAD, Traffic, wrong

# slow enough for the first pass over L2's RAM to last until something has happened
SLOW = 2 << 20
# what has to stay 0, but for what L2 sends while the link is down
BAD_OF_FLAPS = tuple(name for name in BAD if name != "in_lost")
# A reset switches the function's BARs off and on, which changes L1's memory map. Without QEMU's fixes
# 0010 and 0011 that hangs L2, or L1, once in some thousand times
MAP_CHANGES = 5000
CHANGE_MAP = f"""import os, sys
config = os.open(sys.argv[1], os.O_RDWR)
for _ in range({MAP_CHANGES // 2}):
    os.pwrite(config, bytes(2), 4)
    os.pwrite(config, bytes([6, 0]), 4)
"""
# Without fix 0012, a CPU that loads its FPU's state may undo half of the first one's #VMEXIT
XRSTORS = 10000000
# L1's kernel patches itself where its scheduler counts, as it does for each first and last VM. Without fix
# 0025 that ends L1, by an INT3, once in some hundred times
PATCHES = 2000
PATCH = f"""import os
counts = os.open("/proc/sys/kernel/sched_schedstats", os.O_RDWR)
for n in range({PATCHES}):
    os.pwrite(counts, str((n + 1) % 2).encode(), 0)
"""
# Two vCPUs, each in a thread of its own, and L2 with much to do: that is how fixes 0010, 0012 and 0025 were found
RACES = {"threads": "multi", "rate": Config.rate, "pages": Config.pages}
# the three ways in which L2 can lose its function
QUICK = [case for case in EVENTS if case[1] in (Storm.unbind, Storm.flr, Storm.replug)]

with tap.Tap() as t, nested.make_lab(devices=2, device_props=PROPS, **RACES) as lab:
    here, there = lab.l1s
    storm = Storm(here)
    l2.take_over(there)
    l2.start(here, storm.recover())
    l2.wait_up(here)
    traffic = Traffic(lab)
    here.sh(f"cd /sys/bus/pci/devices/{here.pci(1)}; echo {here.pci(1)} >driver/unbind; "
            f"python3 -c '{CHANGE_MAP}' config", timeout=PATIENCE)
    traffic.wait_both_ways()
    t.equal(wrong(traffic.counts()), "", f"L2 goes on while the memory map of its L1 changes {MAP_CHANGES} times")
    here.sh(f"taskset -acp 0 $(cat {l2.pid_file}); taskset -c 1 {here.config.tools}/xrstor {XRSTORS}", timeout=PATIENCE)
    traffic.wait_both_ways()
    t.equal(wrong(traffic.counts()), "", f"L2 goes on while another CPU loads its FPU's state {XRSTORS} times")
    here.sh(f"python3 -c '{PATCH}'", timeout=PATIENCE)
    traffic.wait_both_ways()
    t.equal(wrong(traffic.finish()), "", f"L2 goes on while the kernel of its L1 is patched {PATCHES} times")
    l2.stop(here)

    events = EVENTS if tap.long_form() else QUICK
    for what, event in events:
        l2.start(here, storm.recover())
        l2.wait_up(here)
        traffic = Traffic(lab)
        traffic.wait_both_ways()
        with contextlib.ExitStack() as stack:
            with Migration(here, there, max_bandwidth=SLOW) as migration:
                migration.wait("active", reached=lambda info: info["ram"]["transferred"] > SLOW)
                t.ok(here.logging(), f"{what}: the device logs before it")
                under_way = stack.enter_context(Event(event, storm))
                if event in REMOVES:
                    t.ok(under_way.waits, f"{what}: it waits for L2 to leave the function")
                # what waits for L2 to leave the function would wait for long
                for l1 in lab.l1s:
                    stack.callback(l2.stop, l1)
                migration.cmd("migrate-set-parameters", max_bandwidth=BANDWIDTH)
                status = migration.wait(*ENDED)["status"]
                if status == "completed":
                    t.ok(not migration.cmd("query-status")["running"], f"{what}: L2 has left it for good")
                    t.note(migration.finish())
            t.equal([l2.running(l1) for l1 in lab.l1s].count("running"), 1,
                    f"{what}: L2 runs in one place, the migration has {status}")
            where = next(l1 for l1 in lab.l1s if l2.alive(l1))
            # over its serial port: the network may be gone
            t.equal(l2.agent_count(where, "pages_bad", 0), 0, f"{what}: L2's own memory is right")
            # L2 is without its network until it resets the device
            if event not in FORGETS:
                t.equal(status, "completed", f"{what}: which is its destination")
                traffic.wait_both_ways()
                traffic.wait_pass()
                bad = BAD_OF_FLAPS if event == Storm.link_flaps else BAD
                t.equal(wrong(traffic.counts(), bad), "", f"{what}: all of its memory is right, and its packets")
            traffic.finish()
        t.equal(under_way.errors, [], f"{what}: it comes to its end")
        t.equal(storm.let_go(storm.take("logging", "send")), ({}, True), f"{what}: the device works afterwards")
        t.equal(here.complaints(PROVOKED.get(event)), [], f"{what}: the kernel has nothing else to say")
    t.figure("storm: events that befell a device while its L2 migrated", len(events), len(EVENTS))
    t.clean_logs(lab)
