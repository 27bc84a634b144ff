#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=300 variants=stock form=long
"""L2's NICs come and go while it runs: one that is refused leaves nothing behind; one that is plugged has its
network beside the first one; L2 migrates with both, each on its device's log; while it does, none can be
unplugged; and at the destination the second one goes, and comes back."""
import subprocess
import time

from testlib import nested, tap
from testlib.faults import SLOW, first_pass
from vlm import net
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.migration import BANDWIDTH, Migration
from vlm.qmp import QMPError
from vlm.traffic import Traffic

SECOND_MAC = "52:54:00:77:00:03"
# a network of its own, or what answers on the second NIC would leave L2 by the first
SECOND, SECOND_L0 = "10.79.0.2", "10.79.0.1"
SECOND_NODE = "/dev/vhost-vdpa-1"
PORT = ["-device", "pcie-root-port,id=slot1,chassis=1"]
PINGS = 20


def nic(both):
    """QEMU's words: the first NIC, a port, and what may be in it."""
    words = l2.netdev(l2.node, "auto") + PORT
    if both:
        words += ["-netdev", f"vhost-vdpa,id=n1,vhostdev={SECOND_NODE}",
                  "-device", f"virtio-net-pci,id=second,netdev=n1,bus=slot1,mac={SECOND_MAC},romfile="]
    return words


def plug(l1, node=SECOND_NODE):
    """The second NIC; what L2's QEMU says against it."""
    conn = l2.qmp(l1)
    try:
        conn.cmd("netdev_add", type="vhost-vdpa", id="n1", vhostdev=node)
        conn.cmd("device_add", driver="virtio-net-pci", id="second", netdev="n1", bus="slot1", mac=SECOND_MAC,
                 romfile="")
        return ""
    except QMPError as err:
        return str(err)
    finally:
        conn.close()


def unplug(l1):
    """The second NIC goes; has L2 let go of it?"""
    conn = l2.qmp(l1)
    try:
        conn.cmd("device_del", id="second")
        end = time.monotonic() + PATIENCE
        while not any(event["event"] == "DEVICE_DELETED" and event["data"].get("device") == "second"
                      for event in conn.events):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
            # events come along with an answer
            conn.cmd("query-status")
        conn.cmd("netdev_del", id="n1")
        return True
    finally:
        conn.close()


def up(t, l1, what):
    """The second NIC gets an address in L2, and L0 reaches it there."""
    l2.console(l1, f"while ! ip link set eth1 up; do sleep 0.2; done; ip addr add {SECOND}/24 dev eth1")
    reached(t, l1, what)


def reached(t, l1, what):
    """L0 reaches the second NIC, once the bridge has learnt by a packet of it where it is."""
    l2.console(l1, f"ping -c 1 {SECOND_L0}")
    end = time.monotonic() + PATIENCE
    while answered(1) < 1:
        if time.monotonic() > end:
            raise LabError(f"{what}: no answer from {SECOND} within {PATIENCE} s")
    t.equal(answered(PINGS), PINGS, f"{what}: {PINGS} pings to the second NIC are answered")


def answered(count):
    """How many of that many pings to the second NIC are answered."""
    done = subprocess.run(["ping", "-q", "-c", str(count), "-i", "0.2", "-W", "5", SECOND], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return int(done.stdout.split(" received")[0].rsplit(" ", 1)[1])


with tap.Tap() as t:
    with nested.make_lab(devices=2) as lab:
        src, dst = lab.l1s
        net.ip("addr", "add", f"{SECOND_L0}/24", "dev", "br0")
        for l1 in lab.l1s:
            t.equal(l2.take_over(l1), l2.node, f"{l1.name}: the first device")
            t.equal(l2.take_over(l1, 1, name="vdpa1", mac=SECOND_MAC), SECOND_NODE, f"{l1.name}: the second")
        l2.start(src, nic=nic(both=False))
        l2.wait_up(src)
        traffic = Traffic(lab)
        nested.well(t, "at first", traffic)

        said = plug(src, "/dev/null")
        t.ok("netdev_add" in said, "a netdev on what is no vDPA device is refused")
        t.note(said)
        t.ok("netdev_add" in plug(src, l2.node), "and one on a device that is in use")
        t.equal(plug(src), "", "a second NIC is plugged: nothing of the refused ones is in its way")
        up(t, src, "plugged")
        nested.well(t, "plugged", traffic)

        with traffic.may_lose("the migration"):
            with Migration(src, dst, nic=nic(both=True), max_bandwidth=SLOW) as migration:
                first_pass(t, migration)
                try:
                    migration.cmd("device_del", id="second")
                    said = "it is unplugged"
                except QMPError as err:
                    said = str(err)
                t.ok("device_del" in said, "while L2 migrates, no NIC can be unplugged, and L2's QEMU says so")
                t.note(said)
                migration.cmd("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH})
                t.note(migration.finish())
            reached(t, dst, "migrated")
            nested.well(t, "migrated", traffic)

        t.ok(unplug(dst), "the second NIC is unplugged at the destination")
        t.equal(dst.run(["sh", "-c", f": <>{SECOND_NODE}"]).stderr, "", "and its device is free")
        nested.well(t, "unplugged", traffic)
        t.equal(plug(dst), "", "it is plugged again")
        up(t, dst, "plugged again")
        nested.end(t, lab, traffic)
