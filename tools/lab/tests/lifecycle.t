#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=248 variants=stock form=all
"""L2 does not stand still for a migration. It is reset, reboots, loads its driver anew, or powers off
while its memory is under way and its device logs; and the two ends differ: the destination's device
lacks a feature, and the migration fails with a reason; it has another MAC, or another MTU. Otherwise L2
comes through with its network, and after the failure, too."""
import dataclasses
import tempfile
import time
import types

from testlib import nested, tap
from testlib.faults import SLOW, first_pass
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.migration import Migration, migrate

FAST = 1 << 30
OTHER_MAC = "52:54:00:77:00:99"
# VIRTIO_NET_F_MTU, MAC, MRG_RXBUF, STATUS, VIRTIO_F_EVENT_IDX, VERSION_1, ACCESS_PLATFORM
FEATURES = sum(1 << bit for bit in (3, 5, 15, 16, 29, 32, 33))
EVENT_IDX = 1 << 29
MTU = 1500


def reset(migration):
    """By the VMM."""
    migration.cmd("system_reset")


def reboot(migration):
    """By the guest, at once."""
    l2.console(migration.src, "echo b >/proc/sysrq-trigger")


def reload(migration):
    """The guest's driver, and so its device, is taken away and comes back."""
    l2.console(migration.src,
               "ip link set eth0 down && busybox rmmod virtio_net && insmod /lib/modules/*virtio_net.ko && "
               "ip addr add $(sed -n 's/.*lab.address=\\([^ ]*\\).*/\\1/p' /proc/cmdline)/24 dev eth0 && "
               "ip link set eth0 up && echo reloaded")


def wait(reached, seconds, what):
    """Until reached() is true."""
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise LabError(f"not within {seconds} s: {what}")
        time.sleep(0.2)


def moved_in_line(t):
    """A boot is counted once, wherever in its line L2 was moved."""
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        l1s = [types.SimpleNamespace(share=share) for share in (here, there)]
        counts = set()
        for cut in range(len(l2.up_line) + 1):
            for share, part in (here, l2.up_line[:cut]), (there, l2.up_line[cut:]):
                with open(f"{share}/l2.console.log", "w", encoding="ascii") as file:
                    file.write(part)
            counts.add(l2.boots(*l1s))
    t.equal(counts, {1}, "a boot is counted once, wherever in its line L2 was moved")


def reloaded(l1):
    """Has the L2 in that L1 loaded its driver anew?"""
    return "\nreloaded" in l2.shown(l1)


def happens(t, lab, src, dst, what, happen):
    """One migration while that happens; it goes through."""
    boots = l2.boots(src)
    enabled = len(src.events("virtio_lm_queue_enabled"))
    with Migration(src, dst, max_bandwidth=SLOW) as migration:
        first_pass(t, migration)
        happen(migration)
        if happen is reload:
            wait(lambda: reloaded(src), PATIENCE, "L2's driver comes back")
            t.ok(len(src.events("virtio_lm_queue_enabled")) > enabled, f"{what}: the device has started anew")
        migration.cmd("migrate-set-parameters", **{"max-bandwidth": FAST})
        t.note(migration.finish())
    if happen is not reload:
        wait(lambda: l2.boots(src, dst) > boots, PATIENCE, "L2 boots again, here or there")
    t.equal(l2.running(dst), "running", f"{what}: L2 runs on the destination")
    t.ok(not src.logging() and not dst.logging(), f"{what}: no device logs any more")
    nested.well_anew(t, lab, what)


def never_up(t, l1):
    """Its kernel finds no root and panics, and its QEMU, which keeps what has ended, stops it for good."""
    usual, l1.config = l1.config, dataclasses.replace(l1.config, l2_append="rdinit=/none", l2_qemu_args="-no-shutdown")
    l2.start(l1)
    try:
        l2.wait_up(l1)
        said = "it is up"
    except LabError as err:
        said = str(err)
    t.ok("L2 was stopped while booting" in said, "an L2 that is stopped for good while it boots is not waited for")
    t.note(said)
    l2.stop(l1)
    l1.config = usual


def power_off(t, lab, src, dst):
    """L2's QEMU ends with it, in the middle of a migration; nothing is left of either."""
    with Migration(src, dst, max_bandwidth=SLOW) as migration:
        first_pass(t, migration)
        l2.console(src, "echo o >/proc/sysrq-trigger")
        for l1 in src, dst:
            wait(lambda l1=l1: not l2.alive(l1), PATIENCE, f"L2's QEMU ends in {l1.name}")
    t.note(l2.complaint(dst))
    t.ok(not src.logging(), "powered off: the device does not log")
    l2.start(src)
    l2.wait_up(src)
    nested.well_anew(t, lab, "powered off, and on again")


def again(l1, mac=l2.mac, features=FEATURES, mtu=MTU):
    """The L1's vDPA device, made anew, of another kind."""
    l1.sh("vdpa dev del vdpa0")
    l2.take_over(l1, mac=mac, words=("device_features", hex(features), "mtu", str(mtu)))


def ends_differ(t, lab, src, dst):
    """What the destination's device is made with."""
    # L2 negotiates what the source has
    l2.stop(src)
    for l1 in src, dst:
        again(l1)
    l2.start(src)
    l2.wait_up(src)
    nested.well_anew(t, lab, "both ends alike")

    again(dst, features=FEATURES & ~EVENT_IDX)
    try:
        moved = migrate(src, dst)
        t.ok(False, f"the destination lacks a feature: the migration fails: {moved}")
    except LabError as err:
        t.ok(True, "the destination lacks a feature: the migration fails")
        t.note(err)
    t.ok("eatures" in l2.said(dst), "the destination lacks a feature: its QEMU says so")
    l2.stop(dst)
    t.equal(l2.running(src), "running", "the destination lacks a feature: L2 runs where it was")
    nested.well_anew(t, lab, "the destination lacks a feature")

    for what, words in ("another MAC", {"mac": OTHER_MAC}), ("another MTU", {"mtu": MTU - 100}):
        again(dst, **words)
        t.note(migrate(src, dst))
        src, dst = dst, src
        nested.well_anew(t, lab, what)
        again(dst)


with tap.Tap() as t:
    moved_in_line(t)
    with nested.make_lab() as lab:
        for l1 in lab.l1s:
            l1.config = dataclasses.replace(lab.config, l2_qemu_args="-action reboot=reset")
            l2.take_over(l1)
        src, dst = lab.l1s
        never_up(t, src)
        l2.start(src)
        l2.wait_up(src)
        for what, happen in ("reset", reset), ("reboot", reboot), ("driver reloaded", reload):
            happens(t, lab, src, dst, what, happen)
            src, dst = dst, src
        power_off(t, lab, src, dst)
        ends_differ(t, lab, src, dst)
        t.clean_logs(lab)
