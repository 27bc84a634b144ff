#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=kselftest cost=529 variants=debug form=all
"""The kselftests, and the driver's KUnit tests, on a kernel that reports what a stock one lets
pass (tools/linux/debug.config): nothing is reported, no memory is leaked, and the checks are
still on when all is done. So, too, when each allocation fails in its turn, and a hostile VMM makes
calls: VDPA_FUZZ_CALLS of them, VDPA_SEED repeats one (Documentation/kselftest-vdpa.rst).

One function has all that the kselftests can use: a dirty log, doorbells that can be mapped,
indirect descriptors. What takes two address spaces is tried on the simulator.
"""
import os
import re
import time

from testlib import debug, kselftest, tap

SLOW = debug.SLOW
DRIVER = kselftest.DRIVER

# what lacks memory says so: the driver and the library under it, the driver core that has no device
# for them, PCI, interrupts, sockets, the IOMMU's driver
NO_MEMORY = (rf"{kselftest.PROVOKED}|{DRIVER} \S+ (virtio_pci: unable to map|cannot (get|map|set up) )"
             r"|probe with driver \S+ failed with error -(12|14|16|22)|BAR \d: can't reserve"
             r"|driver_sysfs_add failed|kobject: can not set name|failed for \S+ \(error: -12 parent:"
             r"|Failed to add kobject for irq|ioremap memtype_reserve failed -12|no more sockets"
             r"|DMAR: (Can't allocate dmar_domain|Domain initialization failed)"
             r"|kmemleak: Cannot allocate a scan area|Huh VM_FAULT_OOM leaked out")
# what a VMM is told that asks for what cannot be, and whose device uses what it has not mapped
HOSTILE = (rf"{kselftest.PROVOKED}|vhost-vdpa-\d+: no iotlb for asid|vq \d+: cannot be enabled"
           rf"|vq \d+: suspended with descriptors in flight|device refused to log"
           r"|(virtio_lm_\w+|dmar_fault): \d+ callbacks suppressed"
           r"|DMAR: (DRHD: handling fault status|\[DMA (Read|Write) NO_PASID\] Request device)")


def kunit(t, l1):
    """The results of the tests that the driver has run while it was loaded."""
    l1.sh(f"modprobe {DRIVER}")
    text = l1.sh(f"cat {debug.DEBUGFS}/kunit/*/results")
    bad, count = kselftest.results(t, "KUnit", text.splitlines())
    t.ok(count > 10 and not bad, f"KUnit: {count} results, none of them bad")


def counted(figures, pattern):
    """The sum of what the pattern finds in them."""
    return sum(int(found.group(1)) for found in (re.search(pattern, f) for f in figures) if found)


with tap.Tap() as t, tap.make_lab(devices=1, device_props=f"{kselftest.PROPS},page-per-vq=on") as lab:
    l1 = lab.l1s[0]
    t.note(f"up after {l1.ready_seconds:.1f} s")
    begin = time.monotonic()

    def done(what, provoked):
        """The kernel has had nothing to say of it. And for the reader: the time it took."""
        global begin
        found = l1.complaints(provoked)
        if not t.ok(not found, f"{what}: the kernel has nothing to report"):
            t.note("\n".join(found))
        t.note(f"{what}: {time.monotonic() - begin:.0f} s")
        begin = time.monotonic()

    t.equal(l1.sh("dmesg | grep -c 'KernelAddressSanitizer initialized'").strip(), "1", "KASAN is on")
    kunit(t, l1)
    done("KUnit", kselftest.PROVOKED)

    kselftest.run_logging(t, lab, 0, "debug kernel", "doorbell", slow=SLOW)
    done("kselftests", f"{kselftest.PROVOKED}|{kselftest.NO_BIT}")
    # on virtual addresses, as is its default: to map physical ones takes minutes here
    kselftest.run_simulator(t, l1, "", "simulator", "log,log_asid,wire", slow=SLOW,
                            only=["vdpa_log", "vdpa_log_oracle"])
    done("simulator", kselftest.PROVOKED)

    failed = kselftest.run_logging(t, lab, 0, "failing memory", "doorbell", "fail_nth", slow=SLOW,
                                   only=["vdpa_fail_nth"])
    t.figure("allocations that failed, each in its turn", counted(failed, r"fail_nth: (\d+) failures"))
    done("failing memory", NO_MEMORY)

    if tap.long_form() and not os.environ.get("VDPA_FUZZ_CALLS"):
        os.environ["VDPA_FUZZ_CALLS"] = "1000000"
    calls = kselftest.run_logging(t, lab, 0, "hostile VMM", "doorbell", slow=SLOW, only=["vdpa_fuzz"])
    t.figure("calls of a hostile VMM", counted(calls, r"fuzz: (\d+) calls"), 1000000)
    done("hostile VMM", HOSTILE)

    l1.sh(f"modprobe -r {DRIVER} virtio_vdpa vhost_vdpa vhost_iotlb")
    t.equal(l1.sh("grep -E 'vdpa|vhost' /proc/modules || :"), "", "all modules can be unloaded again")
    t.equal(debug.findings(l1), [], "no memory is leaked, lockdep and the checks of DMA are on")
    t.clean_logs(lab)
