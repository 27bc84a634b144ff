# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that set up and run something. Those to a lab that is up are in attached.py."""
import glob
import os
import re
import signal
import subprocess
import sys
import time

from testlib import lint
from vlm.l1 import LabError
from vlm.lab import Lab, say
from vlm.qmp import QMPError

from . import attached, kernels, options, runner
from . import bench, demo, soak
from .artefacts import ARTEFACTS, Qemu, fuzz_tree, make
from .setup import parts
from .steps import CACHE, RUN, SRC, SetupLock, StepError, outside
from .steps import say as tell
from .tests import NEEDS, choose

FUZZ = f"{SRC}/tools/qemu/fuzz"


def do_setup(args):
    """All of it."""
    parts(args)
    with SetupLock():
        kernels.debug()
    return 0


def do_up(args):
    """Start a lab and hold it until it is taken down, from outside, by ending this process."""
    made, _ = parts(args)
    # it may be taken down while it starts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lab = Lab(options.config_of(args, made), RUN)
    lab.start()
    with open(f"{RUN}/ready", "w", encoding="ascii"):
        pass
    say("ready")
    try:
        running = list(lab.l1s)
        while running:
            time.sleep(0.5)
            for l1 in [l1 for l1 in running if not l1.alive()]:
                say(f"{l1.name}: QEMU has ended: {l1.last_words()}")
                running.remove(l1)
    finally:
        for name, lines in lab.stop().items():
            for line in lines:
                say(f"{name}: kernel: {line}")
    return 0


def do_demo(args):
    """The demonstration."""
    made, _ = parts(args)
    return demo.run(options.config_of(args, made), RUN)


def do_soak(args):
    """L2 there and back, often."""
    made, _ = parts(args)
    return soak.run(options.config_of(args, made), RUN, args.rounds)


def do_check(args):
    """The tests."""
    begin = time.monotonic()
    made, folder = parts(args)
    needs = {need for test in args.chosen for need in test.needs}
    with SetupLock():
        variants = {test.variant for test in args.chosen}
        made_kernels = {name: make_kernel() for name, make_kernel in kernels.VARIANTS.items() if name in variants}
        folders = {name: make(name) if name in needs else "" for name in NEEDS if name in ARTEFACTS}
        qemu = Qemu(args.qemu_base, args.qemu_source)
        if "qemu-sources" in needs:
            qemu.sources()
        if "qemu-tsan" in needs:
            qemu.make("tsan")
        if "qemu-fuzz" in needs:
            qemu.make("fuzz", 900, 5000, fuzz_tree())
    # the short form does the same each time, the long one something new
    if args.seed is not None:
        os.environ["VDPA_SEED"] = str(args.seed)
    elif not args.long:
        args.seed = 1
        os.environ.setdefault("VDPA_SEED", "1")
    check = runner.told(options.config_of(args, made), made_kernels, args, folder, folders)
    # tests see no network but what they make
    os.unshare(os.CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    whole = not (args.tests or args.group or args.variant)
    if whole and (more := set(choose([], None, None, True, args.long)) - set(args.chosen)):
        tell(f"{len(more)} more tests are in `make check-all`, with these an hour and more")
    return runner.run(args.chosen, check, args.verbose, time.monotonic() - begin, whole, args.minutes)


def do_lint(args):
    """The programs that read the sources, over all of them or the files that are named."""
    with SetupLock():
        tools = make("tools")
        qemu = Qemu("", "").source()
    found = lint.checks(SRC, f"{tools}/scripts", f"{qemu}/scripts")
    if args.files:
        wanted = {f"{SRC}/{os.path.normpath(name)}" for name in args.files}
        found = [check for check in found if wanted & set(check.paths)]
        if unread := wanted - {path for check in found for path in check.paths}:
            names = ", ".join(sorted(path.removeprefix(f"{SRC}/") for path in unread))
            raise StepError(f"no program reads {names}: name files from the root of the checkout, such as "
                            "tools/lab/lab")
    failed = 0
    for check, text in lint.run(found):
        if text:
            failed += 1
            print(check.title, *text.replace(f"{SRC}/", "").splitlines(), sep="\n  ", flush=True)
    print(f"{len(found) - failed} passed, {failed} failed")
    return int(failed > 0)


def do_bench(args):
    """The benchmarks. A goal that is missed is no failure; a benchmark that fails is one."""
    try:
        return do_check(args)
    finally:
        # one that is ended leaves what it has measured
        if os.path.exists(f"{RUN}/check.json"):
            for line in bench.write(RUN):
                print(line)
            tell(f"report: {RUN}/bench.html; raw samples: bench.csv and bench.json there")


def do_fuzz(args):
    """QEMU's fuzzer, for a while."""
    with SetupLock():
        inside = fuzz_tree()
        qemu = Qemu(args.qemu_base, args.qemu_source).make("fuzz", 900, 5000, inside)
    corpus = f"{CACHE}/fuzz/{args.way}"
    os.makedirs(corpus, exist_ok=True)
    jobs = str(os.cpu_count())
    tell(f"fuzzing in {jobs} processes for {args.seconds} s; what is found: {RUN}")
    # it has no network
    os.unshare(os.CLONE_NEWNET)
    # QEMU has a word for each mistake of its guest, which would be gigabytes: its standard error is closed, not
    # the sanitizers'. The run's folder is that of the tree inside
    with open(f"{RUN}/fuzz.log", "w", encoding="utf-8") as log:
        status = subprocess.run([*inside, "env", "-C", RUN, *(["FUZZ_IOMMU=1"] if args.way == "iommu" else []),
                                 FUZZ, "run", qemu, corpus, f"-artifact_prefix={RUN}/", f"-jobs={jobs}",
                                 f"-workers={jobs}", f"-max_total_time={args.seconds}",
                                 "-print_final_stats=1", "-close_fd_mask=2"],
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    count = 0
    for path in glob.glob(f"{RUN}/fuzz-tree/fuzz-*.log"):
        with open(path, encoding="utf-8", errors="replace") as file:
            count += sum(map(int, re.findall(r"^stat::number_of_executed_units: (\d+)", file.read(), re.M)))
    print(f"{count} inputs")
    if slow := glob.glob(f"{RUN}/fuzz-tree/slow-unit-*"):
        tell(f"an input took 10 s or more: {' '.join(slow)}")
    if status or not count:
        raise StepError(f"an input crashed, or nothing ran: see {RUN}/fuzz.log")
    return 0


COMMANDS = {"setup": do_setup, "up": do_up, "demo": do_demo, "soak": do_soak, "check": do_check, "lint": do_lint,
            "bench": do_bench, "fuzz": do_fuzz}


def run(args):
    """A command; what is expected to go wrong is one line."""
    try:
        return (COMMANDS.get(args.command) or attached.COMMANDS[args.command])(args)
    except (LabError, QMPError, StepError) as err:
        print(f"virtio-lm: {outside(str(err))}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as err:
        print(f"virtio-lm: no answer within {err.timeout:.0f} s: {err.cmd[-1]} (a busy machine?)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if args.command in ("setup", "demo", "soak", "check", "lint", "bench", "fuzz"):
            tell(f"logs: {RUN}")
