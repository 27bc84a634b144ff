#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=64
"""The sources: licence lines, kernel style, kernel-doc, documents that build; and no script, in shell or in
Python, of which its linter has anything to say."""
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


# a line of the first few that tells what a script is in; sourced ones have no other
SHELL = re.compile(r"^(#!.*\b(ba|da)?sh\b|# shellcheck shell=)", re.M)
PYTHON = re.compile(r"\A#!.*\bpython3?\b")
HEAD_LINES = 5
# of the user's, or built
NO_SOURCES = ".git", "build", "_build", "__pycache__"


def scripts_in(language, ext):
    """All files of the checkout that say so, or whose names end so."""
    found = []
    for at, folders, names in os.walk(SRC):
        folders[:] = [name for name in folders if name not in NO_SOURCES]
        for path in [os.path.join(at, name) for name in names if os.path.isfile(os.path.join(at, name))]:
            with open(path, encoding="utf-8", errors="replace") as file:
                head = "".join(file.readline(400) for _ in range(HEAD_LINES))
            if language.search(head) or path.endswith(ext):
                found.append(path)
    return sorted(found)


def output(*command, cwd=SRC):
    """What a command says, on either stream, and its status."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return done.stdout, done.returncode


def layers():
    """Of the driver: (file, what it uses of a file that comes later in the order of its private header). The
    header declares all that crosses files, below the name of the file that has it: W=1 sees to that."""
    folder = f"{SRC}/drivers/vdpa/virtio_lm"
    with open(f"{folder}/virtio_lm_vdpa.h", encoding="ascii") as file:
        groups = re.findall(r"^/\* (\w+)\.c\b.*?\*/\n(.*?)(?=^/\* \w+\.c\b|\Z)", file.read(), re.M | re.S)
    declared = [(name, set(re.findall(r"\b(virtio_lm_\w+)\(", text))) for name, text in groups]
    known = [name for name, _ in declared]
    upward = []
    for path in files("drivers/vdpa/virtio_lm", ext=".c"):
        name = os.path.basename(path)[:-2]
        if name.endswith("_test"):
            continue
        with open(path, encoding="ascii") as file:
            code = re.sub(r'/\*.*?\*/|"(\\.|[^"\\])*"', "", file.read(), flags=re.S)
        used = set(re.findall(r"\bvirtio_lm_\w+", code))
        # the one on top declares nothing
        above = declared[known.index(name) + 1:] if name in known else []
        if name not in known and name != "pci_drv":
            upward.append((name, "declares nothing in virtio_lm_vdpa.h"))
        upward += [(name, function) for _, functions in above for function in sorted(functions & used)]
    return known, upward


def added(name):
    """A file that the kernel series makes."""
    text = "".join(open(path, encoding="utf-8").read() for path in files("patches/linux-7.x", ext=".patch"))
    hunk = text.partition(f"\n+++ b/{name}\n")[2].partition("\ndiff --git ")[0]
    return "".join(f"{line[1:]}\n" for line in hunk.split("\n") if line.startswith("+"))


with tap.Tap() as t:
    os.makedirs(RUN)
    scripts = tap.config().tools + "/scripts"

    licenced = [p for p in files("drivers", "include", "tools", "Documentation",
                                 ext=(".c", ".h", ".py", ".rs", ".t", ".rst", ".yaml", "Makefile", "Kconfig"))]
    t.ok(len(licenced) > 30, "there are sources to look at")
    without = [p for p in licenced
               if "SPDX-License-Identifier: GPL-2.0" not in open(p, encoding="utf-8").read(400)]
    t.equal(without, [], "every source file has its SPDX line")

    kernel = files("drivers", "include", "samples", "tools/testing", "tools/lab/agent", ext=(".c", ".h"))
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
            # the commits that they name are the kernel's
            command = [f"{scripts}/checkpatch.pl", "--no-tree", "--strict",
                       f"--ignore={IGNORE},UNKNOWN_COMMIT_ID"]
        text, status = output("perl", *command, "--terse", path)
        if not t.ok(status == 0, f"{short}: checkpatch"):
            t.note(text)

    for path in files("tools/qemu", ext=(".c", ".h")):
        # its rules for tests go by the path in QEMU's tree
        text, status = output("perl", f"{QEMU}/checkpatch.pl", "--no-tree", "--terse",
                              "-f", path.removeprefix(f"{SRC}/tools/qemu/"), cwd=f"{SRC}/tools/qemu")
        if not t.ok(status == 0, f"{path.removeprefix(SRC + '/')}: QEMU's checkpatch"):
            t.note(text)

    known, upward = layers()
    t.ok(len(known) > 10, f"the driver's layers are declared: {' '.join(known)}")
    t.equal(upward, [], "and none uses what is above it")

    text, status = output("perl", f"{scripts}/kernel-doc", "-none", "-Wall",
                          *files("drivers", "include", ext=(".c", ".h")))
    if not t.ok(status == 0 and not text.strip(), "kernel-doc has nothing to say"):
        t.note(text)

    text, status = output("sphinx-build", "-q", "-W", "-d", f"{RUN}/doctrees", "-b", "html",
                          "Documentation", f"{RUN}/html")
    if not t.ok(status == 0, "the documents build without a warning"):
        t.note(text)

    with open(f"{SRC}/Documentation/vhost-vdpa-log.rst", encoding="utf-8") as file:
        t.ok(file.read() == added("Documentation/userspace-api/vhost-vdpa-log.rst"),
             "the kernel series documents the log as this project does")

    with open(f"{SRC}/Documentation/lab.rst", encoding="utf-8") as file:
        rows = re.findall(r"^``([\w-]+)``  |; ``([\w-]+)``:", file.read(), re.M)
    told = {name for row in rows for name in row}
    names = {os.path.basename(path)[:-2] for path in files("tools/lab/tests", ext=".t")}
    t.equal(sorted(names - told), [], "lab.rst tells of each test of the lab")

    # the archive drops a version one day, and a suite gets another name
    pinned = re.compile(r"\b(bookworm|trixie|forky|sid|experimental)\b|(?<!\d)\d+:\d+\.\d+[.\d]*(\+\w+)?-\d")
    found = [f"{path.removeprefix(SRC + '/')}:{number}: {line.strip()}"
             for path in files("tools", ".ci", "drivers", "include", ext="") + [f"{SRC}/Makefile", f"{SRC}/dkms.conf"]
             if path != f"{SRC}/tools/bases" and not path.endswith((".t", ".qtest", ".pyc"))
             for number, line in enumerate(open(path, encoding="utf-8"), 1) if pinned.search(line)]
    t.equal(found, [], "no file but tools/bases names a suite, or the exact version of a package")

    for command, language, ext, known, wrong in (
            # what a script sources is looked at with it
            (("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--format=gcc"), SHELL, ".sh",
             "tools/lab/lab", "#!/bin/sh\ncd $1\n"),
            (("pyflakes3",), PYTHON, ".py", "tools/lab/tests/sources.t", "print(unknown)\n")):
        with open(f"{RUN}/wrong", "w", encoding="ascii") as file:
            file.write(wrong)
        text, status = output(*command, f"{RUN}/wrong")
        t.ok(status == 1 and f"{RUN}/wrong:" in text, f"{command[0]} says what is wrong with a script")
        scripts = scripts_in(language, ext)
        t.ok(f"{SRC}/{known}" in scripts, f"{command[0]}: there are scripts to look at, {len(scripts)}, {known} for one")
        for path in scripts:
            text, status = output(*command, path)
            if not t.ok(status == 0 and not text, f"{path.removeprefix(SRC + '/')}: {command[0]} has nothing to say"):
                t.note(text)
