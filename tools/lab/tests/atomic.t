#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=3
"""An atomic instruction of an L1 is atomic for its devices, too, however few vCPUs and threads TCG has for it. The
device sets bits of the dirty log while the driver exchanges them with 0. QEMU is asked how it translates such an
instruction. patches/qemu/10.2/fixes/0034 says what is lost where it is a load and a store."""
import os
import re
import subprocess

from testlib import tap
from vlm import machine

# the first instructions of a CPU, in the last 16 bytes of the firmware
LOCK_INC = bytes.fromhex("f0 ff 06 00 05")          # lock incw 0x500
RESET = bytes.fromhex("ba f9 0c  b0 06  ee")        # mov $0xcf9,%dx; mov $6,%al; out %al,(%dx)
HALT = b"\xf4"
FIRMWARE_BYTES, FIRST = 1 << 16, 0xfff0
SECONDS = 60


def translated(qemu, firmware, log, threads, vcpus):
    """TCG's operations for all that the firmware does."""
    subprocess.run([qemu, *machine.FIRMWARE, "-M", "q35", "-accel", f"tcg,thread={threads}", "-smp", str(vcpus),
                    "-nodefaults", "-display", "none", "-bios", firmware, "-no-reboot", "-d", "op", "-D", log],
                   stdin=subprocess.DEVNULL, check=True, timeout=SECONDS)
    with open(log, encoding="ascii", errors="replace") as file:
        return file.read()


with tap.Tap() as t:
    folder = tap.run_dir()
    with open(f"{folder}/firmware", "wb") as file:
        file.write((HALT * FIRST + LOCK_INC + RESET).ljust(FIRMWARE_BYTES, HALT))
    for threads in "multi", "single":
        for vcpus in 1, 2:
            log = f"{folder}/{threads}-{vcpus}.op"
            ops = translated(f"{tap.qemu_dir()}/bin/qemu-system-x86_64", f"{folder}/firmware", log, threads, vcpus)
            t.ok(re.search(r"call atomic_\w+", ops),
                 f"thread={threads}, {vcpus} vCPUs: an atomic instruction is one step")
            os.remove(log)
    cpus = len(os.sched_getaffinity(0))
    t.equal([machine.tcg_threads(vcpus) for vcpus in (1, cpus, cpus + 1)], ["multi", "multi", "single"],
            "each vCPU has a thread of its own where the host has a CPU for it")
