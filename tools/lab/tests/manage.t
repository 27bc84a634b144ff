#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=77 variants=stock
"""What an administrator does with the driver, and what its kernel log says of it: who keeps a device
from being deleted, why a request is refused, what an IOMMU lacks; virtual functions; and what a VMM
cannot do to the machine by opening and closing its device."""
import time

from testlib import kselftest, sriov, tap
from testlib.storm import Storm
from vlm.config import PATIENCE

DRIVER = kselftest.DRIVER
LIVES = 20
TRACING = "/sys/kernel/tracing"


# two functions behind one bridge share an IOMMU group
SHARED = ("-device pcie-pci-bridge,id=shared,addr=0x1c" +
          sriov.lost(1, "bus=shared,addr=0x1,disable-legacy=on") +
          sriov.lost(2, "bus=shared,addr=0x2,disable-legacy=on"))
# a physical function comes after its virtual ones
SRIOV = (" -device pcie-root-port,id=sriov,bus=pcie.0,slot=29,chassis=29,addr=0x1d" +
         sriov.lost(3, "bus=sriov,addr=0x0.0x2,sriov-pf=pf", ",ats=on") +
         sriov.lost(4, "bus=sriov,addr=0x0.0x1,sriov-pf=pf", ",ats=on") +
         sriov.lost(5, "bus=sriov,addr=0x0.0x0,id=pf", ",ats=on"))


def give(l1, pci):
    """Bind the driver to the function at that address."""
    l1.sh(f"""modprobe -a vhost_vdpa virtio_vdpa
        [ -d /sys/module/{DRIVER} ] || {f'insmod {l1.config.driver}' if l1.config.driver else f'modprobe {DRIVER}'}
        dev=/sys/bus/pci/devices/{pci}
        echo {DRIVER} >$dev/driver_override
        [ ! -e $dev/driver ] || echo {pci} >$dev/driver/unbind
        echo {pci} >/sys/bus/pci/drivers/{DRIVER}/bind""")


def behind(l1, slot):
    """The addresses of the functions behind the bridge in that slot."""
    return l1.sh(f"cd /sys/bus/pci/devices/0000:00:{slot}.0 && ls -d 0000:??:??.?").split()


def said(l1, words):
    """Whether the kernel says this within the time that a busy machine may need."""
    end = time.monotonic() + PATIENCE
    while words not in l1.sh("dmesg"):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def add(l1, pci, *words):
    """Whether `vdpa dev add` makes a device of it."""
    return l1.run(["vdpa", "dev", "add", "mgmtdev", f"pci/{pci}", *words]).returncode == 0


def opened(l1, name):
    """Open the device's node for vhost-vdpa; what that says, nothing if it is well."""
    l1.sh(f"""cd /sys/bus/vdpa/devices/{name}
        [ -e driver ] && [ "$(basename $(readlink driver))" != vhost_vdpa ] && echo {name} >driver/unbind
        [ -e driver ] || {{ echo vhost_vdpa >driver_override; echo {name} >/sys/bus/vdpa/drivers/vhost_vdpa/bind; }}""")
    return l1.run(["sh", "-c", f": <>/dev/$(ls /sys/bus/vdpa/devices/{name} | grep ^vhost-vdpa-)"]).stderr.strip()


def requests(t, l1, pci):
    """What is refused says why."""
    t.ok(not add(l1, pci, "name", ""), "a device without a name is refused")
    t.ok(said(l1, 'cannot add "": a name is not empty'), "and the log says why")
    t.ok(not add(l1, pci, "name", "v", "device_features", "0x300000008"),
         "MTU without an mtu is refused where the device has none")
    t.ok(said(l1, "0x8 needs mtu as well"), "and the log says what is missing")
    t.ok(add(l1, pci, "name", "v", "device_features", "0x300000008", "mtu", "1400"), "with an mtu it is taken")
    early = l1.run(["vdpa", "dev", "vstats", "show", "v", "qidx", "0"])
    t.ok(early.returncode and "negotiat" in early.stderr,
         "it has no statistics before a driver has its features, and says so")
    t.note(early.stderr.strip())
    l1.sh("vdpa dev del v")


def removal(t, l1, pci):
    """Who is waited for."""
    storm = Storm(l1)
    t.ok(add(l1, pci, "name", "vdpa0"), "the device is made")
    opened(l1, "vdpa0")
    vmm = storm.take("opened")
    ending = l1.popen(["vdpa", "dev", "del", "vdpa0"])
    t.ok(said(l1, "vdpa0 cannot be deleted as long as /dev/vhost-vdpa-0 is open: end vdpa_hold (pid "),
         "a process that keeps a device from being deleted is named, even if it has done nothing with it")
    t.ok(ending.poll() is None, "it is waited for")
    storm.let_go(vmm)
    t.equal(ending.wait(PATIENCE), 0, "and when it has closed the device, that is deleted")


