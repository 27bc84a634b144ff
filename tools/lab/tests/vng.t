#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=vmm cost=150 variants=stock needs=vng form=long
"""A kernel that virtme-ng boots has the device: Debian's vng, by examples/ci/vng.sh, with the tree's kernel, the
lab's QEMU and the driver. The kselftests run on the function there; their exit status is vng's, also where one
fails."""
import os
import signal
import subprocess

from testlib import kselftest, tap
from vlm import machine
from vlm.l1 import LabError

VNG = tap.folder("vng")
EXAMPLE = "/virtio-lm/src/examples/ci/vng.sh"
SECONDS = 900


def environment(config, release, tests, require):
    """What the example is told; and Debian's packages, which are not installed but unpacked."""
    usr = f"{VNG}/usr"
    lib = next(entry.path for entry in os.scandir(f"{usr}/lib") if entry.name.endswith("-linux-gnu"))
    return {**os.environ, "KERNEL": release, "DRIVER": config.driver, "KSELFTESTS": f"{config.tools}/kselftest",
            "QEMU": f"{tap.qemu_dir()}/bin/qemu-system-x86_64", "TESTS": tests, "VDPA_REQUIRE": require,
            "PATH": f"{usr}/bin:{os.environ['PATH']}", "PYTHONPATH": f"{usr}/lib/python3/dist-packages",
            # for file(1), which tells vng the release of an image
            "LD_LIBRARY_PATH": lib, "MAGIC": f"{usr}/lib/file/magic.mgc"}


def run(release, tests, require=""):
    """Those kselftests, by the example: its exit status, and the lines that it has printed."""
    words = ["sh", EXAMPLE, "--disable-kvm"]
    if khz := machine.tsc_khz():
        # as in an L1: measured on a busy host, it is wrong
        words += ["--append", f"tsc_early_khz={khz}"]
    # a pipe: vng writes over what is in a file
    with subprocess.Popen(words, env=environment(tap.config(), release, tests, require), text=True,
                          errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True) as proc:
        late = False
        try:
            said, _ = proc.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            # with its QEMU
            os.killpg(proc.pid, signal.SIGKILL)
            said, _ = proc.communicate()
            late = True
    with open(f"{tap.run_dir()}/vng.log", "a", encoding="utf-8") as file:
        file.write(said)
    if late:
        raise LabError(f"vng has not ended within {SECONDS} s, see {tap.run_dir()}/vng.log")
    return proc.returncode, said.splitlines()


with tap.Tap() as t:
    with open(f"{tap.config().kernel}/version", encoding="ascii") as file:
        release = file.read().strip()
    if not os.path.exists(f"/boot/vmlinuz-{release}"):
        tap.skip_all("vng boots the tree's own kernel, and --kernel is given")
    with open(f"{VNG}/version", encoding="ascii") as file:
        t.note(f"virtme-ng {file.read().strip()}")

    skipped = {}
    status, lines = run(release, "vhost_vdpa")
    bad, count = kselftest.results(t, "vng", lines, skipped)
    if not t.equal((status, bad, count > 0), (0, 0, True),
                   "vng: kselftests have passed, and its exit status is 0"):
        t.note("\n".join(lines[-40:]))
    t.note("\n".join(f"{len(titles)} skipped: {why}" for why, titles in skipped.items()))

    # this function's doorbells cannot be mapped
    status, lines = run(release, "vhost_vdpa", "doorbell")
    t.ok(any("lacks what it must have: doorbell" in line for line in lines),
         "vng: kselftests that lack what they require have failed")
    if not t.equal(status, 1, "vng: and its exit status is 1"):
        t.note("\n".join(lines[-40:]))
