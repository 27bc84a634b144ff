#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=60 variants=stock needs=libvirt form=all
"""libvirt starts an L1 with a vDPA function: Debian's libvirtd, in L0, with samples/libvirt/l1.xml and the lab's
QEMU as the emulator; function and IOMMU are the sample's. The driver takes the function, and an L2 on its device
has its network."""
from testlib import tap
from testlib.libvirt_l1 import LibvirtL1
from vlm.l2 import l2
from vlm.lab import Lab
from vlm.traffic import Traffic, account

with tap.Tap() as t:
    config = tap.config(l2_memory=128)
    lab = Lab(config, tap.run_dir())
    lab.l1s = [LibvirtL1(config, tap.run_dir())]
    with lab:
        l1 = lab.l1s[0]
        t.ok("l1a" in l1.daemon.virsh("list", "--name"), "libvirt has it among its domains")
        t.equal(l2.take_over(l1), l2.node, "in it the driver takes the function over")
        l2.start(l1)
        l2.wait_up(l1)
        traffic = Traffic(lab)
        traffic.wait_both_ways()
        traffic.wait_pass()
        account(t, traffic)
        l2.stop(l1)
        t.clean_logs(lab)
