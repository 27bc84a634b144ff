#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=200 variants=stock
"""An L2 with an IOMMU of its own migrates there and back on its device's log, which has the addresses that
L2's kernel has given the device and not those of L2's memory: where that kernel lets the device through to all
of L2's memory, and where it maps each packet, unmaps it, and gives its address to the next one."""
import dataclasses

from testlib import kselftest, nested, tap
from vlm import l2
from vlm.migration import migrate
from vlm.traffic import Traffic

# VIRTIO_NET_F_MAC, MRG_RXBUF, STATUS, VIRTIO_F_EVENT_IDX, VERSION_1, ACCESS_PLATFORM: behind a vIOMMU QEMU cannot
# shadow a control virtqueue
FEATURES = sum(1 << bit for bit in (5, 15, 16, 29, 32, 33))
WAYS = {"passed through": "intel_iommu=on iommu=pt", "translated": "intel_iommu=on"}
# packets and pages per second: each of them is mapped and unmapped by L2's kernel, its VMM, L1's kernel and L0
RATE, PAGES = 20, 64
MOVES = 2


def there_and_back(t, lab, way, words):
    """An L2 with those words for its kernel."""
    here, there = lab.l1s
    nic = ["-device", "intel-iommu,caching-mode=on",
           *l2.netdev(l2.NODE, "device", ",iommu_platform=on,disable-legacy=on")]
    for l1 in lab.l1s:
        l1.config = dataclasses.replace(lab.config, l2_append=words)
        l2.take_over(l1, words=("device_features", hex(FEATURES)))
    l2.start(here, nic=nic)
    l2.wait_up(here)
    traffic = Traffic(lab, f"traffic-{way.replace(' ', '-')}")
    traffic.wait_both_ways()
    traffic.wait_pass(held=False)
    for n in range(1, MOVES + 1):
        src, dst = (here, there) if n % 2 else (there, here)
        with traffic.may_lose(f"{way}, move {n}"):
            moved = migrate(src, dst, nic=nic)
            t.note(moved)
            t.ok(moved.device_pages > 0, f"{way}, move {n}: the device has logged pages: {moved.device_pages}")
            t.equal(l2.traced(src, "vhost_vdpa_log_fault"), [], f"{way}, move {n}: and has missed none")
            nested.well(t, f"{way}, move {n}", traffic)
    t.equal(l2.said(here), "", f"{way}: L2's QEMU has nothing to say")
    nested.end(t, lab, traffic)


with tap.Tap() as t:
    for way, words in WAYS.items():
        with nested.make_lab(rate=RATE, pages=PAGES) as lab:
            there_and_back(t, lab, way, words)
