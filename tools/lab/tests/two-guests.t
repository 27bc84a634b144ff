#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=200 variants=stock form=all
"""Two L2s, each on a function of its own, migrate at the same time, and neither gets or loses what is the other's.

First they change places: in each L1 the device of the one logs and is suspended while that of the other gets what
arrives. Then they come together, and leave one L1 side by side, both of whose devices log."""
import contextlib

from testlib import nested, tap
from testlib.faults import SLOW
from vlm.l2 import L2
from vlm.migration import BANDWIDTH, Migration
from vlm.traffic import Traffic, account

GUESTS = [L2(n) for n in range(2)]


def boot(t, lab, places):
    """Each guest in its place; the traffic of each."""
    for l1 in lab.l1s:
        for guest in GUESTS:
            t.equal(guest.take_over(l1), guest.node, f"{l1.name}: the driver takes the function of {guest.name} over")
    for guest, place in zip(GUESTS, places):
        guest.start(place)
    for guest, place in zip(GUESTS, places):
        guest.wait_up(place)
        t.equal(guest.dirty_log(place), "device", f"{guest.name}: migrates by the device's log")
    traffic = [Traffic(lab, f"traffic.{guest.name}", guest=guest) for guest in GUESTS]
    for one in traffic:
        one.wait_both_ways()
        one.wait_pass(held=False)
    return traffic


def move(t, what, moves, traffic):
    """Those guests go, all at once, each from one L1 to another: (guest, source, destination)."""
    with contextlib.ExitStack() as losing:
        for guest, *_ in moves:
            losing.enter_context(traffic[guest.number].may_lose(f"{what}: {guest.name}"))
        with contextlib.ExitStack() as stack:
            under_way = [stack.enter_context(Migration(src, dst, guest=guest, max_bandwidth=SLOW))
                         for guest, src, dst in moves]
            for migration in under_way:
                migration.wait("active", reached=lambda info: info.get("ram", {}).get("dirty-sync-count", 0) > 0)
            for guest, src, _ in moves:
                t.ok(src.logging(guest.number), f"{what}: the device of {guest.name} logs while memory is copied")
            for migration in under_way:
                migration.cmd("migrate-set-parameters", max_bandwidth=BANDWIDTH)
            for migration in under_way:
                t.note(f"{what}: {migration.guest.name}: {migration.finish()}")
        for guest, src, dst in moves:
            t.equal((guest.alive(src), guest.running(dst)), (False, "running"),
                    f"{what}: {guest.name} runs in {dst.name} alone")
        for guest, *_ in moves:
            nested.well(t, f"{what}: {guest.name}", traffic[guest.number])
            traffic[guest.number].wait_pass(held=False)
    for guest, src, _ in moves:
        t.ok(not src.logging(guest.number), f"{what}: the device that {guest.name} had does not log")


with tap.Tap() as t, nested.make_lab(devices=2) as lab:
    a, b = lab.l1s
    one, two = GUESTS
    traffic = boot(t, lab, (a, b))
    move(t, "places changed", [(one, a, b), (two, b, a)], traffic)
    move(t, "come together", [(one, b, a)], traffic)
    move(t, "side by side", [(one, a, b), (two, a, b)], traffic)
    for each in traffic:
        each.wait_pass()
        account(t, each)
    for guest in GUESTS:
        guest.stop(b)
    t.clean_logs(lab)
