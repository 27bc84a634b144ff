# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands to a lab that is up: they run in its namespaces."""
import dataclasses
import glob
import json
import os
import shlex
import subprocess
import sys

from vlm import l2, net
from vlm.l1 import LabError
from vlm.lab import Lab, say
from vlm.migration import migrate

from .steps import RUN, outside

TAIL = 40
# for an L1 to answer
STATUS_SECONDS = 20


def where_l2_is(lab):
    """The L1 that runs L2."""
    for l1 in lab.l1s:
        if l2.running(l1) is not None:
            return l1
    raise LabError("no L1 runs an L2: lab l2 start")


def show(args, text, data):
    """The answer to a command, for who has asked: a reader, or a program."""
    print(json.dumps(data) if args.json else text)


def do_exec(args):
    """Become the ssh that runs a command in an L1."""
    l1 = Lab.attach(RUN).l1(args.l1)
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    command = l1.ssh(*terminal) + [shlex.join(args.words) if args.words else "exec bash -i"]
    os.execvp(command[0], command)


def do_console(args):
    """Become the terminal of a guest."""
    lab = Lab.attach(RUN)
    if args.guest == "l2":
        to = f"TCP:{where_l2_is(lab).address}:{l2.CONSOLE_PORT}"
    else:
        l1 = lab.l1(args.guest)
        to = f"UNIX-CONNECT:{l1.sockets}/{l1.name}.console"
    print(f"console of {args.guest}; Ctrl-] leaves it", flush=True)
    os.execvp("socat", ["socat", "-,raw,echo=0,escape=0x1d" if sys.stdin.isatty() else "-", to])


def do_qmp(args):
    """A command of a guest's QEMU. A value that is JSON is taken for it, all else for text."""
    lab = Lab.attach(RUN)
    command, *pairs = args.words
    arguments = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise LabError(f"{pair}: an argument of a QMP command is NAME=VALUE")
        try:
            arguments[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            arguments[name.replace("-", "_")] = value
    if args.guest == "l2":
        conn = l2.qmp(where_l2_is(lab))
        try:
            answer = conn.cmd(command, **arguments)
        finally:
            conn.close()
    else:
        answer = lab.l1(args.guest).qmp(command, **arguments)
    print(answer if isinstance(answer, str) else json.dumps(answer, indent=1))
    return 0


def do_logs(args):
    """Where they are, or their ends."""
    lab = Lab.attach(RUN)
    if not args.guest:
        for path in sorted(glob.glob(f"{RUN}/*.log") + glob.glob(f"{RUN}/l1?/*.log")):
            print(f"{os.path.getsize(path):10} {outside(path)}")
        return 0
    if args.guest == "l2":
        paths = [path for l1 in lab.l1s for path in sorted(glob.glob(f"{l1.share}/l2.*.log"))]
    else:
        l1 = lab.l1(args.guest)
        paths = [l1.serial_log, l1.log]
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        print(f"==> {outside(path)} <==", *lines[-TAIL:], sep="\n")
    if not paths:
        raise LabError(f"{args.guest} has no logs yet")
    return 0


def do_vdpa(args):
    """Give functions to the driver."""
    l1 = Lab.attach(RUN).l1(args.l1)
    nodes = [l2.take_over(l1, n, f"vdpa{n}", l2.MAC if n == 0 else None) for n in range(l1.config.devices)]
    show(args, "\n".join(nodes), nodes)
    return 0


def do_l2(args):
    """start, stop, status of L2."""
    lab = Lab.attach(RUN)
    if args.what != "start" and args.l1:
        raise LabError(f"lab l2 {args.what} takes no L1")
    if args.what == "start":
        l1 = lab.l1(args.l1 or "l1a")
        for other in lab.l1s:
            if l2.alive(other):
                raise LabError(f"{other.name} runs an L2 already, and there is one address for it: lab l2 stop")
        if l1.run(["test", "-e", l2.NODE]).returncode:
            say(f"{l1.name}: {l2.take_over(l1)}")
        say(f"starting L2 in {l1.name}, about 20 s without KVM")
        l2.start(l1)
        say(f"L2 is up after {l2.wait_up(l1):.1f} s, at {net.L2_DATA}")
    elif args.what == "stop":
        l2.stop(where_l2_is(lab))
    else:
        states = {l1.name: state for l1 in lab.l1s if (state := l2.running(l1)) is not None}
        show(args, "\n".join(f"L2 in {name}: {state}" for name, state in states.items())
             or "no L1 runs an L2: lab l2 start", states)
        return 0 if states else 1
    return 0


def do_migrate(args):
    """Move L2."""
    lab = Lab.attach(RUN)
    src = lab.l1(args.src) if args.src else where_l2_is(lab)
    if not l2.alive(src):
        raise LabError(f"{src.name} runs no L2: lab l2 status tells where it is")
    others = [l1 for l1 in lab.l1s if l1 is not src]
    if not others:
        raise LabError("there is only one L1: lab up --l1s 2")
    dst = lab.l1(args.dst) if args.dst else others[0]
    if dst is src:
        raise LabError(f"{src.name} is source and destination: name two L1s")
    if dst.run(["test", "-e", l2.NODE]).returncode:
        l2.take_over(dst)
    moved = migrate(src, dst)
    show(args, str(moved), dataclasses.asdict(moved))
    return 0


def do_status(args):
    """One line per guest."""
    lab = Lab.attach(RUN)
    rows = []
    for l1 in lab.l1s:
        try:
            alive = l1.run(["cat", "/proc/uptime"], timeout=STATUS_SECONDS)
            uptime = float(alive.stdout.split()[0]) if alive.returncode == 0 else None
        except subprocess.TimeoutExpired:
            uptime = None
        rows.append({"name": l1.name, "uptime": uptime, "address": l1.address,
                     "accel": "KVM" if lab.config.kvm else "TCG",
                     "l2": "unknown" if uptime is None else l2.running(l1)})
    show(args, "\n".join(
        f"{row['name']}: {'not answering' if row['uptime'] is None else 'up %.0f s' % row['uptime']}, "
        f"{row['address']}, {row['accel']}; L2: {row['l2'] or 'none'}" for row in rows), rows)
    return 0


COMMANDS = {"exec": do_exec, "console": do_console, "qmp": do_qmp, "logs": do_logs, "vdpa": do_vdpa, "l2": do_l2,
            "migrate": do_migrate, "status": do_status}
