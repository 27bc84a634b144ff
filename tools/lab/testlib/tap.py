# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests share: TAP output, and a lab as `lab check` configures it."""
import json
import os
import subprocess
import sys

from vlm import lab as lab_module
from vlm.config import Config
from vlm.l1 import LabError
from vlm.lab import Lab
from vlm.qmp import QMPError

from . import debug

with open(os.environ["LAB_CHECK"], encoding="utf-8") as _file:
    # what cli/runner.py tells all tests
    CHECK = json.load(_file)
# this test, and the kernel of its L1s
NAME = os.environ["LAB_TEST"]
VARIANT = os.environ["LAB_VARIANT"]
DEBUG = VARIANT == "debug"
KERNEL = {name: value for name, value in CHECK["kernels"].get(VARIANT, {}).items() if name != "root"}


def long_form():
    """Is this make check-long?"""
    return CHECK["long"]


def parameter(name, usual):
    """What `lab check` was told of that name, which is one of options.TESTS; or the test's own."""
    value = CHECK["parameters"][name]
    return usual if value is None else value


class Tap:
    """A TAP stream on stdout. Use as a context manager: what is raised in it is a failure."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, good, what):
        """One promise, kept or not."""
        self.count += 1
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {self.count} - {what}", flush=True)
        return good

    def equal(self, have, want, what):
        """A promise about a value, which is shown where it is another one."""
        if not self.ok(have == want, what):
            self.note(f"want {want}, have {have}")
        return have == want

    def at_most(self, have, bound, what):
        """A promise about a value's bound."""
        self.ok(have <= bound, f"{what}: {have} of at most {bound}")

    def skip(self, what, why):
        """One promise that cannot be tried here."""
        self.count += 1
        print(f"ok {self.count} - {what} # SKIP {why}", flush=True)

    def note(self, text):
        """For the reader."""
        for line in str(text).splitlines():
            print(f"# {line}", flush=True)

    def figure(self, what, count, least=0):
        """A count that is shown in the table of the long form, and must be at least so much there."""
        least = least if long_form() else 0
        print(f"# figure: {what} | {count} | {least or '-'}", flush=True)
        if least:
            self.ok(count >= least, f"{what}: {count} of at least {least}")

    def clean_logs(self, lab, provoked=None):
        """Stop the L1s; each one's kernel has nothing to complain about, and a debug kernel has
        looked for that to the end."""
        if DEBUG:
            for l1 in lab.l1s:
                self.equal(debug.findings(l1), [],
                           f"{l1.name}: its kernel's checks were on to the end, and found nothing")
        found = lab.stop(provoked)
        for l1 in lab.l1s:
            self.ok(l1.name not in found, f"{l1.name}: its kernel log is free of warnings")
            for line in found.get(l1.name, []):
                self.note(line)

    def __enter__(self):
        return self

    def __exit__(self, kind, err, _):
        if isinstance(err, (LabError, QMPError, AssertionError, subprocess.TimeoutExpired)):
            self.ok(False, f"goes through to the end ({err})")
        elif kind is not None:
            return False
        print(f"1..{self.count}", flush=True)
        if kind is not None or self.failed:
            sys.exit(1)
        return True


class Progress:
    """What a test of the long form has counted, which it begins with when its run was ended and
    goes on. zero: the counts, by their names, that it has at first. path: where they are kept, if
    they are of more than this checkout."""

    def __init__(self, path=None, **zero):
        # not in its folder, which a run has for itself
        self.path = path or f"{run_dir()}.progress"
        self.counts = zero
        if os.path.exists(self.path):
            with open(self.path, encoding="ascii") as file:
                self.counts = json.load(file)
            print(f"# goes on from {self.counts}, as {self.path} has it", flush=True)

    def __getitem__(self, name):
        return self.counts[name]

    def save(self, **counts):
        """From here on it is to go on."""
        self.counts.update(counts)
        with open(self.path + ".new", "w", encoding="ascii") as file:
            json.dump(self.counts, file)
        os.rename(self.path + ".new", self.path)


def skip_all(why):
    """End a test that has nothing to do here."""
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


if VARIANT not in ("", "stock") and not KERNEL:
    skip_all(f"the kernel {VARIANT} cannot be had")


def kernel_taken():
    """What the kernel is that was fetched for this variant; "" for the tree's own."""
    if not os.environ["LAB_KERNEL_ROOT"]:
        return ""
    with open(f"{os.environ['LAB_KERNEL_ROOT']}/taken", encoding="ascii") as file:
        return file.read()


def config(**changes):
    """The lab's configuration, as `lab check` has it."""
    return Config(**{**CHECK["config"], **changes})


def folder(name):
    """The folder of an artefact that the test needs, by its declaration. Without it there is nothing to do."""
    if not CHECK["folders"][name]:
        skip_all(f"{name} could not be made")
    return CHECK["folders"][name]


def qemu_dir():
    """The folder of the QEMU that this checkout has built: bin/, and sources and objects beside it."""
    if not CHECK["qemu_folder"]:
        skip_all("it is about the QEMU of this checkout, and --qemu and --l2-qemu are given")
    return CHECK["qemu_folder"]


def need_log():
    """Without a dirty log in vhost-vdpa there is nothing for this test to do."""
    if not DEBUG and not config().log_modules:
        skip_all("the dirty log's modules are built for the lab's own kernel and driver alone")


def run_dir():
    """The folder for the logs of this test, which is named after it."""
    path = f"/virtio-lm/run/{NAME}"
    os.makedirs(path, exist_ok=True)
    # stdout is the TAP stream
    lab_module.PROGRESS = sys.stderr
    return path


def make_lab(**changes):
    """A lab of this test's own."""
    changes = {**KERNEL, **changes}
    return Lab(config(**changes), run_dir())
