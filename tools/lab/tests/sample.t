#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=kselftest cost=40 variants=stock form=all
"""samples/vdpa-migrate.c goes from one vDPA device to another, and notices if the device has written what it
has not logged. With a log that fails it copies all of memory. A device that cannot log is refused, and the
sample says so."""
import re

from testlib import kselftest, tap
from vlm.l2 import l2

NODES = "/dev/vhost-vdpa-0", "/dev/vhost-vdpa-1"
PAGES = 64


def migrate(l1):
    """The sample, from the first device to the second one."""
    return l1.run(["sh", "-c", f"ulimit -l unlimited; exec {l1.config.tools}/vdpa-migrate {' '.join(NODES)}"])


def again(l1, **how):
    """The first device, made anew, of a function that misbehaves so."""
    l1.sh(f"vdpa dev del vdpa0; vdpa dev del vdpa1; rmmod {kselftest.DRIVER}")
    l1.misbehave(0, **how)
    take_over(l1)


def take_over(l1):
    """Both functions."""
    for n, node in enumerate(NODES):
        t.equal(l2.take_over(l1, n, name=f"vdpa{n}", mac=""), node, f"vdpa{n} is {node}")


tap.need_log()
with tap.Tap() as t, tap.make_lab(devices=2, device_props=kselftest.PROPS) as lab:
    l1 = lab.l1s[0]
    take_over(l1)
    done = migrate(l1)
    t.note(done.stdout)
    t.equal((done.returncode, done.stderr), (0, ""), "it goes through")
    passes = [int(n) for n in re.findall(r"pass \d+: (\d+) pages", done.stdout)]
    t.ok(len(passes) == 5 and all(0 < n < PAGES for n in passes), "each pass copies some pages, and not all")
    t.ok("migrated at frame" in done.stdout, "and it says where it has migrated")

    again(l1, log_fault_after=1)
    done = migrate(l1)
    t.equal(done.returncode, 0, "with a log that fails it goes through, too")
    t.ok(f"suspended: {PAGES} pages" in done.stdout, "and copies all pages then")

    again(l1, log_fault_after=0, drop_log_every=1)
    done = migrate(l1)
    t.equal(done.returncode, 1, "with a log that loses bits it does not")
    t.ok("has written what it has not logged" in done.stderr, "and it says why")

    again(l1, drop_log_every=0, caps=kselftest.CANNOT_TELL)
    done = migrate(l1)
    t.equal(done.returncode, 1, "a device that cannot log is refused")
    t.ok("cannot log what it writes" in done.stderr, "and it says why")
    t.clean_logs(lab)
