#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=184 variants=stock form=all
"""Each way to migrate that QEMU has, by its capabilities: L2 comes through with its traffic and every
page of its memory, or QEMU refuses it with a reason and L2 goes on. Documentation/lab.rst has the same
table. And each way to measure a dirty rate."""
import dataclasses
import os
import shutil
import time

from testlib import nested, tap
from vlm.config import PATIENCE
from vlm.l2 import l2
from vlm.migration import Migration, migrate, set_capabilities, wait_migrated
from vlm.qmp import QMPError
from vlm.traffic import device_stops

FILE = "l2.ram"
GUIDE = "/virtio-lm/src/Documentation/lab.rst"


@dataclasses.dataclass
class Way:
    """What is switched on, the parameters that go with it, whether it is through a file, whether it is
    for the long form alone, and a part of QEMU's reason, where it refuses."""
    capabilities: tuple
    parameters: dict = dataclasses.field(default_factory=dict)
    file: bool = False
    long: bool = False
    refused: str = ""

    @property
    def name(self):
        return ", ".join(self.capabilities + (("to a file",) if self.file else ())) or "none"

    @property
    def row(self):
        """Its row of the guide's table."""
        return f"{self.name:<36}{'refused: ' + self.refused if self.refused else 'works'}"


WAYS = (
    Way(()),
    Way(("auto-converge",), long=True),
    Way(("xbzrle",)),
    Way(("release-ram",), long=True),
    Way(("validate-uuid",), long=True),
    Way(("return-path", "switchover-ack"), long=True),
    Way(("pause-before-switchover",), long=True),
    Way(("multifd",), {"multifd_channels": 2}, long=True),
    Way(("multifd", "zero-copy-send"), {"multifd_channels": 2}),
    Way(("mapped-ram",), file=True, long=True),
    Way(("mapped-ram", "multifd"), {"multifd_channels": 2}, file=True),
    Way(("postcopy-ram",), refused="the device pins guest memory, which postcopy discards"),
    Way(("postcopy-ram", "postcopy-preempt"), refused="the device pins guest memory, which postcopy discards"),
    Way(("background-snapshot",), refused="write protection of background-snapshot"),
    Way(("dirty-limit",), refused="dirty-limit requires KVM with accelerator property 'dirty-ring-size' set"),
)
# each with its row, too
NOT_TRIED = {
    "rdma-pin-all": "needs RDMA",
    "x-colo": "needs a QEMU with replication",
    "x-ignore-shared": "needs RAM that both ends share",
    "dirty-bitmaps": "is about block devices",
    "late-block-activate": "is about block devices",
    "zero-blocks": "is about block devices",
    "events": "changes what is told, not what is sent",
    "postcopy-blocktime": "is about postcopy",
}
RATES = (("page-sampling", ""), ("dirty-bitmap", ""), ("dirty-ring", "dirty-ring is not enabled"))


def through(src, dst, way):
    """L2 goes from one L1 to the other, live."""
    with Migration(src, dst, capabilities=way.capabilities, **way.parameters) as migration:
        if "pause-before-switchover" in way.capabilities:
            migration.wait("pre-switchover")
            migration.cmd("migrate-continue", state="pre-switchover")
        return migration.finish()


def through_file(src, dst, way):
    """L2 is stopped and saved to a file in one L1, and goes on from it in the other."""
    uri = f"file:/virtio-lm/run/{FILE}"
    here = l2.qmp(src)
    here.cmd("stop")
    set_capabilities(here, way.capabilities)
    here.cmd("migrate-set-parameters", **way.parameters)
    here.cmd("migrate", uri=uri)
    wait_migrated(here)
    here.close()
    l2.stop(src)
    shutil.move(f"{src.share}/{FILE}", f"{dst.share}/{FILE}")
    l2.start(dst, incoming=True)
    there = l2.qmp(dst)
    set_capabilities(there, way.capabilities)
    there.cmd("migrate-set-parameters", **way.parameters)
    there.cmd("migrate-incoming", uri=uri)
    wait_migrated(there)
    there.cmd("cont")
    there.close()
    os.remove(f"{dst.share}/{FILE}")


def well(t, what, traffic):
    """Every page is looked at, and packets go both ways."""
    traffic.wait_pass(held=False)
    nested.well(t, what, traffic)


def works(t, what, way, src, dst, traffic):
    """A way that works."""
    with traffic.may_lose(what, device_stops(l2.dirty_log(src))):
        moved = (through_file if way.file else through)(src, dst, way)
        t.note(moved or "by way of a file")
        t.equal(l2.running(dst), "running", f"{what}: L2 runs on the destination")
        t.equal(l2.running(src), None, f"{what}: and nowhere else")
        well(t, what, traffic)


def measure(t, what, l1, mode, why, traffic):
    """Have L2's QEMU find out how many pages become dirty."""
    end = time.monotonic() + PATIENCE
    logged = len(l1.events("virtio_lm_log_start"))
    conn = l2.qmp(l1)
    try:
        conn.cmd("calc-dirty-rate", **{"calc-time": 1, "mode": mode})
        while (rate := conn.cmd("query-dirty-rate"))["status"] != "measured" and time.monotonic() < end:
            time.sleep(0.2)
        said = f"{rate['status']}: {rate.get('dirty-rate')} MiB/s"
    except QMPError as err:
        rate = {"status": "refused"}
        said = str(err)
    conn.close()
    t.note(said)
    if why:
        t.ok(why in said, f"{what}: refused, and L2's QEMU says why")
    else:
        t.equal(rate["status"], "measured", f"{what}: comes to its end")
    t.equal(len(l1.events("virtio_lm_log_start")) - logged, int(mode == "dirty-bitmap"),
            f"{what}: the device logs meanwhile, if that is by the bitmap")
    t.ok(not l1.logging(), f"{what}: the device does not log then")
    well(t, what, traffic)


def guide(t, l1):
    """The guide says what the test finds; no capability is left out."""
    with open(GUIDE, encoding="utf-8") as file:
        lines = [line.rstrip() for line in file]
    for way in WAYS:
        t.ok(way.row in lines, f"the guide's row: {way.row}")
    for name, why in NOT_TRIED.items():
        t.ok(f"{name:<36}not tried: {why}" in lines, f"the guide's row: {name}")
    conn = l2.qmp(l1)
    known = {name for way in WAYS for name in way.capabilities} | set(NOT_TRIED)
    there = {c["capability"] for c in conn.cmd("query-migrate-capabilities")}
    conn.close()
    t.equal(there - known, set(), "it has a row for each of the capabilities that QEMU has")


with tap.Tap() as t:
    with nested.make_lab() as lab:
        src, dst = lab.l1s
        traffic = nested.boot(t, lab)
        guide(t, src)
        for mode, why in RATES:
            measure(t, f"calc-dirty-rate, {mode}", src, mode, why, traffic)
        for log in "device", "svq":
            if log == "svq":
                with traffic.may_lose("device to svq"):
                    migrate(src, dst, to_be="svq")
                    traffic.wait_both_ways()
                src, dst = dst, src
                for l1 in lab.l1s:
                    l1.config = dataclasses.replace(l1.config, dirty_log="svq")
            for way in WAYS:
                what = f"{log}: {way.name}"
                if way.refused:
                    nested.refused(t, what, src, way.refused, way.capabilities)
                    nested.well(t, what, traffic)
                elif tap.long_form() or (log == "device" and not way.long):
                    works(t, what, way, src, dst, traffic)
                    src, dst = dst, src
        nested.end(t, lab, traffic)
