#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=60 variants=stock form=all
"""How many accesses to the function's registers each operation of a VMM takes, exactly, as L1's QEMU counts
them: with one, two and four pairs of queues. What grows with queues grows by the same for each, and what need
not grow does not. There is no clock in it."""
import collections

from testlib import tap
from testlib.registers import LM, MSIX, Registers
from testlib.steps import counted
from vlm.l2 import l2

PAIRS = 1, 2, 4
READ, WRITE = "r", "w"

# Of each operation: (what for, area, read or write, accesses, those for each queue of the pairs besides). The
# control virtqueue is in software. vhost-vdpa asks for the status at each call that depends on it, and the driver
# asks the device, for nothing else tells whether that was reset from outside or has gone
EXPECTED = {
    "dev add": (
        ("reset, and until it has; a look at LM_CAPS", "common", WRITE, 1, 0),
        ("", "common", READ, 1, 0),
        ("", LM, READ, 1, 0),
        ("eight fields of the configuration and the MAC's bytes, between "
         "two looks at its generation", "config", READ, 14, 0),
        ("", "common", READ, 2, 0),
        ("", LM, READ, 1, 0),
        ("features, for what a queue tells only then", "common", WRITE, 6, 0),
        ("", "common", READ, 1, 0),
        ("doorbell and size of each queue, after queue_select", "common", WRITE, 0, 1),
        ("", "common", READ, 0, 2),
        ("reset", "common", WRITE, 1, 0),
        ("", "common", READ, 1, 0),
        ("", LM, READ, 1, 0),
    ),
    "features": (
        ("ACKNOWLEDGE, DRIVER, then FEATURES_OK with the features", "common", WRITE, 7, 0),
        ("the status, by vhost-vdpa before each call, by the driver before what "
         "follows the first one, after FEATURES_OK, and by the VMM in the end", "common", READ, 8, 0),
        ("the MAC address that was provisioned, as a command", LM, WRITE, 3, 0),
        ("", LM, READ, 1, 0),
    ),
    "queues": (
        ("the status, by vhost-vdpa before base, addresses and "
         "call of each, of the control virtqueue, too", "common", READ, 3, 3),
    ),
    "start": (
        ("the status twice, the configuration's vector", "common", READ, 3, 0),
        ("the vector, DRIVER_OK", "common", WRITE, 2, 0),
        ("ring state, and back", LM, WRITE, 0, 1),
        ("", LM, READ, 0, 1),
        ("queue_select, size, addresses, vector, enable", "common", WRITE, 0, 10),
        ("size, vector, enable, back", "common", READ, 0, 3),
    ),
    "status": (
        ("it", "common", READ, 1, 0),
    ),
    "config": (
        ("eight fields, and the MAC's bytes", "config", READ, 14, 0),
        ("its generation before and after", "common", READ, 2, 0),
        ("a look at LM_CAPS", LM, READ, 1, 0),
    ),
    "log_start": (
        ("fault, addresses of the bitmap, on", LM, WRITE, 6, 0),
        ("is it on", LM, READ, 1, 0),
    ),
    "log_read": (
        ("was a page missed", LM, READ, 1, 0),
    ),
    "log_stop": (
        ("off", LM, WRITE, 1, 0),
        ("is it off", LM, READ, 1, 0),
    ),
    "command": (
        ("the status", "common", READ, 1, 0),
        ("the eight bytes, and run", LM, WRITE, 3, 0),
        ("its ack", LM, READ, 1, 0),
    ),
    "suspend": (
        ("the status twice", "common", READ, 2, 0),
        ("suspend", LM, WRITE, 1, 0),
        ("has it", LM, READ, 1, 0),
    ),
    "get_state": (
        ("the status for each queue, the control virtqueue, too", "common", READ, 1, 1),
        ("its state", LM, READ, 0, 1),
    ),
    "set_state": (
        ("the status for each queue, twice, the control virtqueue, too", "common", READ, 2, 2),
        ("its state", LM, WRITE, 0, 1),
        ("and back", LM, READ, 0, 1),
    ),
    "resume": (
        ("the status twice", "common", READ, 2, 0),
        ("resume", LM, WRITE, 1, 0),
        ("has it: LM_STATUS is 0, so a look at LM_CAPS", LM, READ, 2, 0),
    ),
    "reset": (
        ("the status", "common", READ, 1, 0),
        ("reset, and until it has", "common", WRITE, 1, 0),
        ("", "common", READ, 1, 0),
        ("a look at LM_CAPS", LM, READ, 1, 0),
    ),
    "dev del": (
        ("reset, and until it has", "common", WRITE, 1, 0),
        ("", "common", READ, 1, 0),
        ("a look at LM_CAPS", LM, READ, 1, 0),
    ),
}


def expected(name, pairs):
    """The counts of an operation, as registers.count() has them."""
    counts = collections.Counter()
    for _, area, kind, fixed, each in EXPECTED[name]:
        counts[area, kind] += fixed + 2 * pairs * each
    return +counts


def interrupts(counts, kind):
    """What the kernel's PCI code does with the function's MSI-X table, by pairs."""
    return [counts[pairs][MSIX, kind] for pairs in PAIRS]


tap.need_log()
with tap.Tap() as t, tap.make_lab(queues=max(PAIRS), device_props="iommu_platform=on,ats=on,vdpa=on,mq=on") as lab:
    l1 = lab.l1s[0]
    t.equal(l2.take_over(l1), l2.node, "the driver takes the function over")
    l1.sh("vdpa dev del vdpa0")
    registers = Registers(l1)
    measured = {pairs: counted(l1, registers, pairs) for pairs in PAIRS}
    for name in EXPECTED:
        counts = {pairs: measured[pairs][name] for pairs in PAIRS}
        for pairs in PAIRS:
            have = {area: count for area, count in counts[pairs].items() if area[0] != MSIX}
            t.equal(have, dict(expected(name, pairs)), f"{name}, {pairs} pairs: as many accesses as it takes")
        for kind in READ, WRITE:
            one, two, four = interrupts(counts, kind)
            t.equal(four - two, 2 * (two - one), f"{name}: those to the MSI-X table ({kind}) grow evenly")
            t.note(f"{one}, {two}, {four}")
    t.clean_logs(lab)
