#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=52 variants=stock needs=vhost-crate form=all
"""rust-vmm's vhost crate, by which cloud-hypervisor has its vDPA devices, drives a device: a program with
Debian's (vdpa-net.rs) makes cloud-hypervisor's calls in their order, and answers pings. It is ended,
leaves the device suspended as for a migration, and is killed; each time it comes back on the same device.
So does an L2 at last."""
import queue
import re
import subprocess
import threading
import time

from testlib import nested, tap
from testlib.ping import ping
from vlm import net
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2

CRATE = tap.folder("vhost-crate")
PID = "/run/vdpa-net.pid"
PINGS = 50
COUNTS = re.compile(r"answered (\d+), bases (\(\d+, \d+\)), used (\(\d+, (\d+)\))")


class VdpaNet:
    """The program on the L1's device. Use as a context manager."""

    def __init__(self, l1):
        self.l1 = l1
        self.proc = l1.popen(["sh", "-c", f"echo $$ >{PID}; exec {CRATE}/vdpa-net {l2.node} {l2.address} 2>&1"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.reader, daemon=True).start()
        self.first = self.line()

    def reader(self):
        """Every line that it prints, as it comes; at last ""."""
        for line in self.proc.stdout:
            self.lines.put(line.strip())
        self.lines.put("")

    def line(self):
        """The next line that it prints."""
        try:
            return self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise LabError(f"vdpa-net says nothing for {PATIENCE} s") from None

    def end(self, word=""):
        """End it as its user does, with a word or without; its last line, and its exit status."""
        self.proc.stdin.write(word)
        self.proc.stdin.close()
        return self.line(), self.proc.wait(PATIENCE)

    def kill(self):
        """End it as a crash does."""
        self.l1.sh(f"pid=$(cat {PID}); kill -9 $pid 2>/dev/null || :; "
                   "while kill -0 $pid 2>/dev/null; do sleep 0.1; done")
        self.proc.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.proc.poll() is None:
            self.kill()


def answers(t, what):
    """Every ping of L0 is answered, and so is its question who that is."""
    net.ip("neigh", "flush", "dev", "br0")
    missing, said = ping(l2.address, PINGS, 0.05)
    if not t.equal(missing, [], f"{what}: each of {PINGS} pings is answered"):
        t.note(said)


def runs(t, program, what):
    """It has started."""
    good = re.fullmatch(rf"vdpa-net: runs, mac {l2.mac}, link 1, .*", program.first)
    if not t.ok(good, f"{what}: it runs, with the MAC"):
        raise LabError(f"vdpa-net: {program.first}")


def ends(t, program, what, word=""):
    """It ends well, and nothing is in flight in the device then."""
    said, status = program.end(word)
    t.equal(status, 0, f"{what}: it ends")
    t.note(said)
    found = COUNTS.search(said)
    if not t.ok(found, f"{what}: with its counts"):
        return
    t.equal(found[2], found[3], f"{what}: the suspended device has used all that it has taken")
    # what was given to it last may have come after the suspension
    t.ok(PINGS <= int(found[4]) <= int(found[1]), f"{what}: and has sent the answers")


with tap.Tap() as t:
    with tap.make_lab(l2_memory=128) as lab:
        l1 = lab.l1s[0]
        with open(f"{CRATE}/version", encoding="ascii") as file:
            t.note(f"rust-vmm's vhost {file.read().strip()}")
        t.equal(l2.take_over(l1), l2.node, "the driver takes the function over")

        with VdpaNet(l1) as program:
            runs(t, program, "started")
            t.note(program.first)
            answers(t, "started")
            for up in 0, 1:
                l1.set_link(0, bool(up))
                t.equal(program.line(), f"vdpa-net: link {up}", f"started: it is told of link {up}")
            with VdpaNet(l1) as second:
                t.ok("open: " in second.first and "(os error 16)" in second.first,
                     "started: a second program finds it busy")
            answers(t, "started, a link later")
            ends(t, program, "started")
        with VdpaNet(l1) as program:
            runs(t, program, "after its end")
            answers(t, "after its end")
            ends(t, program, "after its end, left suspended", "leave\n")
        with VdpaNet(l1) as program:
            runs(t, program, "after it was left suspended")
            answers(t, "after it was left suspended")
            with subprocess.Popen(["ping", "-q", "-i", "0.01", l2.address], stdout=subprocess.DEVNULL) as flood:
                time.sleep(2)
                program.kill()
                flood.kill()
        with VdpaNet(l1) as program:
            runs(t, program, "after a kill -9")
            answers(t, "after a kill -9")
            ends(t, program, "after a kill -9")

        l2.start(l1)
        l2.wait_up(l1)
        nested.well_anew(t, lab, "an L2 after all of them")
        l2.stop(l1)
        t.clean_logs(lab)
