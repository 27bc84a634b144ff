# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests: each file of tools/lab/tests that can be executed and ends with .t. It declares itself in one line
among its first:

  # lab: group=migration cost=240,560 variants=stock,debug needs=dpdk form=both,all

* group: what it is about; `lab check --group` runs one;
* cost: about how many seconds it takes, for each variant: what takes longest is started first;
* variants: the kernels of its L1s: stock, and those of kernels.VARIANTS. Without one it boots none;
* needs: what is made for it alone, of NEEDS below;
* form: both, for a test of `lab check` and of the long form; all for one that `lab check` leaves to `lab check --all`,
  to have an end within 20 minutes; long for one that only the long form has; asked for one that is run only where
  it is asked for. A benchmark, of group bench, is asked; or long, if only the full form has it. One word is of all
  variants.

A test of more than one variant is run once for each: `migration` and `migration-debug`.

What `lab check --list` shows of it is the first sentence of what it says of itself. Documentation/lab.rst has a row
for it."""
import glob
import os
import re
import typing

from . import kernels
from .options import SRC, UsageError

FOLDER = f"{SRC}/tools/lab/tests"
VARIANTS = ("stock", *kernels.VARIANTS)
# those that artefacts.ARTEFACTS has, and kinds of QEMU, which do_check() of commands.py has made
NEEDS = ("dkms", "dpdk", "libvirt", "vhost-crate", "vng", "qemu-fuzz", "qemu-sources", "qemu-tsan")
GROUPS = ("build", "device", "kselftest", "driver", "migration", "vmm", "lab", "bench")
FORMS = ("both", "all", "long", "asked")
DECLARATION = re.compile(r"^# lab: (.*)$", re.M)


class Test(typing.NamedTuple):
    """One variant of a test."""
    name: str
    path: str
    promise: str
    group: str
    cost: int
    variant: str
    needs: tuple
    form: str


def fields_of(path, text):
    """What a file declares."""
    name = os.path.basename(path)
    found = DECLARATION.findall(text)
    if len(found) != 1:
        raise UsageError(f"{name}: one of its first lines is to be a declaration, see tools/lab/cli/tests.py")
    fields = dict(word.partition("=")[::2] for word in found[0].split())
    for key, known in ("group", GROUPS), ("variants", VARIANTS), ("needs", NEEDS), ("form", FORMS):
        for word in filter(None, fields.get(key, "").split(",")):
            if word not in known:
                raise UsageError(f"{name}: {key}={word} is none of {', '.join(known)}")
    if unknown := set(fields) - {"group", "cost", "variants", "needs", "form"}:
        raise UsageError(f"{name}: {', '.join(unknown)} cannot be declared")
    if not fields.get("group") or not re.fullmatch(r"\d+(,\d+)*", fields.get("cost", "")):
        raise UsageError(f"{name}: group= and cost= are to be declared")
    return fields


def promise_of(text):
    """The first sentence of what a test says of itself."""
    said = re.search(r'"""(.*?)"""', text, re.S) if '"""' in text else None
    body = said[1] if said else " ".join(re.findall(r"^# (?!lab:|SPDX|shellcheck)(.*)$", text.split("\n. ")[0], re.M))
    return re.split(r"(?<=\.)\s", " ".join(body.split()))[0]


def find():
    """All of them, by name."""
    found = {}
    for path in sorted(glob.glob(f"{FOLDER}/*.t")):
        with open(path, encoding="utf-8") as file:
            text = file.read(4000)
        fields = fields_of(path, "\n".join(text.split("\n")[:12]))
        if not os.access(path, os.X_OK):
            raise UsageError(f"{os.path.basename(path)} cannot be executed: chmod +x")
        variants = fields.get("variants", "").split(",")
        costs = [int(cost) for cost in fields["cost"].split(",")]
        forms = fields.get("form", "both").split(",")
        if len(forms) == 1:
            forms *= len(variants)
        if not len(costs) == len(forms) == len(variants):
            raise UsageError(f"{os.path.basename(path)}: cost= is for each of its variants, and form= for each or all")
        stem = os.path.basename(path)[:-2]
        for n, (variant, cost, form) in enumerate(zip(variants, costs, forms)):
            name = stem if n == 0 else f"{stem}-{variant}"
            found[name] = Test(name, path, promise_of(text), fields["group"], cost, variant,
                               tuple(filter(None, fields.get("needs", "").split(","))), form)
    return found


def choose(names, groups, variants, every, long):
    """Those that are asked for. A test that is named is run, of whatever form it is; of a group or a kernel, every
    one that does not need the long form."""
    tests = find()
    chosen = []
    for name in dict.fromkeys(names):
        # where variants are asked for, a test's name stands for all of its own
        same = [test for test in tests.values()
                if test.name == name or variants and os.path.basename(test.path) == f"{name}.t"]
        if not same:
            raise UsageError(f"there is no test {name}; lab check --list shows those that there are")
        chosen += same
    if not names:
        forms = {"both": True, "all": every or long or groups or variants, "long": long, "asked": groups}
        chosen = [test for test in tests.values() if forms[test.form] and (groups or test.group != "bench")]
    chosen = [test for test in chosen if (not groups or test.group in groups)
              and (not variants or (test.variant or "none") in variants)]
    if not chosen:
        raise UsageError("no test is of that group and that variant, or only in the long form; lab check "
                         "--list shows all")
    return chosen
