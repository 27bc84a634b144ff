#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=200 variants=stock form=all
"""An L2 with an IOMMU of its own migrates there and back on its device's log, which has the addresses that
L2's kernel has given the device and not those of L2's memory: where that kernel lets the device through to all
of L2's memory, and where it maps each packet, unmaps it, and gives its address to the next one. There L2's
driver is unbound and bound many times, too, by which QEMU could run out of references to that IOMMU."""
import dataclasses
import time

from testlib import nested, tap
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.migration import migrate
from vlm.traffic import Traffic

# VIRTIO_NET_F_MAC, MRG_RXBUF, STATUS, VIRTIO_F_EVENT_IDX, VERSION_1, ACCESS_PLATFORM: behind a vIOMMU QEMU cannot
# shadow a control virtqueue
FEATURES = sum(1 << bit for bit in (5, 15, 16, 29, 32, 33))
NIC = ["-device", "intel-iommu,caching-mode=on", *l2.netdev(l2.node, "device", ",iommu_platform=on,disable-legacy=on")]
PASSED = "passed through"
WAYS = {PASSED: "intel_iommu=on iommu=pt", "translated": "intel_iommu=on"}
# packets and pages per second: each of them is mapped and unmapped by L2's kernel, its VMM, L1's kernel and L0
RATE, PAGES = 20, 64
MOVES = 2
REBINDS = 60


def comes_and_goes(t, l1, way):
    """L2's driver, many times."""
    l2.start(l1, nic=NIC)
    l2.wait_up(l1)
    l2.console(l1, "cd /sys/bus/virtio/drivers/virtio_net && device=$(echo virtio[0-9]*) && "
                   f"for n in $(seq {REBINDS}); do echo $device >unbind; echo $device >bind; done; echo bound $n times")
    end = time.monotonic() + PATIENCE
    while f"\nbound {REBINDS} times" not in l2.shown(l1):
        if not l2.alive(l1) or time.monotonic() > end:
            raise LabError(f"{way}: L2's driver: {l2.shown(l1)[-200:]}; its QEMU: {l2.complaint(l1)}")
        time.sleep(0.2)
    t.equal(l2.running(l1), "running", f"{way}: L2 runs on after its driver has come and gone {REBINDS} times")
    l2.stop(l1)


def flushed(l1):
    """The pages that the L2's QEMU in that L1 has read from the log because they were to be unmapped."""
    return sum(int(line.rsplit(" ", 1)[1]) for line in l2.traced(l1, "vhost_vdpa_log_flush"))


def there_and_back(t, lab, way):
    """An L2 with that way's words for its kernel."""
    here, there = lab.l1s
    for l1 in lab.l1s:
        l1.config = dataclasses.replace(lab.config, l2_append=WAYS[way])
        l2.take_over(l1, words=("device_features", hex(FEATURES)))
    if way != PASSED:
        comes_and_goes(t, here, way)
    l2.start(here, nic=NIC)
    l2.wait_up(here)
    traffic = Traffic(lab, f"traffic-{way.replace(' ', '-')}")
    traffic.wait_both_ways()
    traffic.wait_pass(held=False)
    for n in range(1, MOVES + 1):
        src, dst = (here, there) if n % 2 else (there, here)
        what = f"{way}, move {n}"
        with traffic.may_lose(what):
            moved = migrate(src, dst, nic=NIC) if way == PASSED else nested.move_until(
                src, dst, lambda src=src: flushed(src), "pages logged that L2 has unmapped", nic=NIC)
            t.note(moved)
            t.ok(moved.device_pages > 0, f"{what}: the device has logged pages: {moved.device_pages}")
            t.equal(l2.traced(src, "vhost_vdpa_log_fault"), [], f"{what}: and has missed none")
            unmapped = flushed(src)
            t.ok((unmapped > 0) == (way != PASSED),
                 f"{what}: pages that were logged and unmapped before they were read: {unmapped}")
            t.equal(l2.said(src), "", f"{what}: L2's QEMU has nothing to say")
            nested.well(t, what, traffic)
    nested.end(t, lab, traffic)


with tap.Tap() as t:
    for way in WAYS:
        with nested.make_lab(rate=RATE, pages=PAGES) as lab:
            there_and_back(t, lab, way)
