#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=9000 needs=qemu-fuzz form=long
"""Whatever a guest writes to the device's registers, and has in its memory, QEMU's fuzzer with the
address and undefined behaviour sanitizers finds nothing, and nothing keeps QEMU busy for a minute: on
the device by itself, and behind an intel-iommu that is fuzzed along.

What is counted is inputs to one and the same QEMU, on one machine and from the same seeds: whatever
else changes in a checkout, they are not tried anew."""
import glob
import hashlib
import os
import re
import subprocess
import time

from testlib import tap

INPUTS = tap.parameter("inputs", 10_000_000)
WAYS = ("plain", "iommu")
# as many at a time as the progress is saved after
AT_ONCE = 250_000
# of an input, 2 ms of which are usual. libFuzzer's own deadline is a signal that QEMU blocks
SLOW = 60
FUZZ = "/virtio-lm/src/tools/qemu/fuzz"
CACHE = "/virtio-lm/cache"
QEMU = tap.qemu_dir()


def same():
    """What all of this is the same for."""
    digest = hashlib.sha256()
    for path in f"{QEMU}/fuzz/bin/qemu-fuzz-x86_64", FUZZ, f"{FUZZ}-machine", f"{FUZZ}-seeds":
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def fuzz(way, inputs):
    """So many inputs at least, in as many processes as there are processors. Its exit status, how
    many they were, the files that say so, and those that took too long."""
    run = f"{tap.run_dir()}/{way}"
    corpus = f"{CACHE}/fuzz/{way}"
    for folder in run, corpus:
        os.makedirs(folder, exist_ok=True)
    jobs = os.cpu_count()
    begin = time.time()
    env = {**os.environ, **({"FUZZ_IOMMU": "1"} if way == "iommu" else {})}
    with open(f"{run}/fuzz.log", "w", encoding="utf-8") as log:
        # QEMU has a word for each mistake of its guest, which would be gigabytes: its standard
        # error is closed, not the sanitizers'
        # what it finds goes to where the next run begins
        status = subprocess.run(["nice", "-n", "19", FUZZ, "run", QEMU, corpus, f"-artifact_prefix={corpus}/",
                                 f"-jobs={jobs}", f"-workers={jobs}", f"-runs={-(-inputs // jobs)}",
                                 f"-report_slow_units={SLOW}", "-print_final_stats=1", "-close_fd_mask=2"],
                                cwd=run, env=env,
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
    logs = sorted(glob.glob(f"{run}/fuzz-*.log"))
    count = 0
    for path in logs:
        with open(path, encoding="utf-8", errors="replace") as file:
            count += sum(map(int, re.findall(r"^stat::number_of_executed_units: (\d+)", file.read(), re.M)))
    slow = [path for path in glob.glob(f"{corpus}/slow-unit-*") if os.path.getmtime(path) >= begin]
    return status, count, logs, slow


with tap.Tap() as t:
    os.makedirs(f"{CACHE}/fuzz", exist_ok=True)
    done = tap.Progress(f"{CACHE}/fuzz/{same()}.progress", **dict.fromkeys(WAYS, 0))
    for way in WAYS:
        status, slow = 0, []
        while not status and not slow and done[way] < INPUTS // len(WAYS):
            status, count, logs, slow = fuzz(way, min(AT_ONCE, INPUTS // len(WAYS) - done[way]))
            status = status or int(count == 0)
            if not status and not slow:
                done.save(**{way: done[way] + count})
        if not t.equal(status, 0, f"{way}: no input crashes"):
            t.note("see " + " ".join(logs))
            t.note("an input is repeated, and its lines named, in the tree of `lab fuzz`: tools/qemu/fuzz --help")
        t.equal(slow, [], f"{way}: no input takes {SLOW} s")
    t.figure("inputs of a hostile guest", sum(done[way] for way in WAYS), INPUTS)
