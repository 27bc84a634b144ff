# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands to a lab that is up: they run in its namespaces."""
import dataclasses
import glob
import json
import os
import shlex
import subprocess
import sys

from vlm.l1 import LabError
from vlm.l2 import L2, NAMES
from vlm.lab import Lab, say
from vlm.migration import migrate

from .steps import RUN, outside

TAIL = 40
# for an L1 to answer
STATUS_SECONDS = 20


def guest_of(lab, name):
    """The L2 of that name."""
    guest = L2(NAMES.index(name))
    if guest.number >= lab.config.devices:
        raise LabError(f"{name} has no function in these L1s: lab up --devices {guest.number + 1}")
    return guest


def where(lab, guest):
    """The L1 that runs that L2."""
    for l1 in lab.l1s:
        if guest.running(l1) is not None:
            return l1
    raise LabError(f"no L1 runs {guest.name}: lab l2 start --guest {guest.name}")


def prepare(l1, guest):
    """Have an L1's vDPA devices, up to that L2's: the nodes are numbered in the order in which they come."""
    for other in map(L2, range(guest.number + 1)):
        if l1.run(["test", "-e", other.node]).returncode:
            other.take_over(l1)


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
    if args.guest in NAMES:
        guest = guest_of(lab, args.guest)
        to = f"TCP:{where(lab, guest).address}:{guest.console_port}"
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
    if args.guest in NAMES:
        guest = guest_of(lab, args.guest)
        conn = guest.qmp(where(lab, guest))
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
    if args.guest in NAMES:
        guest = guest_of(lab, args.guest)
        paths = [path for l1 in lab.l1s for path in sorted(glob.glob(guest.log(l1, "*")))]
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
    nodes = [guest.take_over(l1) for guest in map(L2, range(l1.config.devices))]
    show(args, "\n".join(nodes), nodes)
    return 0


def do_l2(args):
    """start, stop, status of an L2."""
    lab = Lab.attach(RUN)
    guest = guest_of(lab, args.guest)
    if args.what != "start" and args.l1:
        raise LabError(f"lab l2 {args.what} takes no L1")
    if args.what == "start":
        l1 = lab.l1(args.l1 or "l1a")
        for other in lab.l1s:
            if guest.alive(other):
                raise LabError(f"{other.name} runs {guest.name} already, and it has one address: lab l2 stop --guest "
                               f"{guest.name}; or, in a lab of more --devices, start another --guest")
        prepare(l1, guest)
        say(f"starting {guest.name} in {l1.name}, about 20 s without KVM")
        guest.start(l1)
        say(f"{guest.name} is up after {guest.wait_up(l1):.1f} s, at {guest.address}")
    elif args.what == "stop":
        guest.stop(where(lab, guest))
    else:
        states = {l1.name: state for l1 in lab.l1s if (state := guest.running(l1)) is not None}
        show(args, "\n".join(f"{guest.name} in {name}: {state}" for name, state in states.items())
             or f"no L1 runs {guest.name}: lab l2 start --guest {guest.name}", states)
        return 0 if states else 1
    return 0


def do_migrate(args):
    """Move an L2."""
    lab = Lab.attach(RUN)
    guest = guest_of(lab, args.guest)
    src = lab.l1(args.src) if args.src else where(lab, guest)
    if not guest.alive(src):
        raise LabError(f"{src.name} does not run {guest.name}: lab l2 status --guest {guest.name} tells where it is")
    others = [l1 for l1 in lab.l1s if l1 is not src]
    if not others:
        raise LabError("there is only one L1: lab up --l1s 2")
    dst = lab.l1(args.dst) if args.dst else others[0]
    if dst is src:
        raise LabError(f"{src.name} is source and destination: name two L1s")
    prepare(dst, guest)
    moved = migrate(src, dst, guest=guest)
    show(args, str(moved), dataclasses.asdict(moved))
    return 0


def do_status(args):
    """One line per guest."""
    lab = Lab.attach(RUN)
    rows = []
    guests = list(map(L2, range(max(1, lab.config.devices))))
    for l1 in lab.l1s:
        try:
            alive = l1.run(["cat", "/proc/uptime"], timeout=STATUS_SECONDS)
            uptime = float(alive.stdout.split()[0]) if alive.returncode == 0 else None
        except subprocess.TimeoutExpired:
            uptime = None
        rows.append({"name": l1.name, "uptime": uptime, "address": l1.address,
                     "accel": "KVM" if lab.config.kvm else "TCG",
                     **{guest.name: "unknown" if uptime is None else guest.running(l1) for guest in guests}})
    show(args, "\n".join(
        f"{row['name']}: {'not answering' if row['uptime'] is None else 'up %.0f s' % row['uptime']}, "
        f"{row['address']}, {row['accel']}; "
        + ", ".join(f"{guest.name}: {row[guest.name] or 'none'}" for guest in guests)
        for row in rows), rows)
    return 0


COMMANDS = {"exec": do_exec, "console": do_console, "qmp": do_qmp, "logs": do_logs, "vdpa": do_vdpa, "l2": do_l2,
            "migrate": do_migrate, "status": do_status}
