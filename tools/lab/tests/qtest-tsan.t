#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=900 needs=qemu-tsan form=long
"""The qtests of the device with QEMU's threads watched: nothing that the device does is part of a
data race.

The sanitizer does not understand the futexes of QEMU's own events, so it has a word for many a
thread that waits for another: only an access that the device's code makes is a finding."""
import glob
import os
import re
import subprocess

from testlib import tap

QEMU = tap.qemu_dir()
RUN_QTESTS = "/virtio-lm/src/tools/qemu/run-qtests"
DEVICE = re.compile(r"/hw/(virtio/virtio(-lm|-lm-hostile|-pci|-net-pci)?|net/virtio-net)\.c:")
# what an access is made by on behalf of its caller: the sanitizer's memcpy(), QEMU's inline functions
HELPER = re.compile(r"libsanitizer/|/include/")
# the stacks of a report that are accesses, and not where memory or a thread is from
ACCESS = re.compile(r"^  (?:Previous )?(?:atomic )?(?:read|write) of size .*\n((?:    #.*\n)+)", re.M | re.I)


def reports(pattern):
    """The sanitizer's, from the files of that name."""
    for path in glob.glob(pattern):
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from re.findall(r"^WARNING: ThreadSanitizer:.*?^SUMMARY", file.read(), re.M | re.S)


def by_device(report):
    """Does the device's code make one of its accesses?"""
    frames = ([frame for frame in stack.splitlines() if not HELPER.search(frame)] for stack in ACCESS.findall(report))
    return any(stack and DEVICE.search(stack[0]) for stack in frames)


with tap.Tap() as t:
    run = tap.run_dir()
    os.mkdir(f"{run}/bin")
    # the tests' own program is not what is watched
    for name, folder in ("qemu-system-x86_64", "tsan/bin"), ("virtio-lm-test", "bin"), ("qos-test", "bin"):
        os.symlink(f"{QEMU}/{folder}/{name}", f"{run}/bin/{name}")
    env = {**os.environ, "TSAN_OPTIONS": f"suppressions={QEMU}/tsan/work/tests/tsan/suppressions.tsan "
           f"log_path={run}/report exitcode=0"}
    with open(f"{run}/qtest.tap", "w+", encoding="utf-8") as log:
        done = subprocess.run([RUN_QTESTS, run, "virtio-lm-test"], env=env, stdout=log, check=False)
        log.seek(0)
        passed = len(re.findall(r"^ok ", log.read(), re.M))
    t.equal(done.returncode, 0, f"the qtests pass, {passed} of them")
    found = list(reports(f"{run}/report.*"))
    t.ok(found, f"the sanitizer is at work: {len(found)} reports")
    device = [text for text in found if by_device(text)]
    for text in device:
        t.note(text)
    t.equal(len(device), 0, "no data race goes through the device's code")
    t.figure("qtests with the thread sanitizer", passed)
    t.note(f"all reports: {run}")
