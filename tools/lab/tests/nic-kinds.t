#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=335 variants=stock form=all
"""L2's NIC can be of other kinds than the usual one:

* all of the vDPA device, of which Debian's QEMU knows no more than that it is one (vhost-vdpa-device-pci):
  L2 has its network, again after each reset, and a migration is refused;
* with a control virtqueue of the device's own, which QEMU cannot see: a migration is refused, as what L2
  has set by it would be lost;
* behind a vIOMMU that tells nothing of its mappings: L2's QEMU says what is missing. Behind one that does, by
  shadow virtqueues: a migration is refused;
* on virtio-mmio, without PCI and MSI-X: L2 migrates there and back;
* with packed rings, indirect descriptors, queues that are reset one by one and doorbells in a page each: L2
  migrates there and back, with all of its state in the device's hands.
"""
import dataclasses

from testlib import kselftest, nested, tap
from vlm import net
from vlm.l2 import DEBIAN_QEMU, generic_device, l2
from vlm.machine import MICROVM, MODERN_MMIO
from vlm.migration import migrate
from vlm.traffic import Traffic

RESETS = 3
# VIRTIO_NET_F_MAC, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX, VIRTIO_F_EVENT_IDX, VERSION_1, ACCESS_PLATFORM
CTRL_FEATURES = sum(1 << bit for bit in (5, 15, 16, 17, 18, 29, 32, 33))
# the same without CTRL_VQ and CTRL_RX: QEMU shadows a control virtqueue, and behind a vIOMMU it cannot
PLAIN_FEATURES = sum(1 << bit for bit in (5, 15, 16, 29, 32, 33))
# VIRTIO_NET_F_MAC, MRG_RXBUF, STATUS, VIRTIO_F_INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM,
# RING_PACKED, IN_ORDER, RING_RESET
RING_FEATURES = sum(1 << bit for bit in (5, 15, 16, 28, 29, 32, 33, 34, 35, 40))
RINGS = "packed=on,in_order=on,page-per-vq=on"
MOVES = 4
# LM_CAPS without VIRTIO_LM_CAP_CTRL, and as it is
NO_MAILBOX, TRUE_CAPS = 0x4d4c0107, -1


def generic(t, lab, l1):
    """A QEMU that leaves all of the device to its parent; control virtqueue and all."""
    what = "vhost-vdpa-device-pci"
    l1.config = dataclasses.replace(lab.config, l2_qemu=DEBIAN_QEMU, l2_qemu_args="-action reboot=reset")
    l2.take_over(l1, mac="", words=("device_features", hex(CTRL_FEATURES)))
    l2.start(l1, nic=generic_device(l2.node))
    l2.wait_up(l1)
    nested.well_anew(t, lab, f"{what}, at first")
    for n in range(1, RESETS + 1):
        conn = l2.qmp(l1)
        conn.cmd("system_reset")
        conn.close()
        l2.wait_up(l1, 1 + n)
        nested.well_anew(t, lab, f"{what}, reset {n}")
    nested.refused(t, what, l1, "non-migratable device")
    l2.stop(l1)
    l1.config = lab.config


def anew(l1, caps):
    """The driver will find a function with that LM_CAPS; it reads it once."""
    l1.sh(f"vdpa dev del vdpa0; rmmod {kselftest.DRIVER}")
    l1.misbehave(0, caps=caps)


def control(t, lab, l1):
    """A QEMU that does not see what L2 has its device do: the control virtqueue is the device's own."""
    what = "control virtqueue"
    anew(l1, NO_MAILBOX)
    l2.take_over(l1, mac="", words=("device_features", hex(CTRL_FEATURES)))
    l2.start(l1)
    l2.wait_up(l1)
    t.ok("CTRL_VQ" in str(l2.device_status(l1)["guest-features"]), f"{what}: L2 has negotiated it")
    t.equal(l2.dirty_log(l1), "svq", f"{what}: the log of the device is not relied upon")
    nested.refused(t, what, l1, "the control virtqueue cannot be isolated")
    nested.well_anew(t, lab, f"{what}, L2 goes on")
    l2.stop(l1)
    anew(l1, TRUE_CAPS)


