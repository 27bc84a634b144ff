#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=57 variants=stock needs=dpdk form=all
"""DPDK drives a device as well as QEMU does: Debian's testpmd, with a virtio-user port on
/dev/vhost-vdpa-0, sends and answers; its port is stopped and started; it is killed and comes back. On one
pair of queues, and on two with the control virtqueue that a device has by default. Its packed rings, which
cannot run, are refused."""
import os
import queue
import re
import shlex
import subprocess
import threading
import time

from testlib import kselftest, tap
from testlib.ping import ping
from vlm import net
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2

DPDK = tap.folder("dpdk")
MAC = "52:54:00:77:00:02"
PROMPT = "testpmd> "
PINGS = 20
# what DPDK's memory is made of, and how many of 2 MiB it takes
HUGEPAGES = 96
# VIRTIO_NET_F_MAC, MRG_RXBUF, STATUS, VERSION_1, ACCESS_PLATFORM, RING_PACKED
PACKED = sum(1 << bit for bit in (5, 15, 16, 32, 33, 34))


class Testpmd:
    """testpmd on the L1's device, at its prompt. Use as a context manager."""

    def __init__(self, l1, device="", *words):
        self.l1 = l1
        pmds = l1.sh(f"ls -d {DPDK}/usr/lib/*/dpdk/pmds-*").strip()
        lib = os.path.dirname(os.path.dirname(pmds))
        line = [f"{DPDK}/usr/bin/dpdk-testpmd", "-l", "0,1", "--no-pci", "--in-memory", "--no-telemetry",
                "-d", f"{pmds}/librte_bus_vdev.so", "-d", f"{pmds}/librte_mempool_ring.so",
                "-d", f"{pmds}/librte_net_virtio.so",
                "--vdev", f"net_virtio_user0,path={l2.node},mac={MAC}{device}",
                "--", "-i", "--total-num-mbufs=4096", *words]
        self.proc = l1.popen(["env", f"LD_LIBRARY_PATH={lib}", "sh", "-c",
                              f"echo $$ >/run/testpmd.pid; exec stdbuf -oL {shlex.join(line)} 2>&1"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.read = queue.Queue()
        self.said = ""
        threading.Thread(target=self.reader, daemon=True).start()
        self.wait_prompt()

    def reader(self):
        """Everything that it prints, as it comes; at last b""."""
        while data := os.read(self.proc.stdout.fileno(), 4096):
            self.read.put(data)
        self.read.put(b"")

    def wait_prompt(self):
        """What it prints until it waits for a command."""
        end = time.monotonic() + PATIENCE
        text = ""
        while not text.endswith(PROMPT):
            try:
                data = self.read.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                raise LabError(f"testpmd says nothing for {PATIENCE} s after: {text[-400:]}") from None
            if not data:
                raise LabError(f"testpmd has ended: {text[-400:]}")
            text += data.decode("ascii", "replace")
        self.said += text
        return text

    def cmd(self, line):
        """Run one of its commands; what it answers."""
        self.proc.stdin.write(line.encode() + b"\n")
        self.proc.stdin.flush()
        return self.wait_prompt()

    def sent(self):
        """The packets that it has handed to the device."""
        return int(re.search(r"TX-packets: (\d+)", self.cmd("show port stats 0"))[1])

    def kill(self):
        """End it as a crash does."""
        self.l1.sh("pid=$(cat /run/testpmd.pid); kill -9 $pid 2>/dev/null || :; "
                   "while kill -0 $pid 2>/dev/null; do sleep 0.1; done")
        self.proc.wait()

    def quit(self):
        """End it as its user does; its exit status."""
        self.proc.stdin.write(b"quit\n")
        self.proc.stdin.flush()
        return self.proc.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.proc.poll() is None:
            self.kill()


def answers(t, pmd, what):
    """It answers whoever asks."""
    pmd.cmd("set fwd icmpecho")
    pmd.cmd("start")
    # the first ones may come before its cores poll
    missing, said = ping(l2.address, PINGS, 0.2)
    if not t.equal(missing, [], f"{what}: each of {PINGS} pings is answered"):
        t.note(said)
    stopped = pmd.cmd("stop")
    t.ok("Done." in stopped, f"{what}: and the forwarding ends")


def sends(t, l1, function, pmd, what):
    """All that it sends comes out of the device, on every queue."""
    pmd.cmd("clear port stats all")
    before = net.received(l1.data_tap(function))
    pmd.cmd("set fwd txonly")
    pmd.cmd("start")
    time.sleep(2)
    report = pmd.cmd("stop")
    # what is still in the ring
    end = time.monotonic() + PATIENCE
    while net.received(l1.data_tap(function)) - before < pmd.sent() and time.monotonic() < end:
        time.sleep(0.2)
    t.ok(pmd.sent() > 0, f"{what}: it sends")
    t.equal(net.received(l1.data_tap(function)) - before, pmd.sent(),
            f"{what}: and all of that comes out of the device")
    return report


def restarts(t, pmd, what):
    """Its port is stopped and started."""
    said = pmd.cmd("port stop 0") + pmd.cmd("port start 0")
    t.equal(re.findall(r"(?i).*(?:fail|busy|invalid argument).*", said), [], f"{what}: its port stops and starts")


def commands(l1, name):
    """How many control commands of that class the driver has served."""
    text = l1.sh("vdpa -j dev vstats show vdpa0 qidx 4")
    return int(re.search(rf'"{name}": ?(\d+)', text)[1])


def take(l1, function, *words):
    """The L1's device, of that function."""
    t.equal(l2.take_over(l1, function, mac=MAC, words=words), l2.node, f"function {function}: it is made a device")


with tap.Tap() as t:
    with tap.make_lab(devices=2, queues=2, vdpa_modules="stock", memory=1536,
                      device_props=f"{kselftest.PROPS},packed=on,rx_queue_size=1024,tx_queue_size=1024;"
                                   f"{kselftest.PROPS},mq=on") as lab:
        l1 = lab.l1s[0]
        l1.sh(f"echo {HUGEPAGES} >/proc/sys/vm/nr_hugepages")
        with open(f"{DPDK}/version", encoding="ascii") as file:
            t.note(f"DPDK {file.read().strip()}")

        take(l1, 0, "device_features", hex(PACKED))
        with Testpmd(l1) as pmd:
            sends(t, l1, 0, pmd, "one pair")
            answers(t, pmd, "one pair")
            for n in range(3):
                restarts(t, pmd, f"one pair, stop {n}")
                sends(t, l1, 0, pmd, f"one pair, start {n}")
            answers(t, pmd, "one pair, restarted")
            pmd.cmd("set fwd txonly")
            pmd.cmd("start")
            pmd.kill()

        # its packed rings begin with all descriptors in flight: it sets no used index, nor its wrap counter
        with Testpmd(l1, ",packed_vq=1") as pmd:
            t.ok("Failed to start device" in pmd.said,
                 "packed rings that cannot go on are refused, and testpmd says so")
            t.ok("no ring can go on from state 0x00008000" in l1.sh("dmesg"), "and so does the kernel, with the state")

        with Testpmd(l1) as pmd:
            answers(t, pmd, "after a kill -9 and a refusal")
            t.equal(pmd.quit(), 0, "it ends")
        l1.sh("vdpa dev del vdpa0")

        take(l1, 1)
        with Testpmd(l1, ",queues=2,cq=1", "--rxq=2", "--txq=2") as pmd:
            report = sends(t, l1, 1, pmd, "two pairs")
            t.equal([n for n in "01" if re.search(rf"Queue= {n} +-+\n.*TX-packets: [1-9]", report)], ["0", "1"],
                    "two pairs: it sends on both")
            answers(t, pmd, "two pairs")
            restarts(t, pmd, "two pairs")
            sends(t, l1, 1, pmd, "two pairs, restarted")
            t.equal(commands(l1, "errors"), 0, "two pairs: none of its control commands has failed")
            t.ok(commands(l1, "mq_commands"), f"two pairs: and {commands(l1, 'mq_commands')} have told of the pairs")
        t.clean_logs(lab, "no ring can go on from state 0x00008000")
