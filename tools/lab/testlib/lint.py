# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that read the sources, and which files each of them reads: checkpatch, kernel-doc, shellcheck,
pyflakes, and awk for the length of Python's lines. The test `sources` and `lab lint` share this list. Both run in the
lab's tree, which has the programs."""
import concurrent.futures
import os
import re
import subprocess
import typing

# what the kernel's checkpatch reads is the text of a file, not how it fits into a kernel tree
IGNORE = "FILE_PATH_CHANGES,NOT_UNIFIED_DIFF"
# what only kernel code can heed
USERSPACE = ("VOLATILE,PREFER_DEFINED_ATTRIBUTE_MACRO,MACRO_ARG_REUSE,MACRO_WITH_FLOW_CONTROL,"
             "SINGLE_STATEMENT_DO_WHILE_MACRO")
# the commits that the patches name are the kernel's
PATCH = f"{IGNORE},UNKNOWN_COMMIT_ID"
# a line of the first few that tells what a script is in; sourced ones have no other
SHELL = re.compile(r"^(#!.*\b(ba|da)?sh\b|# shellcheck shell=)", re.M)
PYTHON = re.compile(r"\A#!.*\bpython3?\b")
HEAD_LINES = 5
# of the user's, or built
NO_SOURCES = ".git", "build", "_build", "__pycache__"
# what a script sources is read with it
SHELLCHECK = "shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--format=gcc"
PYFLAKES = ("pyflakes3",)
# of Python
COLUMNS = 120


class Check(typing.NamedTuple):
    """One program, and what it reads: a file of the checkout, or some."""
    title: str
    command: list
    cwd: str
    paths: list
    # its status does not tell everything: whatever it says is a complaint
    silent: bool = False

    def run(self):
        """What it says, "" where it has nothing to complain about."""
        done = subprocess.run(self.command, cwd=self.cwd, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            return done.stdout or f"ended with {done.returncode}, and said nothing"
        return done.stdout.strip() if self.silent else ""


def files(src, *folders, ext):
    """Files below those folders of the checkout whose names end so, without those that a build has left."""
    found = []
    for folder in folders:
        for at, inside, names in os.walk(f"{src}/{folder}"):
            inside[:] = [name for name in inside if name not in NO_SOURCES]
            found += [os.path.join(at, name) for name in names
                      if name.endswith(ext) and not name.endswith(".mod.c")]
    return sorted(found)


def scripts_in(src, language, ext):
    """All files of the checkout that say so, or whose names end so."""
    found = []
    for at, folders, names in os.walk(src):
        folders[:] = [name for name in folders if name not in NO_SOURCES]
        for path in [os.path.join(at, name) for name in names if os.path.isfile(os.path.join(at, name))]:
            with open(path, encoding="utf-8", errors="replace") as file:
                head = "".join(file.readline(400) for _ in range(HEAD_LINES))
            if language.search(head) or path.endswith(ext):
                found.append(path)
    return sorted(found)


def checks(src, linux, qemu):
    """All of them, for the checkout src. linux, qemu: the folders with the checkpatch.pl of each."""
    def short(path):
        return path.removeprefix(f"{src}/")

    def one(path, what, command, cwd=src, silent=False):
        found.append(Check(f"{short(path)}: {what}", list(command), cwd, [path], silent))
    found = []
    style = ("perl", f"{linux}/checkpatch.pl", "--no-tree", "--strict", "--terse")
    qemu_style = ("perl", f"{qemu}/checkpatch.pl", "--no-tree", "--terse")
    for path in files(src, "drivers", "include", "samples", "tools/testing", "tools/lab/agent", ext=(".c", ".h")):
        ignore = IGNORE + ("," + USERSPACE if short(path).startswith("tools/") else "")
        one(path, "checkpatch --strict",
            (*style, "--show-types", "--max-line-length=100", f"--ignore={ignore}", "--file", path))
    for path in files(src, "patches", ext=".patch"):
        command = qemu_style if short(path).startswith("patches/qemu/") else (*style, f"--ignore={PATCH}")
        one(path, "checkpatch", (*command, path))
    for path in files(src, "tools/qemu", ext=(".c", ".h")):
        # its rules for tests go by the path in QEMU's tree
        inside = path.removeprefix(f"{src}/tools/qemu/")
        one(path, "QEMU's checkpatch", (*qemu_style, "-f", inside), f"{src}/tools/qemu")
    documented = files(src, "drivers", "include", ext=(".c", ".h"))
    found.append(Check("drivers, include: kernel-doc",
                       ["perl", f"{linux}/kernel-doc", "-none", "-Wall", *documented], src, documented, True))
    python = scripts_in(src, PYTHON, ".py")
    found.append(Check(f"Python: {COLUMNS} columns at most", [
        "awk", f'length > {COLUMNS} {{ print FILENAME ":" FNR ": " length " columns" }}', *python], src, python, True))
    for command, language, ext in (SHELLCHECK, SHELL, ".sh"), (PYFLAKES, PYTHON, ".py"):
        for path in scripts_in(src, language, ext):
            one(path, f"{command[0]} has nothing to say", (*command, path), silent=True)
    return found


def run(found):
    """Run them, as many at a time as there are processors: each Check with what it says, in their order."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(found, pool.map(Check.run, found))
