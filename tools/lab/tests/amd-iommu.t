#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=40 variants=stock form=all
"""Behind QEMU's amd-iommu a vDPA device works as behind its intel-iommu, which all other tests have: L2 has
its network, and every page of its memory is right, which is huge pages, so that IOMMU has large ones to
translate."""
import subprocess

from testlib import tap
from vlm.l2 import l2
from vlm.traffic import Traffic, wrong

L2_MEMORY = 128
# of 2 MiB
HUGE_PAGES = L2_MEMORY // 2


def amd_iommu():
    """QEMU's words for it. From 10.2 on it passes all through unless it is told to translate."""
    known = subprocess.run([tap.config().qemu, "-device", "amd-iommu,help"], text=True, check=True,
                           stdout=subprocess.PIPE).stdout
    return "amd-iommu,dma-remap=on" if "dma-remap" in known else "amd-iommu"


with tap.Tap() as t:
    with tap.make_lab(devices=1, l2_memory=L2_MEMORY, iommu=amd_iommu(), vdpa_modules="stock",
                      l2_qemu_args=f"-object memory-backend-memfd,id=huge,size={L2_MEMORY}M,hugetlb=on "
                                   "-machine memory-backend=huge") as lab:
        l1 = lab.l1s[0]
        l1.sh(f"echo {HUGE_PAGES} >/proc/sys/vm/nr_hugepages; "
              f"grep -q '^HugePages_Total: *{HUGE_PAGES}$' /proc/meminfo")
        t.equal(l2.take_over(l1), l2.node, "the driver takes the function over")
        l2.start(l1)
        l2.wait_up(l1)
        traffic = Traffic(lab)
        traffic.wait_both_ways()
        traffic.wait_pass()
        t.equal(wrong(traffic.finish()), "", "packets go both ways, and every page is right")
        l2.stop(l1)
        t.clean_logs(lab)
