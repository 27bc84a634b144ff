#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=600 variants=stock form=long
"""The tests are tested: each patch in tools/mutants is a bug. The test that it names passes
without it, and with it fails of just that.

qemu/ holds those to QEMU's tree as tools/qemu/build leaves it, linux/ those to the modules'
tree of tools/linux/modules-log: they are applied to copies, and nothing else sees them. What a
patch says of itself, before its "---":

  Caught-by: virtio-lm-test PATH, as its TAP has it; or a kselftest, and options for it
  Expect: what the line that tells of the failure has in it
"""
import glob
import os
import re
import shutil
import subprocess
import tempfile

from testlib import kselftest, tap
from vlm.l2 import l2

SRC = "/virtio-lm/src"
QEMU = tap.qemu_dir()
RUN = "/virtio-lm/run/mutants"
# where QEMU's sources can be linked to, instead of copied
SCRATCH = tempfile.mkdtemp(prefix="mutants-", dir="/virtio-lm/cache")
DEADLINE = 900

# The build folder knows its path: in a mount namespace of its own, the copy is there. And what
# is compiled of a mutant is no good to anybody else.
INSIDE = f"""
mount --bind {SCRATCH}/qemu {QEMU}
export CCACHE_DISABLE=1
exec "$@"
"""


class Mutant:
    """One of the patches."""

    def __init__(self, path):
        with open(path, encoding="ascii") as file:
            head = file.read().partition("\n---\n")[0]
        said = dict(re.findall(r"^(Caught-by|Expect): (.+)$", head, re.M))
        self.path = path
        self.name = os.path.basename(path).removesuffix(".patch")
        self.what = head.splitlines()[0]
        self.test, self.expect = said["Caught-by"], said["Expect"]
        self.log = f"{RUN}/{self.name}"

    def patch(self, tree, *options):
        """Apply it; has that gone well?"""
        return run(self.log + ".patch", "patch", "-d", tree, "-p1", "--no-backup-if-mismatch",
                   "-i", self.path, *options)


def run(log, *command):
    """Run a command with its output in a file; has it gone well?"""
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.run(["timeout", str(DEADLINE), *command], stdin=subprocess.DEVNULL,
                              stdout=file, stderr=file, check=False).returncode == 0


class Qemu:
    """A copy of QEMU's build folder."""
    tree = f"{SCRATCH}/qemu/work"

    def __init__(self):
        os.makedirs(f"{SCRATCH}/qemu/bin")
        # patch makes a new file of what it changes; ninja does not
        for name, how in ("work", "-l"), ("build", "--no-preserve=links"):
            subprocess.run(["cp", "-a", how, f"{QEMU}/{name}", f"{SCRATCH}/qemu"], check=True)
        for name in "qos-test", "virtio-lm-test":
            os.link(f"{QEMU}/bin/{name}", f"{SCRATCH}/qemu/bin/{name}")
        os.symlink("../build/qemu-system-x86_64", f"{SCRATCH}/qemu/bin/qemu-system-x86_64")

    def build(self, log):
        """Build it as it is now."""
        return run(log, "unshare", "--mount", "sh", "-euc", INSIDE, "sh",
                   "ninja", "-C", f"{QEMU}/build", "qemu-system-x86_64")

    def test(self, mutant, log):
        """Run the mutant's test on it."""
        return run(log, f"{SRC}/tools/qemu/run-qtests", f"{SCRATCH}/qemu", *mutant.test.split())


