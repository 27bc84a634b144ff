# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab: L1s on the two bridges. The object that the command line, the demo and the tests share."""
import dataclasses
import json
import os
import sys
import time

from . import net
from .config import Config
from .l1 import L1, LabError
from .machine import kvm_works

PROGRESS = sys.stdout


def say(text):
    """Progress, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=PROGRESS, flush=True)


class Lab:
    """L1s, side by side. Use as a context manager: leaving it stops them."""

    def __init__(self, config, run):
        self.config = config
        self.run_dir = run
        self.l1s = [L1(config, n, run) for n in range(config.l1s)]

    @classmethod
    def attach(cls, run):
        """The lab that another process of these namespaces has started."""
        with open(f"{run}/lab.json", encoding="utf-8") as file:
            saved = json.load(file)
        lab = cls(Config(**saved["config"]), run)
        for l1 in lab.l1s:
            l1.sockets = saved["sockets"]
        return lab

    def l1(self, name):
        """The L1 of that name."""
        for l1 in self.l1s:
            if l1.name == name:
                return l1
        raise LabError(f"there is no {name}: this lab has {', '.join(x.name for x in self.l1s)}")

    def start(self):
        """Boot all of them side by side."""
        config = self.config
        for what in config.qemu, config.l2_qemu, f"{config.kernel}/vmlinux":
            if not os.path.exists(what):
                raise LabError(f"{what} does not exist in the tree")
        config.kvm = config.accel == "kvm" or (config.accel == "auto" and kvm_works(config.qemu, config.kernel))
        net.create()
        names = ", ".join(l1.name for l1 in self.l1s)
        say(f"booting {names} on {'KVM' if config.kvm else 'TCG (no KVM that works here)'}, "
            f"about {4 if config.kvm else 12 * len(self.l1s)} s")
        for l1 in self.l1s:
            l1.start()
        for l1 in self.l1s:
            l1.wait_ready()
            say(f"{l1.name} is up after {l1.ready_seconds:.1f} s")
        with open(f"{self.run_dir}/lab.json", "w", encoding="utf-8") as file:
            json.dump({"config": dataclasses.asdict(config), "sockets": self.l1s[0].sockets}, file)

    def stop(self, provoked=None):
        """Keep the kernel logs and stop the L1s; the findings in the logs, per L1."""
        found, peaks = {}, [l1.peak_mib() for l1 in self.l1s]
        for l1 in self.l1s:
            if l1.proc is not None:
                lines = l1.collect_dmesg(provoked)
                if lines:
                    found[l1.name] = lines
                l1.stop()
        if self.l1s[0].ready_seconds and any(peaks):
            # a line for each lab that was here. Only the first one is waited for from its start on
            with open(f"{self.run_dir}/costs", "a", encoding="ascii") as file:
                print(self.l1s[0].ready_seconds, *filter(None, peaks), file=file)
        return found

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
