#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=60 form=all
"""The kernel's images and the driver are made as a whole, or not at all, whenever a setup is ended. It is killed, as
the kernel kills all of a run that is ended, at random moments; and what the next one makes is what one makes that
nobody has ended. The long form does so with more of what a setup makes."""
import contextlib
import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from cli.artefacts import ARTEFACTS
from testlib import tap

NAMES = ("images", "driver", "tools", "simulator") if tap.long_form() else ("images", "driver")
ENDS = 20 if tap.long_form() else 3
SECONDS = 600
FOLDER = f"{tap.run_dir()}/cache"
# one artefact, as a setup makes it, in a cache of this test's
MAKE = """
import sys
from cli import artefacts, steps
artefacts.CACHE, steps.RUN, steps.TOOK = sys.argv[1], sys.argv[3], "/dev/null"
sys.exit(not artefacts.make(sys.argv[2]))
"""


def begin(name):
    """Make it. The process that ends all of it along with itself."""
    return subprocess.Popen(["unshare", "--fork", "--pid", "--kill-child", "--mount-proc", sys.executable, "-c", MAKE,
                             FOLDER, name, tap.run_dir()])


def end(proc):
    """Kill the first process of its namespace, and with it all of that. Once unshare has ended, all have. Whether it
    was killed: it may have ended by itself."""
    with open(f"/proc/{proc.pid}/task/{proc.pid}/children", encoding="ascii") as file:
        for pid in file.read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    return proc.wait(SECONDS) != 0


def there(name):
    """What a setup would take for made."""
    folder = f"{FOLDER}/{ARTEFACTS[name].folder or ARTEFACTS[name].program}"
    return [f"{folder}/{entry}" for entry in sorted(os.listdir(folder))
            if not entry.endswith(".new")] if os.path.isdir(folder) else []


def size(path):
    """Of a file; of a compressed one, what is in it, to its end."""
    if not path.endswith(".gz"):
        return os.path.getsize(path)
    with gzip.open(path) as file:
        return len(file.read())


def contents(path):
    """Its files and their sizes."""
    return {os.path.relpath(f"{folder}/{name}", path): size(f"{folder}/{name}")
            for folder, _, names in os.walk(path) for name in names}


def run(t, name, rng):
    """One artefact, never ended, ended several times, and then not."""
    begun = time.monotonic()
    if not t.equal(begin(name).wait(SECONDS), 0, f"{name}: it is made"):
        return
    took = time.monotonic() - begun
    made, = there(name)
    want = contents(made)
    shutil.rmtree(FOLDER)
    killed = 0
    for _ in range(ENDS):
        begun, proc, after = time.monotonic(), begin(name), rng.uniform(0.3, took)
        try:
            good = proc.wait(after) == 0
            # the first build may have been slow, with cold files: later times are those of the fastest
            took = min(took, time.monotonic() - begun)
        except subprocess.TimeoutExpired:
            good = not end(proc)
            killed += not good
        if good or there(name):
            t.equal([contents(path) for path in there(name)], [want],
                    f"{name}: what is there after {after:.1f} s is whole")
            shutil.rmtree(FOLDER)
    t.ok(killed, f"{name}: ended {killed} times in its {took:.0f} s, it is not there, or whole")
    t.equal(begin(name).wait(SECONDS), 0, f"{name}: it is made after that")
    t.equal(there(name), [made], f"{name}: in the same place")
    t.equal(contents(made), want, f"{name}: with the same files")
    t.equal(os.listdir(os.path.dirname(made)), [os.path.basename(made)],
            f"{name}: nothing beside it is left of those that were ended")
    shutil.rmtree(FOLDER)


with tap.Tap() as t:
    seed = tap.parameter("seed", random.randrange(1 << 32))
    t.note(f"seed {seed}")
    for name in NAMES:
        run(t, name, random.Random(f"{seed} {name}"))
