#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=200 variants=stock needs=libvirt form=all
"""libvirt starts an L2 on a vDPA device and moves it as any other guest: Debian's libvirtd, in each L1, with
samples/libvirt/l2.xml and `virsh migrate --live`, there and back, under traffic. With Debian's own QEMU, by
shadow virtqueues, and with the lab's as the emulator, by the device's log. QEMU is not root there: libvirt opens
the device and raises the limit of locked memory."""
from testlib import libvirt, nested, tap
from vlm.l2 import DEBIAN_QEMU, l2
from vlm.traffic import Traffic, account, device_stops

# the emulator, and how it migrates
WAYS = (("Debian's QEMU", DEBIAN_QEMU, "unknown"), ("the lab's QEMU", tap.config().l2_qemu, "device"))


def there_and_back(t, lab, who, emulator, way):
    """An L2 of that emulator."""
    here, there = lab.l1s
    libvirt.start(here, libvirt.domain(lab, emulator))
    l2.wait_up(here)
    t.equal(libvirt.dirty_log(here), way, f"{who}: how it migrates")
    t.equal(here.sh(f"stat -c %U /proc/$(cat {l2.pid_file})").strip(), "libvirt-qemu", f"{who}: and it is not root")
    traffic = Traffic(lab, f"traffic-{way}")
    traffic.wait_both_ways()
    traffic.wait_pass(held=False)
    for src, dst in (here, there), (there, here):
        what = f"{who}, {src.name} to {dst.name}"
        with traffic.may_lose(what, device_stops(way)):
            libvirt.migrate(src, dst)
            nested.well(t, what, traffic)
    traffic.wait_pass()
    account(t, traffic)
    libvirt.destroy(here)


with tap.Tap() as t, nested.make_lab() as lab:
    for l1 in lab.l1s:
        t.equal(l2.take_over(l1), l2.node, f"{l1.name}: the driver takes the function over")
        libvirt.install(l1)
    for who, emulator, way in WAYS:
        there_and_back(t, lab, who, emulator, way)
    t.clean_logs(lab)
