#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=64
"""The sources: licence lines, kernel style, kernel-doc, and documents that build."""
import os
import re
import subprocess

from testlib import tap

SRC = "/virtio-lm/src"
RUN = "/virtio-lm/run/sources"
QEMU = tap.qemu_dir() + "/bin"
# what these check is the text of a file, not how it fits into a kernel tree
IGNORE = "FILE_PATH_CHANGES,NOT_UNIFIED_DIFF"
# what only kernel code can heed
USERSPACE = ("VOLATILE,PREFER_DEFINED_ATTRIBUTE_MACRO,MACRO_ARG_REUSE,MACRO_WITH_FLOW_CONTROL,"
             "SINGLE_STATEMENT_DO_WHILE_MACRO")


def files(*folders, ext):
    """Files below those folders whose names end so."""
    return sorted(os.path.join(at, name) for folder in folders
                  for at, _, names in os.walk(f"{SRC}/{folder}") for name in names
                  if name.endswith(ext))


def output(*command, cwd=SRC):
    """What a command says, on either stream, and its status."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return done.stdout, done.returncode


with tap.Tap() as t:
    os.makedirs(RUN)
    scripts = tap.config().tools + "/scripts"

    licenced = [p for p in files("drivers", "include", "tools", "Documentation",
                                 ext=(".c", ".h", ".py", ".rs", ".t", ".rst", ".yaml", "Makefile", "Kconfig"))]
    t.ok(len(licenced) > 30, "there are sources to look at")
    without = [p for p in licenced
               if "SPDX-License-Identifier: GPL-2.0" not in open(p, encoding="utf-8").read(400)]
    t.equal(without, [], "every source file has its SPDX line")

    kernel = files("drivers", "include", "tools/testing", "tools/lab/agent", ext=(".c", ".h"))
    for path in kernel:
        ignore = IGNORE + ("," + USERSPACE if path.startswith(f"{SRC}/tools/") else "")
        text, status = output("perl", f"{scripts}/checkpatch.pl", "--no-tree", "--strict",
                              "--terse", "--show-types", "--max-line-length=100",
                              f"--ignore={ignore}", "--file", path)
        if not t.ok(status == 0, f"{path.removeprefix(SRC + '/')}: checkpatch --strict"):
            t.note(text)

    for path in files("patches", ext=".patch"):
        short = path.removeprefix(SRC + "/")
        if short.startswith("patches/qemu/"):
            command = [f"{QEMU}/checkpatch.pl", "--no-tree"]
        else:
            command = [f"{scripts}/checkpatch.pl", "--no-tree", "--strict", f"--ignore={IGNORE}"]
        text, status = output("perl", *command, "--terse", path)
        if not t.ok(status == 0, f"{short}: checkpatch"):
            t.note(text)

    for path in files("tools/qemu", ext=(".c", ".h")):
        # its rules for tests go by the path in QEMU's tree
        text, status = output("perl", f"{QEMU}/checkpatch.pl", "--no-tree", "--terse",
                              "-f", path.removeprefix(f"{SRC}/tools/qemu/"), cwd=f"{SRC}/tools/qemu")
        if not t.ok(status == 0, f"{path.removeprefix(SRC + '/')}: QEMU's checkpatch"):
            t.note(text)

    text, status = output("perl", f"{scripts}/kernel-doc", "-none", "-Wall",
                          *files("drivers", "include", ext=(".c", ".h")))
    if not t.ok(status == 0 and not text.strip(), "kernel-doc has nothing to say"):
        t.note(text)

    text, status = output("sphinx-build", "-q", "-W", "-d", f"{RUN}/doctrees", "-b", "html",
                          "Documentation", f"{RUN}/html")
    if not t.ok(status == 0, "the documents build without a warning"):
        t.note(text)

    # the archive drops a version one day, and a suite gets another name
    pinned = re.compile(r"\b(bookworm|trixie|forky|sid|experimental)\b|(?<!\d)\d+:\d+\.\d+[.\d]*(\+\w+)?-\d")
    found = [f"{path.removeprefix(SRC + '/')}:{number}: {line.strip()}"
             for path in files("tools", ".ci", "drivers", "include", ext="") + [f"{SRC}/Makefile", f"{SRC}/dkms.conf"]
             if path != f"{SRC}/tools/bases" and not path.endswith((".t", ".qtest", ".pyc"))
             for number, line in enumerate(open(path, encoding="utf-8"), 1) if pinned.search(line)]
    t.equal(found, [], "no file but tools/bases names a suite, or the exact version of a package")

    for path in files("tools", ext=""):
        with open(path, "rb") as file:
            first = file.readline()
        if re.match(rb"#!/bin/sh\b", first):
            text, status = output("sh", "-n", path)
            t.ok(status == 0, f"{path.removeprefix(SRC + '/')}: is shell")
