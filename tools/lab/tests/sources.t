#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=64
"""The sources have licence lines and kernel style, no linter complains, and the documents build.
`lab lint` finds what is wrong. What documents and the examples for CI name is there."""
import fnmatch
import json
import os
import re
import shutil
import subprocess

from cli import options, tests
from cli.__main__ import parser
from testlib import lint, tap

SRC = "/virtio-lm/src"
RUN = "/virtio-lm/run/sources"
# perl has a parser of YAML among its own modules
PARSE = "local $/; print JSON::PP->new->encode(CPAN::Meta::YAML->read_string(<>)->[0]);"


def files(*folders, ext):
    """Files below those folders whose names end so."""
    return lint.files(SRC, *folders, ext=ext)


def output(*command, cwd=SRC, stdin=""):
    """What a command says, on either stream, and its status."""
    done = subprocess.run(command, cwd=cwd, text=True, input=stdin, stdout=subprocess.PIPE,
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


# for each program but kernel-doc, a file of the checkout and a line that it complains about
WRONG = {"drivers/vdpa/virtio_lm/log.c": "int  wrong ;\n", "tools/lab/tests/tap.sh": "cd $1\n",
         "tools/lab/tests/ways.t": "print(unknown)\n", "tools/qemu/tests/qtest/virtio-lm-test.c": "\tint wrong;\n"}


def lint_finds(t):
    """`lab lint` passes files that are right, and names those that are wrong."""
    copy = f"{RUN}/checkout"
    shutil.copytree(SRC, copy, symlinks=True, ignore=lambda at, names: [
        name for name in names if name in lint.NO_SOURCES and os.path.isdir(f"{at}/{name}")])

    def told(status, *words):
        text, have = output(f"{copy}/tools/lab/lab", "lint", *words)
        if not t.ok(have == status, f"lab lint of {', '.join(words)} ends with {status}"):
            t.note(text)
        return text
    # kernel-doc reads all of the driver at once, and awk all of Python
    t.ok(f"{len(WRONG) + 2} passed, 0 failed" in told(0, *WRONG), "each program passes the files that are right")
    for path, line in WRONG.items():
        with open(f"{copy}/{path}", "a", encoding="utf-8") as file:
            file.write(line)
    text = told(1, *WRONG)
    t.equal([path for path in WRONG if f"\n{path}: " not in f"\n{text}"], [], "it names each file that is wrong")
    t.ok("no program reads no/such-file" in told(1, "no/such-file"), "it says that nothing reads that file")


def ci_parts(name, parsed):
    """Of an example for CI: image, shell commands, the folder that is cached, $XDG_CACHE_HOME, the report."""
    if name == "github.yml":
        job = parsed["jobs"]["kselftests"]
        steps = {step["name"]: step for step in job["steps"]}
        commands = [step["run"].strip() for step in job["steps"] if "run" in step]
        return (job["container"]["image"], "\n".join(commands) + "\n",
                steps["restore the lab's cache"]["with"]["path"], job["env"]["XDG_CACHE_HOME"],
                steps["keep the report and the logs"]["with"]["path"] + "/*")
    job = parsed["virtio-lm"]
    return (job["image"], "\n".join(job["before_script"] + job["script"] + job["after_script"]) + "\n",
            f"$CI_PROJECT_DIR/{job['cache']['paths'][0]}", job["variables"]["XDG_CACHE_HOME"],
            job["artifacts"]["reports"]["junit"])


def ci_examples(t):
    """The examples for CI are YAML, and what they name is there."""
    with open(f"{SRC}/Makefile", encoding="utf-8") as file:
        targets = set(re.findall(r"^([\w-]+):", file.read(), re.M))
    with open(f"{SRC}/tools/bases", encoding="utf-8") as file:
        suite = re.search(r"^tree (\w+)$", file.read(), re.M)[1]
    for path in f"{SRC}/examples/ci/github.yml", f"{SRC}/examples/ci/gitlab.yml":
        name = os.path.basename(path)
        with open(path, encoding="utf-8") as file:
            text, status = output("perl", "-MCPAN::Meta::YAML", "-MJSON::PP", "-e", PARSE, stdin=file.read())
        if not t.ok(status == 0, f"{name}: is YAML"):
            t.note(text)
            continue
        image, commands, cached, home, report = ci_parts(name, json.loads(text))
        t.equal(image, f"debian:{suite}", f"{name}: its image is of the lab's own suite")
        with open(f"{RUN}/{name}.sh", "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh -e\n{commands}")
        text, _ = output("shellcheck", "--enable=quote-safe-variables", f"{RUN}/{name}.sh")
        t.equal(text, "", f"{name}: shellcheck has nothing to say of its commands")
        makes = re.findall(r'^make -C virtio-lm ([\w-]+) TESTS="([^"]+)"$', commands, re.M)
        t.ok(makes and {target for target, _ in makes} <= targets,
             f"{name}: its targets are in the Makefile: {makes}")
        asked = {word for _, words in makes for word in words.split()}
        t.equal(sorted(asked - set(tests.find())), [], f"{name}: its tests are there: {' '.join(sorted(asked))}")
        where, _ = output("env", "-u", "VIRTIO_LM_CACHE", f"XDG_CACHE_HOME={home}", "tools/lab/lab", "--help")
        t.ok(cached == f"{home}/virtio-lm" and f"The cache is {cached}." in where,
             f"{name}: it caches {cached}, the lab's cache")
        # where lab check writes the report, this test runs
        run = os.path.relpath(os.environ["LM_HOST_RUN"], os.environ["LM_HOST_CACHE"])
        moved = re.search(r'^mv "\$XDG_CACHE_HOME/virtio-lm/(\S+)" (\S+)$', commands, re.M)
        if t.ok(moved, f"{name}: takes the logs out of the cache") and not tap.long_form():
            there = re.sub(f"^{moved[1]}/", f"{moved[2]}/", run) + "/junit.xml"
            t.ok(fnmatch.fnmatch(there, report), f"{name}: its report is {report}, and {there} is written")


def one_version(t):
    """The version is in one place."""
    with open(f"{SRC}/dkms.conf", encoding="utf-8") as file:
        version = re.search(r'^PACKAGE_VERSION="(.*)"$', file.read(), re.M)
    t.ok(version, "dkms.conf has the version")
    with open(f"{SRC}/debian/changelog", encoding="utf-8") as file:
        first = re.match(r"virtio-lm \((.*?)\)", file.readline())
    t.equal(first and first[1], version[1], "debian/changelog begins with that one")
    # where somebody would write it once more
    written = re.compile(r"MODULE_VERSION\(\s*\"|#define\s+VIRTIO_LM_VDPA_VERSION\b|^\.TH .*\d\.\d", re.M)
    again = [path.removeprefix(f"{SRC}/") for path in files("drivers", "include", "Documentation/man", ext="")
             if written.search(open(path, encoding="utf-8", errors="replace").read())]
    t.equal(again, [], "and no other file has a version of its own")


def manual(t):
    """lab(1) tells of what lab --help does."""
    with open(f"{SRC}/Documentation/man/lab.1", encoding="ascii") as file:
        page = file.read().replace("\\-", "-")
    told = {name: set(re.findall(r"--[a-z0-9-]+", text))
            for name, text in re.findall(r"^\.SS lab (\w+)(.*?)(?=^\.S[SH] )", page, re.M | re.S)}
    lab = {option.flag for option in options.LAB}
    _, commands = parser()
    # argparse has no other way to ask
    want = {name: {flag for flag in sub._option_string_actions if flag.startswith("--")} - lab - {"--help"}
            for name, sub in commands.items()}
    t.equal(told, want, "lab(1) tells of each command, and of its options")
    text = page.partition("\n.SH OPTIONS\n")[2].partition("\n.SH ")[0]
    told = re.findall(r'^\.BI (--\S+) " (\S+)"\n(.*?)(?=^\.TP|\Z)', text, re.M | re.S)
    t.equal([words[:2] for words in told], [(option.flag, option.metavar) for option in options.LAB],
            "and of those that commands share")
    t.equal([option.flag for option, words in zip(options.LAB, told)
             if option.default() not in ("", None) and f"({option.default()})" not in words[2]], [],
            "and says what they are by default")


with tap.Tap() as t:
    os.makedirs(RUN)
    licenced = [p for p in files("drivers", "include", "tools", "Documentation",
                                 ext=(".c", ".h", ".py", ".rs", ".t", ".rst", ".yaml", "Makefile", "Kconfig"))]
    t.ok(len(licenced) > 30, "there are sources to look at")
    without = [p for p in licenced
               if "SPDX-License-Identifier: GPL-2.0" not in open(p, encoding="utf-8").read(400)]
    t.equal(without, [], "every source file has its SPDX line")

    known, upward = layers()
    t.ok(len(known) > 10, f"the driver's layers are declared: {' '.join(known)}")
    t.equal(upward, [], "and none uses what is above it")

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

    # what a reader looks up is what they have seen
    with open(f"{SRC}/Documentation/lab.rst", encoding="utf-8") as file:
        table = file.read().partition("\nWhat the lab says:\n")[2].partition("\nWhat QEMU, the kernel")[0]
    messages = re.findall(r"^``([^`]+)``", table, re.M)
    scripts = [f"{SRC}/tools/{name}" for name in ("lab/lab", "lab/common.sh", "lab/l1-vdpa", "qemu/build")]
    code = "".join(open(path, encoding="utf-8").read()
                   for path in scripts + files("tools/lab/cli", "tools/lab/vlm", ext=".py"))
    t.ok(len(messages) > 20, f"lab.rst explains messages of the lab: {len(messages)}")
    t.equal([each for each in messages if each not in code], [], "and the lab prints each of them")
    one_version(t)
    manual(t)

    # the archive drops a version one day, and a suite gets another name
    pinned = re.compile(r"\b(bookworm|trixie|forky|sid|experimental)\b|(?<!\d)\d+:\d+\.\d+[.\d]*(\+\w+)?-\d")
    found = [f"{path.removeprefix(SRC + '/')}:{number}: {line.strip()}"
             for path in files("tools", ".ci", "drivers", "include", ext="") + [f"{SRC}/Makefile", f"{SRC}/dkms.conf"]
             if path != f"{SRC}/tools/bases" and not path.endswith((".t", ".qtest", ".pyc"))
             for number, line in enumerate(open(path, encoding="utf-8"), 1) if pinned.search(line)]
    t.equal(found, [], "no file but tools/bases names a suite, or the exact version of a package")

    found = lint.checks(SRC, f"{tap.config().tools}/scripts", f"{tap.qemu_dir()}/pristine/scripts")
    for program, known in (("checkpatch.pl", "drivers/vdpa/virtio_lm/log.c"), ("shellcheck", "tools/lab/lab"),
                           ("kernel-doc", "include/linux/virtio_lm.h"),
                           ("pyflakes3", "tools/lab/tests/sources.t")):
        t.ok(any(program in " ".join(check.command[:2]) and f"{SRC}/{known}" in check.paths for check in found),
             f"{program} reads {known}")
    for check, text in lint.run(found):
        if not t.ok(not text, check.title):
            t.note(text)

    lint_finds(t)
    ci_examples(t)