def quiet(t, l1, pci):
    """A process that starts and closes the device again and again interrupts no other CPU."""
    t.ok(add(l1, pci, "name", "vdpa0"), "the device is made")
    opened(l1, "vdpa0")
    storm = Storm(l1)
    # kick_all_cpus_sync() calls do_nothing() on each
    l1.sh(f"cd {TRACING}; echo 1 >events/csd/csd_queue_cpu/enable; echo >trace")
    for _ in range(LIVES):
        storm.let_go(storm.take("running"))
    t.equal(l1.sh(f"grep -c do_nothing {TRACING}/trace || :").strip(), "0",
            f"{LIVES} processes that drive the device send no CPU an IPI")
    l1.sh(f"vdpa dev del vdpa0; echo 0 >{TRACING}/events/csd/csd_queue_cpu/enable")
    t.ok(int(l1.sh(f"grep -c do_nothing {TRACING}/trace || :")) > 0, "one who deletes it does")


def virtual_functions(t, l1):
    """As many as asked for, each a function like any other, whatever their physical one does."""
    physical = behind(l1, "1d")[0]
    node = f"/sys/bus/pci/devices/{physical}"
    give(l1, physical)
    l1.sh(f"echo 2 >{node}/sriov_numvfs")
    functions = behind(l1, "1d")
    t.equal(len(functions), 3, "the physical function has two virtual ones")
    give(l1, functions[1])
    t.ok(add(l1, functions[1], "name", "vdpa0"), "a vDPA device is made of one")
    opened(l1, "vdpa0")
    storm = Storm(l1)
    vmm = storm.take("running")
    t.ok(add(l1, physical, "name", "whole"), "and of the physical one, which is reset by that")
    t.equal(opened(l1, "whole"), "", "and is opened, and closed")
    errnos, ended = storm.let_go(vmm)
    t.ok(ended and "suspend" not in errnos and "base" not in errnos,
         f"the virtual one goes on meanwhile: {errnos or 'all is well'}")
    l1.sh("vdpa dev del whole; vdpa dev del vdpa0")
    l1.sh(f"echo 0 >{node}/sriov_numvfs; echo 1 >{node}/sriov_numvfs")
    t.equal(len(behind(l1, "1d")), 2, "they are taken away, and there again")
    l1.sh(f"echo {physical} >/sys/bus/pci/drivers/{DRIVER}/unbind")
    t.equal(behind(l1, "1d"), [physical], "they go with the driver")


with tap.Tap() as t:
    functions = sriov.there()
    with tap.make_lab(devices=1, device_props=kselftest.PROPS, vdpa_modules="stock",
                      qemu_args=SHARED + (SRIOV if functions else "")) as lab:
        l1 = lab.l1s[0]
        give(l1, l1.pci(0))
        requests(t, l1, l1.pci(0))
        removal(t, l1, l1.pci(0))
        quiet(t, l1, l1.pci(0))
        if functions:
            virtual_functions(t, l1)
        else:
            t.skip("virtual functions", "this QEMU has none")

        shared = behind(l1, "1c")[0]
        give(l1, shared)
        t.equal(l1.complaints(kselftest.PROVOKED), [], "the kernel has nothing to report of all that")
        t.ok(add(l1, shared, "name", "shared"), "a device is made of a function that shares its IOMMU group")
        t.ok(said(l1, "functions: /dev/vhost-vdpa-N will not open (Invalid argument)"), "and the log tells of that")
        t.ok("Invalid argument" in opened(l1, "shared"), "which is true")
        t.clean_logs(lab, r"IOMMU group \d+ has \d functions|vdpa shared: cannot attach its IOMMU domain \(-22\)")

    with tap.make_lab(devices=1, device_props=kselftest.PROPS, vdpa_modules="stock", append="intel_iommu=off") as lab:
        l1 = lab.l1s[0]
        give(l1, l1.pci(0))
        t.ok(add(l1, l1.pci(0), "name", "vdpa0"), "without an IOMMU a device is made")
        t.ok(said(l1, "no IOMMU: /dev/vhost-vdpa-N will not open (error 524)"), "and the log tells of that")
        t.ok("524" in opened(l1, "vdpa0"), "which is true")
        t.clean_logs(lab, r"no IOMMU: |vdpa vdpa0: cannot attach its IOMMU domain \(-524\)")

    with tap.make_lab(devices=1, device_props=kselftest.PROPS, vdpa_modules="stock", append="iommu=pt") as lab:
        l1 = lab.l1s[0]
        give(l1, l1.pci(0))
        t.ok(add(l1, l1.pci(0), "name", "vdpa0"), "where the IOMMU passes through, a device is made")
        t.ok(said(l1, "IOMMU passes through what is not vhost-vdpa's (iommu=pt)"), "and the log tells of that")
        t.equal(opened(l1, "vdpa0"), "", "vhost-vdpa has a domain of its own")
        t.clean_logs(lab)
