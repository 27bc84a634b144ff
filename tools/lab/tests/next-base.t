#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=1500 variants=stock needs=qemu-sources form=long
"""Where the mirror no longer has the newest base, make demo ends well on the next one."""
import contextlib
import io
import os
import subprocess
import tempfile

from cli import demo
from testlib import tap

SRC = "/virtio-lm/src"
CACHE = "/virtio-lm/cache/qemu"
# it shares the folders of all bases but the first with the cache
FOLDER = f"{CACHE}/next"
DEADLINE = 3600


def bases():
    """Their names, the best first."""
    with open(f"{SRC}/tools/bases", encoding="ascii") as file:
        return [line.split()[1] for line in file if line.startswith("qemu ")]


tap.need_log()
with tap.Tap() as t:
    log = f"{tap.run_dir()}/build.log"
    os.makedirs(FOLDER, exist_ok=True)
    there = [base for base in bases()[1:] if os.path.isdir(f"{CACHE}/{base}/pristine")]
    if not there:
        tap.skip_all("the mirror has no base but the newest")
    for base in there:
        if not os.path.islink(f"{FOLDER}/{base}"):
            os.symlink(f"../{base}", f"{FOLDER}/{base}")
    if os.path.exists(f"{FOLDER}/base"):
        os.unlink(f"{FOLDER}/base")
    # a mirror that has nothing
    with tempfile.TemporaryDirectory() as mirror, open(log, "w", encoding="utf-8") as file:
        status = subprocess.run(["timeout", str(DEADLINE), f"{SRC}/tools/qemu/build", "--mirror", f"file:{mirror}",
                                 FOLDER],
                                stdout=file, stderr=file, check=False).returncode
    with open(log, encoding="utf-8") as file:
        said = file.read()
    if not t.equal(status, 0, "without the newest base, QEMU builds"):
        t.note(said[-2000:])
        raise AssertionError(f"see {log}")
    t.ok(f"{bases()[0]}: the mirror does not have the sources of" in said, "and it is said which base is not there")
    with open(f"{FOLDER}/base", encoding="ascii") as file:
        taken = file.read().strip()
    t.equal(taken, there[0], "the next one is taken")

    qemu = f"{FOLDER}/{taken}/bin/qemu-system-x86_64"
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        status = demo.run(tap.config(l1s=2, qemu=qemu, l2_qemu=qemu), tap.run_dir())
    t.note(shown.getvalue())
    t.equal(status, 0, f"make demo ends well on {taken}")
