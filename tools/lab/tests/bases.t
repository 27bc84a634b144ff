#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=574 needs=qemu-sources form=all
"""On each base of QEMU that tools/bases names, each series of patches applies by itself, patch by
patch, and what a patch touches compiles. In the long form, each series alone builds a QEMU. In the short one,
a series that has compiled is compiled again where it or its base has changed.

Where the newest base is not at the mirror, tools/qemu/build takes the next one, and says why."""
import glob
import os
import re
import shutil
import subprocess
import tempfile

from testlib import tap
from testlib import compiled

SRC = "/virtio-lm/src"
CACHE = "/virtio-lm/cache/qemu"
BUILD = f"{SRC}/tools/qemu/build"
SERIES = "fixes", "device", "log"
SYSTEM = "qemu-system-x86_64"
# what is laid over a base's source, with the device's series and with the others
OVERLAY = "configs", "docs", "hw", "include", "tests"
BARE = ("configs",)
HEADER = "include/linux/virtio_lm.h"
DEADLINE = 3600


def bases():
    """(base, release, suites) of each line of tools/bases that is about QEMU."""
    with open(f"{SRC}/tools/bases", encoding="ascii") as file:
        lines = [line.split() for line in file if line.startswith("qemu ")]
    return [(line[1], line[2], line[3:]) for line in lines]


