# SPDX-License-Identifier: GPL-2.0-or-later
"""python3 -m vlm COMMAND: what tools/lab/lab runs inside the tree. Its --help is lab's."""
import argparse
import os
import shlex
import signal
import sys
import time

from . import demo, l2, net, soak
from .l1 import LabError
from .lab import Lab, add_config, config_of, say
from .qmp import QMPError

RUN = "/virtio-lm/run"


def supervise(args):
    """Start a lab and hold it until it is taken down, from outside, by ending this process."""
    lab = Lab(config_of(args), RUN)
    lab.start()
    with open(f"{RUN}/ready", "w", encoding="ascii"):
        pass
    say("ready")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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


def where_l2_is(lab):
    """The L1 that runs L2."""
    for l1 in lab.l1s:
        if l2.running(l1) is not None:
            return l1
    raise LabError("no L1 runs an L2: lab l2 start")


def do_exec(args):
    """Become the ssh that runs a command in an L1."""
    l1 = Lab.attach(args.run).l1(args.l1)
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    command = l1.ssh(*terminal) + [shlex.join(args.command) if args.command else "exec bash -i"]
    os.execvp(command[0], command)


def do_console(args):
    """Become the terminal of a guest."""
    lab = Lab.attach(args.run)
    if args.guest == "l2":
        to = f"TCP:{where_l2_is(lab).address}:{l2.CONSOLE_PORT}"
    else:
        l1 = lab.l1(args.guest)
        to = f"UNIX-CONNECT:{l1.sockets}/{l1.name}.console"
    print(f"console of {args.guest}; Ctrl-] leaves it", flush=True)
    os.execvp("socat", ["socat", "-,raw,echo=0,escape=0x1d" if sys.stdin.isatty() else "-", to])


def do_vdpa(args):
    """Give functions to the driver."""
    l1 = Lab.attach(args.run).l1(args.l1)
    for n in range(l1.config.devices):
        print(l2.take_over(l1, n, f"vdpa{n}", l2.MAC if n == 0 else None))
    return 0


def do_l2(args):
    """start, stop, status of L2."""
    lab = Lab.attach(args.run)
    if args.what == "start":
        l1 = lab.l1(args.l1)
        for other in lab.l1s:
            if l2.alive(other):
                raise LabError(f"{other.name} runs an L2 already, and there is one address for it: lab l2 stop")
        if l1.run(["test", "-e", "/dev/vhost-vdpa-0"]).returncode:
            say(f"{l1.name}: {l2.take_over(l1)}")
        say(f"starting L2 in {l1.name}, about 20 s without KVM")
        l2.start(l1)
        say(f"L2 is up after {l2.wait_up(l1):.1f} s, at {net.L2_DATA}")
    elif args.what == "stop":
        l2.stop(where_l2_is(lab))
    else:
        states = {l1.name: l2.running(l1) for l1 in lab.l1s}
        for name, state in states.items():
            if state is not None:
                print(f"L2 in {name}: {state}")
        if not any(states.values()):
            print("no L1 runs an L2: lab l2 start")
            return 1
    return 0


def do_migrate(args):
    """Move L2."""
    lab = Lab.attach(args.run)
    src = lab.l1(args.src) if args.src else where_l2_is(lab)
    if not l2.alive(src):
        raise LabError(f"{src.name} runs no L2: lab l2 status tells where it is")
    others = [l1 for l1 in lab.l1s if l1 is not src]
    if not others:
        raise LabError("there is only one L1: lab up --l1s 2")
    dst = lab.l1(args.dst) if args.dst else others[0]
    if dst is src:
        raise LabError(f"{src.name} is source and destination: name two L1s")
    if dst.run(["test", "-e", "/dev/vhost-vdpa-0"]).returncode:
        l2.take_over(dst)
    print(l2.migrate(src, dst))
    return 0


def do_status(args):
    """One line per guest."""
    lab = Lab.attach(args.run)
    for l1 in lab.l1s:
        alive = l1.run(["cat", "/proc/uptime"], timeout=10)
        up = f"up {float(alive.stdout.split()[0]):.0f} s" if alive.returncode == 0 else "not answering"
        inner = l2.running(l1)
        print(f"{l1.name}: {up}, {l1.address}, {'KVM' if lab.config.kvm else 'TCG'}; "
              f"L2: {inner or 'none'}")
    return 0


def do_link(args):
    """The kselftests' link hook: take the link of an L1's function down or up."""
    Lab.attach(args.run).l1(args.l1).set_link(args.function_number, args.state == "up")
    return 0


def main():
    """Parse, run, and turn what is expected to go wrong into one line."""
    parser = argparse.ArgumentParser(prog="lab")
    parser.add_argument("--run", default=RUN)
    commands = parser.add_subparsers(dest="name", required=True)

    def command(name, function, *arguments, config=False):
        sub = commands.add_parser(name)
        sub.set_defaults(function=function)
        if config:
            add_config(sub)
        for words, options in arguments:
            sub.add_argument(*words, **options)

    command("supervise", supervise, config=True)
    command("demo", lambda args: demo.run(config_of(args), RUN),
            config=True)
    command("soak", lambda args: soak.run(config_of(args), RUN, args.rounds),
            (("--rounds",), {"type": int, "default": 200}), config=True)
    command("exec", do_exec, (("l1",), {}), (("command",), {"nargs": argparse.REMAINDER}))
    command("console", do_console, (("guest",), {}))
    command("vdpa", do_vdpa, (("l1",), {"nargs": "?", "default": "l1a"}))
    command("l2", do_l2, (("what",), {"choices": ["start", "stop", "status"]}),
            (("l1",), {"nargs": "?", "default": "l1a"}))
    command("migrate", do_migrate, (("src",), {"nargs": "?"}), (("dst",), {"nargs": "?"}))
    # the device's MAC, which the hook is told, says no more than the first two words
    command("link", do_link, (("l1",), {}), (("function_number",), {"type": int}),
            (("mac",), {}), (("state",), {"choices": ["down", "up"]}))
    command("status", do_status)
    args = parser.parse_args()
    try:
        return args.function(args)
    except (LabError, QMPError) as err:
        text = str(err).replace(RUN, os.environ.get("LM_HOST_RUN", RUN))
        print(f"virtio-lm: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
