#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=200 variants=stock form=all
"""Behind each kind of IOMMU L2 migrates there and back on its device's log. The driver keeps the log's bitmap
in the IOMMU's address space, at the top of what can be mapped, and no two kinds agree on where that is: Intel's
with 39 bits reaches less than the kernel says, Intel's with first-level tables has a sign bit, AMD's is another
driver in the kernel. The last one's L1s are of an older type of machine."""
import subprocess

from testlib import nested, tap
from testlib.faults import SLOW, first_pass
from vlm.l2 import l2
from vlm.migration import BANDWIDTH, Migration
from vlm.traffic import Traffic

# 6.12 tries the address that its driver has asked about, and says so each time that the node is opened
WIDTH = r"iommu width \(39\) is not sufficient for the mapped address"
# An older type of machine, whose devices have the defaults of that version
OLDER = "pc-q35-8.2"
# QEMU's words for it and for the machine, where the log is to end, and the complaints of the kernel that belong to it
KINDS = {
    "Intel, 39 bits": ({"iommu": "intel-iommu,intremap=on,device-iotlb=on,aw-bits=39"}, 1 << 39, WIDTH),
    "Intel, first-level tables": (
        {"iommu": "intel-iommu,intremap=on,device-iotlb=on,aw-bits=48,x-scalable-mode=on,x-flts=on"}, 1 << 47, None),
    "AMD, older machine": ({"iommu": "amd-iommu,dma-remap=on", "machine": OLDER}, 1 << 47, None),
}


def known(words):
    """Does this QEMU know each of those properties?"""
    device, *properties = words.split(",")
    text = subprocess.run([tap.config().qemu, "-device", f"{device},help"], text=True, check=True,
                          stdout=subprocess.PIPE).stdout
    return all(f" {word.partition('=')[0]}=" in text for word in properties)


def there_and_back(t, lab, kind, end):
    """L2, moved twice."""
    for l1 in lab.l1s:
        t.equal(l2.take_over(l1), l2.node, f"{kind}: {l1.name}: the driver takes the function over")
    here, there = lab.l1s
    l2.start(here)
    l2.wait_up(here)
    traffic = Traffic(lab, f"traffic-{kind.replace(' ', '-')}")
    traffic.wait_both_ways()
    traffic.wait_pass(held=False)
    for src, dst in (here, there), (there, here):
        what = f"{kind}, {src.name} to {dst.name}"
        with traffic.may_lose(what):
            with Migration(src, dst, max_bandwidth=SLOW) as migration:
                first_pass(t, migration)
                t.equal(src.qmp("qom-get", path="/machine/peripheral/vdpa0", property="lm-log-end"), end,
                        f"{what}: the log ends where this IOMMU's addresses do")
                migration.cmd("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH})
                moved = migration.finish()
            t.note(moved)
            t.ok(moved.device_pages > 0, f"{what}: the device has logged pages: {moved.device_pages}")
            t.equal(l2.traced(src, "vhost_vdpa_log_fault"), [], f"{what}: and has missed none")
            nested.well(t, what, traffic)
    return traffic


with tap.Tap() as t:
    for kind, (words, end, provoked) in KINDS.items():
        if not known(words["iommu"]):
            t.skip(kind, "this QEMU has none")
            continue
        with nested.make_lab(**words) as lab:
            nested.end(t, lab, there_and_back(t, lab, kind, end), provoked)
