# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test compiles, and what comes of it, follows from files and from the tree's packages alone. So
its good result is kept in the cache under a name that is a sum of all of these, and told again, as what
it is, until one of them changes. A result that is not good is never kept, and the long form compiles anew.

A test in shell begins with

  [ "${LM_COMPILE-}" ] || exec python3 -m testlib.compiled "$0" PATH...

where the PATHs are what it compiles, in the checkout. One in Python calls promise()."""
import hashlib
import os
import re
import subprocess
import sys

from cli.artefacts import hash_of

from . import tap

KEPT = "/virtio-lm/cache/compiled"
# results of one test that are kept: those of the branches that somebody works on
NEWEST = 4
OK = re.compile(r"ok \d+ - (?P<what>.*)")


def key_of(paths, more=""):
    """The name for a result that follows from what is at those paths of the checkout, from more, the tree's
    packages and this file."""
    packages = subprocess.run(["dpkg-query", "-W"], stdout=subprocess.PIPE, text=True, check=True).stdout
    text = more + packages + hash_of("tools/lab/testlib/compiled.py", *paths)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def kept(name, key):
    """The promises that were kept by what was compiled before, or none."""
    if tap.long_form():
        return []
    path = f"{KEPT}/{name}/{key}"
    try:
        os.utime(path)
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def keep(name, key, promises):
    """Keep these, and forget what was not used for longest."""
    folder = f"{KEPT}/{name}"
    os.makedirs(folder, exist_ok=True)
    new = f"{folder}/.{key}.{os.getpid()}"
    with open(new, "w", encoding="utf-8") as file:
        file.write("".join(f"{what}\n" for what in promises))
    os.rename(new, f"{folder}/{key}")
    newest = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in newest[NEWEST:]:
        os.unlink(entry.path)


def told_again(what, key):
    """A promise that was kept before."""
    return f"{what} # as compiled before: {key}"


class Record:
    """A TAP stream whose promises are remembered."""

    def __init__(self, t):
        self.t = t
        self.note = t.note
        self.promises = []
        self.good = True

    def ok(self, good, what):
        """One promise."""
        self.promises.append(what)
        self.good = self.good and bool(good)
        return self.t.ok(good, what)


def promise(t, name, key, body):
    """Have body(t) compile and promise, unless all that it promises is known."""
    promises = kept(name, key)
    for what in promises:
        t.ok(True, told_again(what, key))
    if not promises:
        record = Record(t)
        body(record)
        if record.good:
            keep(name, key, record.promises)


def main(test, *paths):
    """Run a test in shell, unless all that it promises of its kernel is known; its exit status."""
    name = tap.NAME
    key = key_of([f"tools/lab/tests/{os.path.basename(test)}", "tools/lab/tests/tap.sh", *paths], tap.kernel_taken())
    promises = kept(name, key)
    if promises:
        for n, what in enumerate(promises, 1):
            print(f"ok {n} - {told_again(what, key)}")
        print(f"1..{len(promises)}")
        return 0
    good = True
    with subprocess.Popen([test], env={**os.environ, "LM_COMPILE": "1"}, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            print(line, end="", flush=True)
            match = OK.match(line)
            good = good and not line.startswith("not ok")
            if match:
                promises.append(match["what"])
    if good and promises and run.returncode == 0:
        keep(name, key, promises)
    return run.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
