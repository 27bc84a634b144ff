#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=1
"""What the fuzzer has started with, and what it has found: the device survives each of
tools/qemu/traces, which `tools/qemu/fuzz trace` has made of inputs, one after the other."""
import glob
import os
import shlex
import socket
import subprocess
import tempfile

from testlib import tap
from vlm.qmp import QMP

SRC = "/virtio-lm/src"
RUN = "/virtio-lm/run/fuzz-replay"
SECONDS = 120


class Machine:
    """A QEMU that is driven by the qtest protocol."""

    def __init__(self, qemu, kind):
        self.tmp = tempfile.mkdtemp()
        env = dict(os.environ, FUZZ_IOMMU="1" if kind == "iommu" else "")
        options = subprocess.run([f"{SRC}/tools/qemu/fuzz-machine", self.tmp], env=env, check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
        with socket.socket(socket.AF_UNIX) as server, open(f"{RUN}/{kind}.log", "ab") as log:
            server.bind(f"{self.tmp}/qtest")
            server.listen()
            server.settimeout(SECONDS)
            self.proc = subprocess.Popen(
                [qemu, "-L", "/usr/share/qemu", "-L", "/usr/share/seabios", "-m", "512M",
                 "-display", "none", "-accel", "qtest", "-qtest", f"unix:{self.tmp}/qtest",
                 "-qtest-log", "none", "-qmp", f"unix:{self.tmp}/qmp,server=on,wait=off",
                 *shlex.split(options)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.sock = server.accept()[0]
        self.sock.settimeout(SECONDS)
        self.file = self.sock.makefile("rw", encoding="ascii", newline="\n")
        self.qmp = QMP(f"{self.tmp}/qmp")

    def replay(self, path):
        """Run one trace, and reset the machine. Returns the command it died of, or None."""
        with open(path, encoding="ascii") as file:
            for command in file.read().splitlines():
                try:
                    self.file.write(command + "\n")
                    self.file.flush()
                    answer = "IRQ"
                    while answer.startswith("IRQ"):
                        answer = self.file.readline()
                except OSError as err:
                    return f"{command}: {err}"
                if not answer:
                    return command
        self.qmp.cmd("system_reset")
        return None

    def end(self):
        """End it."""
        self.proc.kill()
        self.proc.wait()


with tap.Tap() as t:
    os.makedirs(RUN, exist_ok=True)
    config = tap.config()
    for kind in "plain", "iommu":
        machine = Machine(config.qemu, kind)
        traces = sorted(glob.glob(f"{SRC}/tools/qemu/traces/*.qtest"))
        t.ok(traces, f"{kind}: there are traces")
        for path in traces:
            died = machine.replay(path)
            t.equal(died, None, f"{kind} {os.path.basename(path)}: the device survives it")
            if died:
                machine.end()
                machine = Machine(config.qemu, kind)
        t.equal(machine.proc.poll(), None, f"{kind}: QEMU is alive to the end")
        machine.end()
