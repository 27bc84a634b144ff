#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=kselftest cost=218 variants=stock form=all
"""A virtual function is a vDPA device like any other: an L2 on it migrates there and back on its log,
under traffic, and all kselftests pass on it. Its physical function is left to virtio-pci."""
from testlib import kselftest, nested, sriov, tap
from vlm.migration import migrate

MOVES = 4

if not sriov.there():
    tap.skip_all("this QEMU has no virtual functions")
FUNCTIONS = {"device_props": f"{kselftest.PROPS},{sriov.VIRTUAL}", "qemu_args": sriov.PHYSICAL}


def made(t, l1):
    """The virtual function is there."""
    physical = l1.pci(0)
    sriov.make(l1)
    t.ok(l1.pci(0) != physical, f"{l1.name}: its function is a virtual one")


with tap.Tap() as t:
    with nested.make_lab(**FUNCTIONS) as lab:
        src, dst = lab.l1s
        made(t, src)
        made(t, dst)
        traffic = nested.boot(t, lab)
        for n in range(1, MOVES + 1):
            with traffic.may_lose(f"move {n}"):
                moved = migrate(src, dst)
                t.note(moved)
                t.ok(moved.device_pages > 0, f"move {n}: by the device's log, which has pages: {moved.device_pages}")
                nested.well(t, f"move {n}", traffic)
            src, dst = dst, src
        nested.end(t, lab, traffic)

    with tap.make_lab(devices=1, **FUNCTIONS) as lab:
        made(t, lab.l1s[0])
        kselftest.run_logging(t, lab, 0, "virtual function")
        t.clean_logs(lab, f"{kselftest.PROVOKED}|{kselftest.NO_BIT}")
