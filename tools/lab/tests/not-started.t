#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A vDPA device that cannot be started is no NIC that has a link and no packets: L2's QEMU says why,
and L2 has no link, or no L2 is started. Where its memory cannot be mapped there is no destination for a
migration, and L2 goes on where it was."""
import re
import time

from vlm import kselftest, l2, nested, tap
from vlm.l1 import LabError
from vlm.traffic import Traffic

ASKED = "echo carrier=$(cat /sys/class/net/eth0/carrier)."
SECONDS = 60
LONG_RING = 1024


def has_link(l1):
    """Does L2 see one? It is asked on its console."""
    answer = re.compile(r"carrier=([01])\.")
    with open(f"{l1.share}/l2.console.log", encoding="utf-8", errors="replace") as file:
        before = len(answer.findall(file.read()))
        l2.console(l1, ASKED)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            file.seek(0)
            found = answer.findall(file.read())
            if len(found) > before:
                return found[-1] == "1"
            time.sleep(0.2)
    raise LabError(f"L2 in {l1.name} does not tell of its link within {SECONDS} s")


def try_nic(t, l1, what, more, why):
    """An L2 with a NIC that the device does not serve."""
    l2.start(l1, nic=l2.netdev(l2.NODE, "auto", more))
    l2.wait_up(l1)
    t.ok(not has_link(l1), f"{what}: L2 has no link")
    t.ok(why in l2.said(l1) and "no link" in l2.said(l1), f"{what}: and its QEMU says why")
    l2.stop(l1)


def room(l1, pieces):
    """Load vhost-vdpa anew, with room for that many pieces of memory, and make the device again."""
    module = f"{l1.config.log_modules}/vhost_vdpa.ko"
    l1.sh(f"vdpa dev del {kselftest.NAME}; rmmod {kselftest.DRIVER} vhost_vdpa")
    l1.sh(f"insmod {module} max_iotlb_entries={pieces}")
    l2.take_over(l1)


with tap.Tap() as t, nested.make_lab(device_props=kselftest.PROPS) as lab:
    src, dst = lab.l1s
    for l1 in lab.l1s:
        l2.take_over(l1)
    longest = int(re.search(r"max_vq_size (\d+)", src.sh(f"vdpa dev show {kselftest.NAME}"))[1])
    if longest < LONG_RING:
        try_nic(t, src, f"rings of {LONG_RING} on a device of {longest}", f",rx_queue_size={LONG_RING}",
                "vhost_set_vring_num failed")
    else:
        t.skip("rings that are too long", f"this QEMU's functions have {longest}")
    try_nic(t, src, "a legacy transport", ",disable-modern=on,disable-legacy=off", "vhost_set_features failed")

    room(dst, 1)
    try:
        l2.start(dst)
        early = False
        l2.wait_up(dst)
        t.ok(not has_link(dst), "memory that cannot be mapped: L2 has no link")
        l2.stop(dst)
    except LabError as err:
        early = True
        t.ok("DMA mapping failed" in str(err), "memory that cannot be mapped: no L2 is started")
    t.ok("cannot reach all of the guest's memory" in l2.said(dst), "memory that cannot be mapped: QEMU says so")

    l2.start(src)
    l2.wait_up(src)
    t.ok(has_link(src), "an L2 whose device is started has a link")
    traffic = Traffic(lab)
    traffic.wait_both_ways()
    if early:
        try:
            said = f"it has begun: {l2.migrate(src, dst)}"
        except LabError as err:
            said = str(err)
        t.ok("DMA mapping failed" in said, "no destination for a migration is started in such a place")
        t.note(said)
        t.equal(l2.running(src), "running", "and L2 runs where it was")
        nested.well(t, "where it was", traffic)
    else:
        t.skip("a migration to such a place", "this QEMU maps memory when the device is started")
    room(dst, 1 << 20)
    t.note(l2.migrate(src, dst))
    t.ok(has_link(dst), "with room enough, L2 migrates there and has a link")
    nested.end(t, lab, traffic, 3)
