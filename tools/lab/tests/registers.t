#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=60 variants=stock
"""How many accesses to the function's registers each operation of a VMM takes, exactly, as L1's QEMU counts
them: with one, two and four pairs of queues. What grows with queues grows by the same for each, and what need
not grow does not. There is no clock in it."""
import collections
import select
import subprocess

from testlib import tap
from testlib.registers import LM, MSIX, Registers
from vlm import l2
from vlm.l1 import LabError

PAIRS = 1, 2, 4
SECONDS = 240
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
# the first reset and the last one are different: there is something to stop at the last
ORDER = ("features", "queues", "start", "status", "config", "log_start", "log_read", "log_stop", "command",
         "suspend", "get_state", "set_state", "resume", "reset")


class Steps:
    """vdpa_step in an L1, on its device."""

    def __init__(self, l1):
        self.proc = l1.popen(["env", f"VDPA_DEV={l2.NODE}", f"{l1.config.tools}/kselftest/vdpa_step"], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def step(self, name):
        """Take one."""
        self.proc.stdin.write(f"{name}\n")
        self.proc.stdin.flush()
        said = self.proc.stdout.readline() if select.select([self.proc.stdout], [], [], SECONDS)[0] else ""
        if said != f"{name}=0\n":
            raise LabError(f"step {name}: want {name}=0, have {said.strip() or 'nothing'}")

    def end(self):
        """The last one."""
        self.step("close")
        self.proc.communicate(timeout=SECONDS)


def measure(l1, registers, pairs):
    """Each step's accesses, by its name."""
    add = f"vdpa dev add name vdpa0 mgmtdev pci/{l1.pci(0)} mac {l2.MAC} max_vqp {pairs}"
    counts = {"dev add": registers.count(lambda: l1.sh(add))}
    steps = Steps(l1)
    steps.step("open")
    steps.step("reset")
    for name in ORDER:
        counts[name] = registers.count(lambda: steps.step(name))
    steps.end()
    counts["dev del"] = registers.count(lambda: l1.sh("vdpa dev del vdpa0"))
    return counts


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
    t.equal(l2.take_over(l1), l2.NODE, "the driver takes the function over")
    l1.sh("vdpa dev del vdpa0")
    registers = Registers(l1)
    measured = {pairs: measure(l1, registers, pairs) for pairs in PAIRS}
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
