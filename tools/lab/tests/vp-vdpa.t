#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=25 variants=stock form=all
"""A vDPA device whose configuration has more queue pairs than it has virtqueues for is refused by L2's QEMU, which
names the virtqueue, and goes on. It is that of the kernel's vp_vdpa, on a function with two pairs."""
import contextlib

from testlib import kselftest, tap
from vlm.l2 import l2
from vlm.qmp import QMPError

PAIRS = 2
# the control virtqueue, which comes after those of all pairs
MISSING = f"Cannot get VQ {2 * PAIRS} group"

if not tap.config().simulator:
    tap.skip_all("vp_vdpa is built for the lab's own kernels alone")
with tap.Tap() as t, tap.make_lab(l1s=1, queues=PAIRS, vdpa_modules="stock",
                                  device_props=f"{kselftest.PROPS},mq=on") as lab:
    l1 = lab.l1s[0]
    node = l1.sh(f"/virtio-lm/src/tools/lab/l1-vdpa -d {l1.config.simulator}/vp_vdpa.ko {l1.pci(0)} vdpa0").split()[-1]
    l2.start(l1, nic=["-nic", "none"])
    conn = l2.qmp(l1)
    for what in "the device is refused", "and so it is once more: the first time has left nothing":
        try:
            said = conn.cmd("netdev_add", type="vhost-vdpa", id="n0", vhostdev=node, queues=PAIRS)
        except QMPError as err:
            said = str(err)
        t.ok(MISSING in said, what)
        t.note(said)
    # a QEMU that has ended has closed it
    with contextlib.suppress(OSError):
        conn.close()
    t.equal(l2.running(l1), "running", "and L2 goes on without it")
    l2.stop(l1)
    t.clean_logs(lab)
