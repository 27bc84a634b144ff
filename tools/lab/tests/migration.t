#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=242,150,557 variants=stock,newest,debug form=both,both,all
"""L2 migrates live between two L1s, there and back, with its virtqueues in the devices' hands: the
device logs the pages that it dirties. Under traffic in both directions, all the while. What goes
wrong in a migration leaves L2 where it was, with its traffic, its memory and a device that does not
log; and the next migration succeeds. On the debug kernel the log gets no memory, once: that migration
is refused. Packets to L2 are lost in one run for each time that its device
stops, and at no other time; what stops no device loses none. A device that lacks what L2 uses is
refused. Then with a log that fails for some passes: all of L2's RAM is dirty at each of them, and L2
runs on. At last by QEMU's shadow virtqueues, for that is all there is where one of the parts has no
dirty log, or one that a VMM cannot rely upon; and after such a migration that has lost its
destination, L2 goes on, too."""
import dataclasses
import functools
import re
import time

from testlib import debug, nested, tap
from testlib.faults import FAULTS, PAUSE, kill_after_the_stop
from testlib.kselftest import CANNOT_TELL, DRIVER
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import DEBIAN_QEMU, l2
from vlm.migration import PAGES_EVENT, Migration
from vlm.traffic import device_stops

# registers of the LM block, see include/linux/virtio_lm.h
LOGGING_CTRL, DEV_CTRL, STATUS = 0x00, 0x08, 0x0c
# There and back. On a debug kernel each of them takes four times as long, and to an L1 with the links
# cut a migration is one that is cancelled
ROUNDS = tap.parameter("rounds", 5 if tap.long_form() else {"newest": 1, "debug": 3}.get(tap.VARIANT, 5))
# how many migrations there are until one has something go wrong before it
UNDISTURBED = 1
# until the log is mended
FAILED_PASSES = 3
# All of L2's RAM, dirty again, would fit into QEMU's usual downtime and end the migration. While the log fails it may
# take a short one only
NO_DOWNTIME_MS, DOWNTIME_MS = 1, 300
# where L2's PCI host bridge leads, but to no device
NO_DEVICE = 0xfd000000
ACCESSES = 100


def accesses(l1, since):
    """The accesses to its device's registers since then: those that have started the log, those from there
    to the one that suspends, and the last that writes LM_LOGGING_CTRL and on, as far as LM_STATUS is
    read."""
    events = l1.events("virtio_lm_read", "virtio_lm_write", since=since)
    registers = [(name, int(re.search(r"addr (0x\w+)", text)[1], 16)) for _, name, text in events]
    read = "virtio_lm_read", STATUS
    started = 1 + registers.index(read, registers.index(("virtio_lm_write", LOGGING_CTRL)))
    last = len(registers) - 1 - registers[::-1].index(("virtio_lm_write", LOGGING_CTRL))
    stopped = next(n for n in range(last + 1, len(registers) + 1) if registers[n:n + 1] != [read])
    suspended = registers.index(("virtio_lm_write", DEV_CTRL))
    return registers[:started], registers[started:suspended], registers[last:stopped]


def measure_dirty_rate(l1):
    """Have L2's QEMU find out how many pages become dirty: the other reason to log."""
    end = time.monotonic() + PATIENCE
    conn = l2.qmp(l1)
    try:
        conn.cmd("calc-dirty-rate", **{"calc-time": 1, "mode": "dirty-bitmap"})
        while conn.cmd("query-dirty-rate")["status"] != "measured":
            if time.monotonic() > end:
                raise LabError(f"{l1.name}: no dirty rate within {PATIENCE} s")
            time.sleep(0.2)
    finally:
        conn.close()


def move(t, what, src, dst, traffic, meanwhile=lambda migration: None, **options):
    """One migration, after which all is well; what it took. options: Migration's."""
    with traffic.may_lose(what, device_stops(l2.dirty_log(src))):
        with Migration(src, dst, **options) as migration:
            meanwhile(migration)
            moved = migration.finish()
        t.note(f"{moved}; unserved {moved.unserved_ms:.0f} ms")
        t.equal(l2.running(dst), "running", f"{what}: L2 runs on the destination")
        t.equal(l2.running(src), None, f"{what}: and nowhere else")
        t.ok(not src.logging() and not dst.logging(), f"{what}: no device logs any more")
        nested.well(t, what, traffic)
    return moved


def go_wrong(t, what, src, dst, traffic, happen, options, may_stop):
    """A migration that has something go wrong."""
    with traffic.may_lose(what, may_stop):
        with Migration(src, dst, **options) as migration:
            happen(t, migration, traffic)
        l2.stop(dst)
        t.equal(l2.running(src), "running", f"{what}: L2 runs where it was")
        nested.well(t, what, traffic)
    t.ok(not src.logging(), f"{what}: and its device does not log")


def no_memory(t, src, dst, traffic):
    """A migration whose log cannot be started."""
    what = "no memory for the log"
    with traffic.may_lose(what, 0):
        with debug.no_memory(src, DRIVER, "virtio_lm_cover"), Migration(src, dst) as migration:
            why = migration.wait("failed").get("error-desc", "")
        t.ok("Cannot allocate memory" in why, f"{what}: the migration is refused, and L2's QEMU says why")
        t.note(why)
        l2.stop(dst)
        t.equal(l2.running(src), "running", f"{what}: L2 runs on")
        nested.well(t, what, traffic)
    t.ok(not src.logging(), f"{what}: and its device does not log")