def deaf_iommu(t, lab, l1):
    """The IOMMU that QEMU gives L2 does not tell of what L2 maps."""
    l1.config = dataclasses.replace(lab.config, l2_append="intel_iommu=on")
    l2.take_over(l1, words=("device_features", hex(PLAIN_FEATURES)))
    l2.start(l1, nic=["-device", "intel-iommu", *l2.netdev(l2.node, "auto", ",iommu_platform=on,disable-legacy=on")])
    l2.wait_up(l1)
    t.ok("has no access to the guest's memory behind this vIOMMU" in l2.said(l1)
         and "requires caching mode" in l2.said(l1),
         "a vIOMMU without caching-mode: L2's QEMU says that the device has no access, and what is missing")
    l2.stop(l1)
    l1.sh("vdpa dev del vdpa0")
    l1.config = lab.config
    t.equal(l1.complaints("DMAR: "), [], "and that is all that L1's kernel reports")


def shadow_iommu(t, lab, l1):
    """Shadow virtqueues do not work behind a vIOMMU."""
    what = "a vIOMMU, shadow virtqueues"
    l1.config = dataclasses.replace(lab.config, l2_append="intel_iommu=on iommu=pt")
    l2.take_over(l1, words=("device_features", hex(PLAIN_FEATURES)))
    l2.start(l1, nic=["-device", "intel-iommu,caching-mode=on",
                      *l2.netdev(l2.node, "svq", ",iommu_platform=on,disable-legacy=on")])
    l2.wait_up(l1)
    nested.well_anew(t, lab, what)
    nested.refused(t, what, l1, "do not work behind a vIOMMU")
    nested.well_anew(t, lab, f"{what}, L2 goes on")
    l2.stop(l1)
    anew(l1, TRUE_CAPS)
    l1.config = lab.config


def mmio(t, lab):
    """A microvm."""
    here, there = lab.l1s
    nic = l2.mmio(l2.node)
    for l1 in lab.l1s:
        l1.config = dataclasses.replace(lab.config, l2_qemu_args=MODERN_MMIO)
        l2.take_over(l1)
    l2.start(here, nic=nic, machine=MICROVM)
    l2.wait_up(here)
    nested.well_anew(t, lab, "virtio-mmio")
    for src, dst in (here, there), (there, here):
        moved = nested.move_until(src, dst, lambda src=src: net.received(src.data_tap(0)),
                                  "packets that L2 has sent", nic=nic, machine=MICROVM)
        t.note(moved)
        t.ok(moved.device_pages > 0, f"virtio-mmio: the device has logged pages: {moved.device_pages}")
        nested.well_anew(t, lab, f"virtio-mmio, in {dst.name}")
    l2.stop(here)
    for l1 in lab.l1s:
        l1.config = lab.config
        l1.sh("vdpa dev del vdpa0")


def rings(t, lab):
    """What a ring can be, all at once. Of IN_ORDER L2's kernel knows nothing yet."""
    here, there = lab.l1s
    nic = l2.netdev(l2.node, "auto", f",{RINGS}")
    for l1 in lab.l1s:
        l2.take_over(l1, words=("device_features", hex(RING_FEATURES)))
    l2.start(here, nic=nic)
    l2.wait_up(here)
    features = str(l2.device_status(here)["guest-features"])
    for name in "INDIRECT_DESC", "EVENT_IDX", "RING_PACKED", "RING_RESET":
        t.ok(name in features, f"L2 has negotiated {name}")
    traffic = Traffic(lab)
    traffic.wait_both_ways()
    for n in range(1, MOVES + 1):
        src, dst = (here, there) if n % 2 else (there, here)
        with traffic.may_lose(f"move {n}"):
            moved = migrate(src, dst, nic=nic)
            t.note(moved)
            t.ok(moved.device_pages > 0, f"move {n}: the device has logged pages: {moved.device_pages}")
            nested.well(t, f"move {n}", traffic)
    nested.end(t, lab, traffic)


with tap.Tap() as t:
    with nested.make_lab(device_props=f"{kselftest.PROPS},{RINGS},rx_queue_size=1024,tx_queue_size=1024") as lab:
        generic(t, lab, lab.l1s[0])
        control(t, lab, lab.l1s[0])
        deaf_iommu(t, lab, lab.l1s[0])
        shadow_iommu(t, lab, lab.l1s[0])
        mmio(t, lab)
        rings(t, lab)