class Tree:
    """A copy of a base's source that is patched and compiled, in a folder of its own."""

    def __init__(self, base, scratch):
        self.base = base
        self.scratch = scratch
        self.work = f"{scratch}/work"
        self.log = f"{tap.run_dir()}/{base}.log"
        # what is the same in the lab's own QEMU, or was compiled by the last run, is not compiled again
        self.env = {**os.environ, "CCACHE_DIR": f"{CACHE}/ccache", "CCACHE_BASEDIR": scratch,
                    "CCACHE_NOHASHDIR": "1"}

    def run(self, *command, cwd=None):
        """Has it gone well? What it says is in the log."""
        with open(self.log, "a", encoding="utf-8") as log:
            print("+", *command, file=log, flush=True)
            return subprocess.run(["timeout", str(DEADLINE), *command], cwd=cwd or self.scratch, env=self.env,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode == 0

    def reset(self, overlay):
        """The source as the base has it, with our own files if overlay."""
        self.run("rm", "-rf", "stage")
        self.run("cp", "-al", f"{CACHE}/{self.base}/pristine", "stage")
        for part in OVERLAY if overlay else BARE:
            self.run("cp", "-r", "--remove-destination", f"{SRC}/tools/qemu/{part}", "stage")
        if overlay:
            self.run("cp", "--remove-destination", f"{SRC}/{HEADER}",
                     "stage/include/hw/virtio/virtio-lm-regs.h")
        os.makedirs(self.work, exist_ok=True)
        # what is the same keeps its time stamps, and is not compiled again
        return self.run("rsync", "-rlpc", "--delete", "stage/", "work/") and self.run("rm", "-rf", "stage")

    def configure(self):
        """Make the build folder."""
        os.makedirs(f"{self.scratch}/build")
        with open(f"{CACHE}/{self.base}/configure", encoding="ascii") as file:
            options = file.read().split()
        self.env["CC"] = "ccache gcc"
        return self.run("../work/configure", *options, cwd=f"{self.scratch}/build")

    def compiled(self):
        """The .c files that this configuration compiles, by their paths in the tree."""
        listed = subprocess.run(["ninja", "-C", "build", "-t", "compdb"], cwd=self.scratch, env=self.env,
                                stdout=subprocess.PIPE, text=True, check=True).stdout
        return set(re.findall(r'"file": "\.\./work/([^"]+)"', listed))


def key_of(base, series, folder):
    """The sum of all that a series of a base is compiled from."""
    more = ""
    for name in "origin", "configure":
        with open(f"{CACHE}/{base}/{name}", encoding="ascii") as file:
            more += file.read()
    paths = [f"tools/qemu/{part}" for part in (OVERLAY if series == "device" else BARE)]
    return compiled.key_of(["tools/lab/tests/bases.t", HEADER, f"{folder}/{series}", *paths], more)


def try_series(t, tree, series, folder):
    """Patch by patch."""
    if not t.ok(tree.reset(series == "device"), f"{tree.base}: {series}: a tree without patches"):
        return
    patches = sorted(glob.glob(f"{folder}/{series}/*.patch"))
    t.ok(patches, f"{tree.base}: {series}: there are patches: {len(patches)}")
    passed_over = set()
    for path in patches:
        what = f"{tree.base}: {series}: {os.path.basename(path)}"
        if not t.ok(tree.run("patch", "-p1", "-s", "--no-backup-if-mismatch", "-i", path, cwd=tree.work),
                    f"{what} applies"):
            t.note(f"see {tree.log}")
            return
        with open(path, encoding="utf-8") as file:
            touched = re.findall(r"^\+\+\+ b/(\S+\.c)$", file.read(), re.M)
        # build.ninja is made anew where a patch has touched what it is made from
        tree.run("ninja", "-C", "build", "build.ninja")
        here = [name for name in touched if name in tree.compiled()]
        passed_over.update(set(touched) - set(here))
        if here and not t.ok(tree.run("ninja", "-C", "build", *(f"../work/{name}^" for name in here)),
                             f"{what} compiles: {', '.join(here)}"):
            t.note(f"see {tree.log}")
    if passed_over:
        t.note(f"{tree.base}: {series}: not a part of this configuration: {', '.join(sorted(passed_over))}")
    if tap.long_form():
        t.ok(tree.run("ninja", "-C", "build", SYSTEM), f"{tree.base}: {series}: {SYSTEM} builds of it alone")


def try_base(t, base, release):
    """The three series of a base."""
    if not os.path.isdir(f"{CACHE}/{base}/pristine"):
        t.skip(f"{base}: its series apply and compile", f"QEMU {release} is not there: the mirror does not have it")
        return
    with open(f"{CACHE}/{base}/origin", encoding="ascii") as file:
        t.note(f"{base}: {file.read().strip()}")
    folder = f"patches/qemu/{release}"
    keys = {series: key_of(base, series, folder) for series in SERIES}
    scratch = tempfile.mkdtemp(prefix="bases-", dir="/virtio-lm/cache")
    what = f"{base}: configures"
    try:
        tree = Tree(base, scratch)
        if all(compiled.kept(f"bases-{base}-{series}", key) for series, key in keys.items()):
            t.ok(True, compiled.told_again(what, keys[SERIES[0]]))
        elif not t.ok(tree.reset(False) and tree.configure(), what):
            t.note(f"see {tree.log}")
            return
        for series, key in keys.items():
            compiled.promise(t, f"bases-{base}-{series}", key,
                             lambda record, of=series: try_series(record, tree, of, f"{SRC}/{folder}"))
    finally:
        shutil.rmtree(scratch)


def make_mirror(folder, contents):
    """A mirror in a folder. contents: for each suite, the versions that it lists, and whether their
    files are there."""
    for suite, versions in contents.items():
        index = f"{folder}/dists/{suite}/main/source"
        os.makedirs(index)
        stanzas = []
        for version, is_there in versions:
            name = f"qemu-{version.split(':')[1].split('+')[0]}"
            at = f"{folder}/{suite}/{name}"
            os.makedirs(f"{at}/{name}/debian/source")
            for path, text in (("VERSION", version.split(":")[1].split("+")[0]),
                               ("debian/source/format", "3.0 (native)"),
                               ("debian/control",
                                "Source: qemu\nMaintainer: nobody <nobody@localhost>\n\nPackage: qemu\n"
                                "Architecture: any\nDescription: a source\n"),
                               ("debian/changelog",
                                f"qemu ({version}) {suite}; urgency=low\n\n  * A version.\n\n"
                                " -- nobody <nobody@localhost>  Sat, 01 Jan 2022 00:00:00 +0000\n")):
                with open(f"{at}/{name}/{path}", "w", encoding="ascii") as file:
                    file.write(text + "\n")
            subprocess.run(["dpkg-source", "--build", name], cwd=at, check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            stanza = subprocess.run(["dpkg-scansources", "."], cwd=at, check=True, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, text=True).stdout.strip()
            stanzas.append(re.sub(r"^Directory: .*$", f"Directory: {suite}/{name}", stanza, flags=re.M))
            if not is_there:
                for path in glob.glob(f"{at}/qemu_*"):
                    os.unlink(path)
        with open(f"{index}/Sources", "w", encoding="ascii") as file:
            file.write("\n\n".join(stanzas) + "\n")
        with open(f"{folder}/dists/{suite}/Release", "w", encoding="ascii") as file:
            file.write(f"Suite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: amd64\n")
            file.write("SHA256:\n")
            data = subprocess.run(["sha256sum", f"{index}/Sources"], check=True, stdout=subprocess.PIPE, text=True)
            file.write(f" {data.stdout.split()[0]} {os.path.getsize(f'{index}/Sources')} main/source/Sources\n")


def choose(contents, *options):
    """What tools/qemu/build takes from a mirror with those contents: its status, what it says, and
    the folder that it has filled."""
    mirror = tempfile.mkdtemp(prefix="mirror-", dir="/tmp")
    folder = tempfile.mkdtemp(prefix="qemu-", dir="/tmp")
    make_mirror(mirror, contents)
    done = subprocess.run(["timeout", "60", BUILD, "--fetch", "--mirror", f"[trusted=yes] file:{mirror}", *options,
                           folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout, folder


def try_choice(t):
    """Which base is taken, and what is said of it."""
    (best, new, (one, *_)), (other, old, (two, *_)) = bases()[:2]
    both = {one: [(f"1:{new}.9+ds", True)], two: [(f"1:{old}.7+ds", True)]}

    def taken(folder):
        with open(f"{folder}/base", encoding="ascii") as file:
            return file.read().strip()

    status, said, folder = choose(both)
    t.equal((status, taken(folder)), (0, best), "both bases are at the mirror: the first is taken")
    t.ok(f"QEMU {new}.9+ds of {one} (base {best}, the first of tools/bases that is there)" in said,
         "and one line says which, and why")

    status, said, folder = choose({**both, one: [(f"1:{new}.9+ds", False)]})
    t.equal((status, taken(folder)), (0, other),
            "listed is not there: the files of the first cannot be had, the next is taken")
    t.ok(f"{one} lists QEMU 1:{new}.9+ds, but the mirror does not have it" in said, "and what is missing is said")

    status, said, folder = choose({**both, one: [(f"1:{new}.9+ds", False), (f"1:{new}.8+ds", True)]})
    t.equal((status, taken(folder)), (0, best), "an older version of the release does as well")

    status, said, folder = choose({**both, one: [("1:99.1.3+ds", True)]})
    t.equal((status, taken(folder)), (0, other), "a release that there are no patches for is not a base")
    t.ok(f"{one} has no QEMU {new}" in said, "and that is said")

    status, said, folder = choose({two: both[two]})
    t.equal((status, taken(folder)), (0, other), "the mirror does not have the suite: the next base is taken")

    status, said, folder = choose({**both, one: []}, "--base", best)
    t.ok(status and not os.path.exists(f"{folder}/base") and f"{one} has no QEMU {new}" in said,
         "a base that is asked for and is not there is an error that says what was looked for")

    status, said, folder = choose({one: [], two: []})
    t.ok(status and f"{one} has no QEMU {new}" in said and f"{two} has no QEMU {old}" in said,
         "no base is there: an error that says all that was looked for")

    status, said, _ = choose(both, "--base", "oldest")
    t.ok(status and "there is no base oldest" in said and best in said,
         "an unknown base is refused, and the known ones are named")


def build_source(version):
    """What tools/qemu/build says of a source tree of the user's that has nothing but that in VERSION, None for no such
    file: its status, what it says, and the tree."""
    tree = tempfile.mkdtemp(prefix="source-", dir="/tmp")
    if version:
        with open(f"{tree}/VERSION", "w", encoding="ascii") as file:
            file.write(version + "\n")
    done = subprocess.run(["timeout", "60", BUILD, "--source", tree, tempfile.mkdtemp(prefix="qemu-", dir="/tmp")],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout, tree


def try_source(t):
    """A source tree of the user's that cannot be taken, and why."""
    status, said, tree = build_source(None)
    t.ok(status and f"--source {tree}: there is no VERSION in it" in said, "a folder that is no source tree is refused")
    t.note(said)
    status, said, tree = build_source("7.2.0")
    t.ok(status and "there are no patches for QEMU 7.2" in said, "and one of a QEMU that there are no patches for")
    t.note(said)
    release = bases()[0][1]
    status, said, tree = build_source(f"{release}.99")
    t.ok(status and re.search(f"base source, QEMU {re.escape(release)}.99 of {tree}: patches/qemu/{re.escape(release)}/"
                              r"fixes/0001-\S+\.patch does not apply", said),
         "a patch that does not apply is named, with the tree and its version")
    t.note(said)
    t.equal(os.listdir(tree), ["VERSION"], "and the tree is what it was: it is patched in a copy")


with tap.Tap() as t:
    try_choice(t)
    try_source(t)
    for name, its_release, _ in bases():
        try_base(t, name, its_release)