def fail_for_a_while(t, migration):
    """The log fails for some passes."""
    what, here = "a failing log", migration.src
    migration.wait("active", reached=lambda info: info["ram"]["dirty-sync-count"] > FAILED_PASSES)
    t.equal(migration.cmd("query-status")["status"], "running",
            f"{what}: L2 is not stopped with all of its RAM to be sent")
    faults = len(l2.traced(here, "vhost_vdpa_log_fault"))
    t.ok(faults >= FAILED_PASSES, f"{what}: each pass tells of it: {faults}")
    t.ok("taking all RAM as dirty" in l2.said(here), f"{what}: L2's QEMU says that it sends all RAM again")
    here.misbehave(0, log_fault_after=0)
    migration.cmd("migrate-set-parameters", downtime_limit=DOWNTIME_MS)


def by_shadow(t, what, src, dst, traffic):
    """One migration by shadow virtqueues."""
    begin = time.time()
    move(t, what, src, dst, traffic)
    t.equal(src.events("virtio_lm_log_start", since=begin), [], f"{what}: the device has not logged")


def fault_and_access(t, l1):
    """In L2, a page fault and then an access to a device's memory, for which L1's KVM emulates the instruction. By
    what L0 tells it, it may take that for one in the middle of an exception, and stop L2."""
    l2.console(l1, f"agent device {NO_DEVICE:#x} {ACCESSES}")
    end = time.monotonic() + PATIENCE
    while f"accesses={ACCESSES}." not in l2.shown(l1) and l2.running(l1) == "running" and time.monotonic() < end:
        time.sleep(0.5)
    t.ok(f"accesses={ACCESSES}." in l2.shown(l1), "L2 accesses memory of devices right after page faults")
    t.note(f"L2 is {l2.running(l1)}; its QEMU has said: {l2.said(l1)[:200]!r}")


with tap.Tap() as t, nested.make_lab() as lab:
    here, there = lab.l1s
    traffic = nested.boot(t, lab)
    fault_and_access(t, here)
    logs = "virtio_lm_log_start", "virtio_lm_log_stop"
    t.equal(here.events(*logs), [], "the device does not log before a migration")
    measure_dirty_rate(here)
    t.equal(tuple(name for _, name, _ in here.events(*logs)), logs, "calc-dirty-rate: it logs, and then no more")

    for capability, why in (("postcopy-ram", "migrate without postcopy-ram"),
                            ("background-snapshot", "write protection of background-snapshot")):
        nested.refused(t, capability, here, why, (capability,))
        nested.well(t, capability, traffic)

    if tap.DEBUG:
        no_memory(t, here, there, traffic)

    legs = [(f"round {n + 1}, {src.name} to {dst.name}", src, dst)
            for n in range(ROUNDS) for src, dst in ((here, there), (there, here))]
    begin = time.time()
    for n, (way, src, dst) in enumerate(legs):
        if UNDISTURBED <= n < UNDISTURBED + len(FAULTS):
            fault, *how = FAULTS[n - UNDISTURBED]
            go_wrong(t, f"{way}, {fault}", src, dst, traffic, *how)
        passes = len(l2.traced(src, PAGES_EVENT))
        moved = move(t, way, src, dst, traffic)
        passes = len(l2.traced(src, PAGES_EVENT)) - passes
        t.ok(moved.device_pages > 0, f"{way}: the device has logged pages: {moved.device_pages}")
        t.equal(l2.traced(src, "vhost_vdpa_log_fault"), [], f"{way}: and has missed none")
        if n == 0:
            starts, reads, stops = accesses(src, begin)
            t.at_most(len(starts), 7, f"{way}: registers that it takes to start the log")
            t.equal(set(reads), {("virtio_lm_read", STATUS)}, f"{way}: while it logs only LM_STATUS is read")
            # and the last pass comes after the suspend
            t.equal(len(reads), passes - 1, f"{way}: once for each pass")
            t.at_most(len(stops), 2, f"{way}: and registers that it takes to stop it")

    for fault, *_ in FAULTS[max(0, len(legs) - UNDISTURBED):]:
        t.skip(fault, f"{ROUNDS} rounds there and back have too few migrations")

    what = "to a device without a mailbox"
    nested.other_device(there, nested.NO_MAILBOX)
    go_wrong(t, what, here, there, traffic, lambda _t, migration, _traffic: migration.wait("failed"), {}, 1)
    # the number of vectors, which a NIC with a control virtqueue has two more of
    t.ok("get_pci_config_device: Bad config data: i=0x9a" in l2.said(there),
         f"{what}: L2's QEMU there says that it is refused")
    t.note(l2.said(there))
    nested.other_device(there, nested.ALL_CAPS)

    # what the device dirties from its second page on, it does not know
    here.misbehave(0, log_fault_after=1)
    there.config = dataclasses.replace(lab.config, l2_qemu=DEBIAN_QEMU)
    move(t, "a failing log", here, there, traffic, functools.partial(fail_for_a_while, t),
         downtime_limit=NO_DOWNTIME_MS)

    here.sh(f"rmmod {DRIVER} vhost_vdpa vdpa")
    if tap.DEBUG:
        # its kernel has no vDPA modules without a log
        what = "a device that cannot tell what it has not logged"
        here.misbehave(0, log_fault_after=0, caps=CANNOT_TELL)
    else:
        what = "stock modules"
        here.config = dataclasses.replace(lab.config, vdpa_modules="stock")
    l2.take_over(here)
    t.equal(l2.dirty_log(there), "unknown", "Debian's own QEMU: it knows of one way only")
    by_shadow(t, "Debian's own QEMU", there, here, traffic)
    t.equal(l2.dirty_log(here), "svq", f"{what}: L2's QEMU says that it migrates by shadow virtqueues")
    go_wrong(t, f"{what}, destination killed after the stop", here, there, traffic, kill_after_the_stop,
             {"capabilities": [PAUSE]}, device_stops("svq"))
    by_shadow(t, what, here, there, traffic)

    nested.end(t, lab, traffic)