class Linux:
    """The modules' tree, built, and an L1 to load what comes of it."""
    tree = f"{SCRATCH}/linux/src"

    def __init__(self, lab):
        self.lab = lab
        with open(f"{lab.config.kernel}/version", encoding="ascii") as file:
            self.release = file.read().strip()
        if not run(f"{RUN}/modules-log", f"{SRC}/tools/linux/modules-log", "build", "-k",
                   self.release, f"{SCRATCH}/linux"):
            raise AssertionError(f"the modules do not build, see {RUN}/modules-log")
        self.offer(f"{SCRATCH}/linux")

    def build(self, log):
        """Build them as they are now."""
        if not run(log, "make", "-C", f"/lib/modules/{self.release}/build", f"M={self.tree}",
                   "modules"):
            return False
        self.offer(self.tree)
        return True

    def offer(self, folder):
        """Have L1 load what was built there. Files of another name: it may have kept the old."""
        modules = tempfile.mkdtemp(dir=SCRATCH)
        for path in glob.glob(f"{folder}/**/*.ko", recursive=True):
            shutil.copy(path, modules)
        self.lab.config.log_modules = modules

    def test(self, mutant, log):
        """Run the mutant's test on them."""
        name, options = mutant.test.split(maxsplit=1)
        l1 = self.lab.l1s[0]
        node = l2.take_over(l1, 0, kselftest.NAME, "")
        with open(log, "w", encoding="utf-8") as file:
            status = l1.run(["timeout", str(DEADLINE), "env", f"VDPA_DEV={node}",
                             "VDPA_TIMEOUT_SCALE=4", "VDPA_REQUIRE=peer,log",
                             f"{self.lab.config.tools}/kselftest/{name}", *options.split()],
                            timeout=2 * DEADLINE, stdout=file, stderr=subprocess.STDOUT).returncode
        l1.sh(f"vdpa dev del {kselftest.NAME}; rmmod virtio_lm_vdpa vhost_vdpa vdpa")
        return status == 0


def lines_of(log):
    """The lines of a test's log."""
    with open(log, encoding="utf-8", errors="replace") as file:
        return [line.strip().lstrip("# ") for line in file]


def try_all(t, subject, mutants):
    """Have each mutant's test pass without it, and fail with it; how many do."""
    caught = 0
    for mutant in mutants:
        log = mutant.log + ".control"
        passed = subject.test(mutant, log)
        lines = lines_of(log)
        passed = passed and sum(re.match(r"ok \d+ (?!.*# SKIP)", line) is not None for line in lines)
        if not t.ok(passed == 1, f"without {mutant.name}, {mutant.test} passes"):
            t.note("\n".join(lines[-10:]))

    for mutant in mutants:
        if not t.ok(mutant.patch(subject.tree) and subject.build(mutant.log + ".build"),
                    f"{mutant.name} applies and builds"):
            raise AssertionError(f"see {mutant.log}.patch and .build")
        log = mutant.log + ".test"
        passed = subject.test(mutant, log)
        lines = lines_of(log)
        why = [line for line in lines if mutant.expect in line and re.search(r"\.c:\d+:", line)]
        if passed:
            t.ok(False, f"{mutant.name} survives {mutant.test}: {mutant.what}")
        elif not why:
            t.ok(False, f"{mutant.name}: {mutant.test} fails of something else")
            t.note("\n".join(lines[-10:]))
        else:
            t.ok(True, f"{mutant.name}: caught by {mutant.test}: {why[0]}")
            caught += 1
        if not mutant.patch(subject.tree, "-R"):
            raise AssertionError(f"{mutant.name} cannot be taken back, see {mutant.log}.patch")
    return caught


def main(t):
    """Those of QEMU, then those of the modules where there can be any."""
    os.makedirs(RUN, exist_ok=True)
    of_qemu, of_linux = ([Mutant(path) for path in sorted(glob.glob(f"{SRC}/tools/mutants/{x}/*"))]
                         for x in ("qemu", "linux"))
    caught = try_all(t, Qemu(), of_qemu)
    shutil.rmtree(f"{SCRATCH}/qemu")
    with tap.make_lab() as lab, kselftest.wire_peer(lab, 0):
        caught += try_all(t, Linux(lab), of_linux)
    count = len(of_qemu) + len(of_linux)
    t.note(f"mutants: {caught} of {count} caught")
    t.figure("deliberate bugs that a test found", caught, count)


with tap.Tap() as tap_stream:
    try:
        main(tap_stream)
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
