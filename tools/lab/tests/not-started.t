#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=211 variants=stock form=all
"""A vDPA device that cannot be started is no NIC that has a link and no packets: L2's QEMU says why,
and L2 has no link, by PCI or by virtio-mmio, or no L2 is started. Where its memory cannot be mapped there is
no destination for a migration, and L2 goes on where it was; or it has no link there, and gets it back where
its memory can be mapped."""
import dataclasses
import re

from testlib import kselftest, nested, tap
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.machine import MICROVM, MODERN_MMIO, Q35
from vlm.migration import migrate
from vlm.qmp import QMPError
from vlm.traffic import Traffic

LONG_RING = 1024
NO_SIZE = "vhost_set_vring_num failed"
NO_FEATURES = "vhost_set_features failed"


def try_nic(t, l1, what, why, nic, machine=Q35, more=""):
    """An L2 with a NIC that the device does not serve. more: words for its QEMU."""
    config, l1.config = l1.config, dataclasses.replace(l1.config, l2_qemu_args=more)
    l2.start(l1, nic=nic, machine=machine)
    l1.config = config
    l2.wait_up(l1)
    t.ok(nested.sees_link(l1, False), f"{what}: L2 has no link")
    t.ok(why in l2.said(l1) and "no link" in l2.said(l1), f"{what}: and its QEMU says why")


def set_link(l1, up):
    """The link of L2's NIC, by its QEMU."""
    conn = l2.qmp(l1)
    conn.cmd("set_link", name="n0", up=up)
    conn.close()


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
        what = f"rings of {LONG_RING} on a device of {longest}"
        try_nic(t, src, what, NO_SIZE, l2.netdev(l2.node, "auto", f",rx_queue_size={LONG_RING}"))
        l2.stop(src)
        # its queues have so many, whatever the device has
        try_nic(t, src, f"virtio-mmio, {what}", NO_SIZE, l2.mmio(l2.node), MICROVM, MODERN_MMIO)
        l2.stop(src)
    else:
        t.skip("rings that are too long", f"this QEMU's functions have {longest}")
    what = "a legacy transport"
    nic = l2.netdev(l2.node, "svq", ",disable-modern=on,disable-legacy=off")
    try_nic(t, src, what, NO_FEATURES, nic)
    for up in False, True, False, True:
        set_link(src, up)
    t.note(migrate(src, dst, nic=nic))
    t.ok(nested.sees_link(dst, False), f"{what}: after two more tries L2 migrates, to where it has no link, either")
    l2.stop(dst)
    try_nic(t, src, "virtio-mmio, a legacy transport", NO_FEATURES, l2.mmio(l2.node), MICROVM)
    l2.stop(src)

    room(dst, 1)
    try:
        l2.start(dst)
        early = False
        l2.wait_up(dst)
        t.ok(nested.sees_link(dst, False), "memory that cannot be mapped: L2 has no link")
        l2.stop(dst)
    except LabError as err:
        early = True
        t.ok("did not start" in str(err), "memory that cannot be mapped: no L2 is started")
        t.note(err)
    t.ok("cannot reach all of the guest's memory" in l2.said(dst), "memory that cannot be mapped: QEMU says so")
    if early:
        l2.start(dst, nic=["-nic", "none"])
        conn = l2.qmp(dst)
        try:
            said = conn.cmd("netdev_add", type="vhost-vdpa", id="n0", vhostdev=l2.node)
        except QMPError as err:
            said = str(err)
        conn.close()
        t.ok("vhost-vdpa" in said, "memory that cannot be mapped: netdev_add fails")
        t.note(said)
        t.equal(l2.running(dst), "running", "and L2 goes on without it")
        l2.stop(dst)

    l2.start(src)
    l2.wait_up(src)
    t.ok(nested.sees_link(src, True), "an L2 whose device is started has a link")
    set_link(src, False)
    t.ok(nested.sees_link(src, False), "it has none while set_link has taken it away")
    set_link(src, True)
    t.ok(nested.sees_link(src, True), "and has it back afterwards")
    if not early:
        t.note(migrate(src, dst))
        t.ok(nested.sees_link(dst, False), "a migration to such a place ends without a link")
        t.note(migrate(dst, src))
        t.ok(nested.sees_link(src, True), "and the next one, to where there is room, with one")
    traffic = Traffic(lab)
    traffic.wait_both_ways()
    if early:
        try:
            said = f"it has begun: {migrate(src, dst)}"
        except LabError as err:
            said = str(err)
        t.ok("did not start" in said, "no destination for a migration is started in such a place")
        t.note(said)
        t.equal(l2.running(src), "running", "and L2 runs where it was")
        nested.well(t, "where it was", traffic)
    room(dst, 1 << 20)
    with traffic.may_lose("the migration"):
        t.note(migrate(src, dst))
        t.ok(nested.sees_link(dst, True), "with room enough, L2 migrates there and has a link")
        traffic.wait_both_ways()
    nested.end(t, lab, traffic)
