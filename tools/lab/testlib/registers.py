# SPDX-License-Identifier: GPL-2.0-or-later
"""Which registers of a vdpa function L1's driver touches, by the trace of L1's QEMU."""
import collections
import re
import struct

# of QEMU's core; the address is one of L1's memory
EVENTS = "memory_region_ops_read", "memory_region_ops_write"
ADDRESS = re.compile(r"\baddr (0x[0-9a-f]+)")
# virtio 1.3, 4.1.4: what cfg_type of a capability says, and where its fields are in it
VENDOR_CAPABILITY = 0x09
CFG_TYPES = {1: "common", 2: "notify", 3: "isr", 4: "config"}
# The LM block begins behind the notify structure and has no capability of its own. It goes on as far as the BAR
LM = "lm"
MSIX = "msix"


class Registers:
    """The register areas of an L1's vdpa function, by their names: common, config, notify, isr, lm, msix."""

    def __init__(self, l1, function=0):
        self.l1 = l1
        folder = f"/sys/bus/pci/devices/{l1.pci(function)}"
        space = bytes.fromhex(l1.sh(f"od -An -v -tx1 {folder}/config").replace("\n", " "))
        bars = [[int(word, 16) for word in line.split()] for line in l1.sh(f"cat {folder}/resource").splitlines()]
        self.areas = []
        used = set()
        for at in capabilities(space):
            bar, (offset, length) = space[at + 4], struct.unpack_from("<II", space, at + 8)
            name = CFG_TYPES.get(space[at + 3])
            if space[at] != VENDOR_CAPABILITY or not name:
                continue
            used.add(bar)
            start, end = bars[bar][0] + offset, bars[bar][0] + offset + length
            self.areas.append((start, end, name))
            if name == "notify":
                self.areas.append((end, bars[bar][1] + 1, LM))
        # the virtio structures and MSI-X have a BAR each
        self.areas += [(start, end + 1, MSIX) for n, (start, end, _) in enumerate(bars[:6])
                       if start and n not in used]

    def area(self, address):
        """The name of the area that has that address, or None."""
        return next((name for start, end, name in self.areas if start <= address < end), None)

    def trace(self, on):
        """Have L1's QEMU trace each access of a CPU to whatever registers, or no more."""
        for name in EVENTS:
            self.l1.qmp("trace-event-set-state", name=name, enable=on)

    def count(self, act):
        """The accesses while act() runs: a Counter of reads and of writes, by (area, "r" or "w")."""
        before = len(self.l1.events(*EVENTS))
        self.trace(True)
        try:
            act()
        finally:
            self.trace(False)
        counts = collections.Counter()
        for _, name, rest in self.l1.events(*EVENTS)[before:]:
            area = self.area(int(ADDRESS.search(rest)[1], 16))
            if area:
                counts[area, "r" if name == EVENTS[0] else "w"] += 1
        return counts


def capabilities(space):
    """Where they are in PCI configuration space (PCIe 6.0, 7.5.3)."""
    at = space[0x34]
    while at:
        yield at
        at = space[at + 1]
