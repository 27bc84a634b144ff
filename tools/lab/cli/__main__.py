# SPDX-License-Identifier: GPL-2.0-or-later
"""python3 -m cli [--first] COMMAND ...: what tools/lab/lab runs inside the tree. --first: no more than a look at
the command line, which may be on the host; exit status 3 says that this was all (help, a list)."""
import argparse
import re
import sys

from vlm.l2 import NAMES

from . import options, tests
from .options import UsageError

# what else than options the commands of many options take
USAGE = {"soak": " [N]", "check": " [TEST]...", "bench": " [BENCHMARK]..."}
# L1s that are named, or not
POSITIONS = {"l2": ("l1",), "migrate": ("src", "dst")}
EXAMPLES = "A QEMU or driver of yours runs in the lab's tree: build it there (lab shell)."


def number(name):
    """What takes a number from 1 on, for argparse."""
    def check(text):
        if isinstance(text, str) and (not text.isascii() or not text.isdigit() or int(text) < 1):
            raise UsageError(f"{name}: {text} is no number from 1 on")
        return int(text)
    return check


class Parser(argparse.ArgumentParser):
    """argparse's, with errors in this project's form, and help that ends as --first wants it."""

    def __init__(self, **words):
        super().__init__(allow_abbrev=False, **words,
                         formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=100))

    def error(self, message):
        # argparse puts its own words before those of a type
        found = re.match(r"argument --\S+: (invalid \w+ value: .*)$", message)
        raise UsageError(f"{found[1] if found else message}; lab {self.prog.split()[-1]} --help tells more")

    def exit(self, status=0, message=None):
        sys.exit(status or 3)

    def _get_value(self, action, arg_string):
        # of a value, the option's own words and no others
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as err:
            raise UsageError(str(err)) from err


def parser():
    """Of all commands; and their names."""
    top = Parser(prog="lab", usage="lab [--lab NAME] COMMAND [OPTION]...")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="lab")

    def which(sub):
        sub.add_argument("--guest", metavar="L2", default=NAMES[0], choices=NAMES,
                         help=f"which one: {', '.join(NAMES)} ({NAMES[0]})")

    def command(name, text, lab=False, json=False, **defaults):
        sub = commands.add_parser(name, description=text, epilog=EXAMPLES if lab else None,
                                  usage=f"lab {name} [OPTION]..." + USAGE.get(name, "") if lab else None)
        sub.set_defaults(**defaults)
        if lab:
            options.add(sub, options.LAB, defaults)
        if json:
            sub.add_argument("--json", action="store_true", help="for programs")
        return sub

    command("setup", "Make tree, kernel images, driver, QEMU, debug kernel where they are missing or have changed.",
            lab=True)
    command("up", "Start L1 guests, and keep them until `lab down`.", lab=True)
    command("demo", "Two L1s, an L2 with traffic, migrated live; a report.", lab=True, l1s=2)
    sub = command("soak", "L2 goes there and back N times, and its memory is checked each time.", lab=True,
                  l1s=2, l2_memory=128)
    sub.add_argument("rounds", metavar="N", nargs="?", default=200, type=number("N"), help="(200)")
    sub = command("check", "Run the tests, or those that are named, two at a time. The options of lab up are for a "
                  "kernel, QEMU or driver of yours.", lab=True)
    sub.add_argument("tests", metavar="TEST", nargs="*", help="see --list")
    sub.add_argument("--list", action="store_true", help="show the tests that there are, and what they promise")
    sub.add_argument("--group", action="append", choices=tests.GROUPS, help="the tests of a group; can be repeated")
    sub.add_argument("--variant", action="append", choices=(*tests.VARIANTS, "none"),
                     help="the tests on a kernel, or on none; can be repeated")
    sub.add_argument("--all", action="store_true",
                     help="also those that --list marks so: an hour and more, not 20 minutes")
    sub.add_argument("--long", action="store_true",
                     help="all, in their long form, which takes hours, and ends with a table of what was counted; one "
                     "that was ended goes on where it was, as long as this checkout and the options are the same")
    sub.add_argument("--minutes", metavar="N", type=number("--minutes"),
                     help="have ended after N minutes, with what is made in the tree: tests that would not, by "
                     "what they took the last time or what they declare, are left and named; those of --all first")
    sub.add_argument("--verbose", action="store_true", help="show all that they say")
    options.add(sub, options.TESTS, {option.name: None for option in options.TESTS})
    sub = command("lint", "checkpatch, kernel-doc, shellcheck and pyflakes over the sources, as the test `sources` "
                  "runs them. Boots nothing, and needs no QEMU that is built.")
    sub.add_argument("files", metavar="FILE", nargs="*", help="only these, named from the root of the checkout")
    sub = command("bench", "Run the benchmarks, or those that are named, one at a time, on a machine that does "
                  "nothing else. They print a table of ratios, and leave a report in the folder of logs.", lab=True,
                  group=["bench"], variant=None, list=False, all=False, minutes=None)
    sub.add_argument("tests", metavar="BENCHMARK", nargs="*", help="see lab check --list --group bench")
    sub.add_argument("--quick", dest="long", action="store_false", help="fewer rounds, one size of L2")
    sub.add_argument("--verbose", action="store_true", help="show all that they say")
    options.add(sub, options.TESTS, {option.name: None for option in options.TESTS})
    sub = command("fuzz", "QEMU's generic-fuzz with the address and undefined behaviour sanitizers on the device: by "
                  "itself, or behind an intel-iommu, which is fuzzed along; in as many processes as there are "
                  "processors. What covers more of the code is kept in the cache, and the next run goes on from "
                  "there. An input that crashes is kept in the folder of logs, and ends its process; one that takes "
                  "10 s is kept as well. The first run installs clang in a tree of its own (1 GB), and builds QEMU "
                  "anew.", qemu_base="", qemu_source="")
    sub.add_argument("way", choices=("plain", "iommu"))
    sub.add_argument("seconds", metavar="SECONDS", type=number("SECONDS"))
    sub = command("vdpa", "In an L1: load the driver, let it take the vdpa functions over and make devices of them; "
                  "prints the /dev/vhost-vdpa-N of each.", json=True)
    sub.add_argument("l1", metavar="L1", nargs="?", default="l1a", help="(l1a)")
    sub = command("exec", "Run COMMAND as root in an L1, stdin passed, output streamed; ends with its exit status. "
                  "For a pipeline: lab exec l1a sh -c 'dmesg | tail'")
    sub.add_argument("l1", metavar="L1")
    sub.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="(a shell)")
    sub = command("l2", "Boot an L2 in an L1, on its /dev/vhost-vdpa-0; end it; tell where it runs (exit status 1: "
                  "nowhere). l2b is on /dev/vhost-vdpa-1, and so on: as many as the L1s have --devices.", json=True)
    which(sub)
    sub.add_argument("what", choices=("start", "stop", "status"))
    sub.add_argument("l1", metavar="L1", nargs="?", help="for start (l1a)")
    sub = command("migrate", "Move an L2 live, from where it runs to another L1; prints time and downtime.", json=True)
    which(sub)
    sub.add_argument("src", metavar="SRC", nargs="?", help="(where it runs)")
    sub.add_argument("dst", metavar="DST", nargs="?", help="(the first other one)")
    sub = command("console", "A guest's serial console; Ctrl-] leaves it.")
    sub.add_argument("guest", metavar="L1|L2")
    sub = command("qmp", "Run a command of a guest's QEMU, for instance: lab qmp l1a query-status, lab qmp l2 "
                  "human-monitor-command command-line='info network'. Prints the answer as JSON.")
    sub.add_argument("guest", metavar="L1|L2")
    sub.add_argument("words", metavar="COMMAND [NAME=VALUE]", nargs=argparse.REMAINDER)
    sub = command("logs", "Name the logs of the lab that is up, or show the end of a guest's.")
    sub.add_argument("guest", metavar="L1|L2", nargs="?")
    command("status", "The L1s, and the L2s in them.", json=True)
    command("down", "End the lab; its logs stay.")
    sub = command("shell", "Run a command (bash) in the tree, with the host's network, this checkout at "
                  "/virtio-lm/src, the cache at /virtio-lm/cache and the host's files at /virtio-lm/host.")
    sub.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER)
    command("distclean", "End every lab and remove the cache.")
    return top, commands.choices


def parse(argv):
    """The command line, looked at as far as that can be done without anything made."""
    top, names = parser()
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        raise UsageError(f"there is no command {argv[0]}; lab --help lists them")
    args, extra = top.parse_known_args(argv)
    if args.command in ("check", "bench") and not any(word.startswith("-") for word in extra):
        # tests may stand between options
        args.tests += extra
    elif args.command in POSITIONS and not any(word.startswith("-") for word in extra):
        # and so may L1s
        free = [name for name in POSITIONS[args.command] if getattr(args, name) is None]
        if len(extra) > len(free):
            raise UsageError(f"lab {args.command} takes no more words: {' '.join(extra)}")
        for name, word in zip(free, extra):
            setattr(args, name, word)
    elif extra:
        raise UsageError(f"unrecognized arguments: {' '.join(extra)}; lab {args.command} --help tells more")
    if hasattr(args, "kernel"):
        options.consistent(args)
    if args.command in ("demo", "soak") and args.l1s < 2:
        raise UsageError(f"lab {args.command} moves L2 from one L1 to another: --l1s is 2 or more, not {args.l1s}")
    if args.command == "qmp" and not args.words:
        raise UsageError("lab qmp wants a command: lab qmp --help")
    if args.command == "bench" and args.rounds == 1:
        raise UsageError("lab bench shows how far the rounds differ: --rounds is 2 or more, not 1")
    if args.command == "check" and args.long and args.minutes:
        raise UsageError("--long and --minutes exclude each other: the long form goes on where it was ended")
    if args.command in ("check", "bench"):
        # a list is of all, and says which of them are of the long form
        args.chosen = tests.choose(args.tests, args.group, args.variant, args.all, args.long or args.list)
    return args


def main():
    """Parse; and run, unless it is only for --first."""
    first = sys.argv[1:2] == ["--first"]
    try:
        args = parse(sys.argv[2:] if first else sys.argv[1:])
        if args.command == "check" and args.list:
            from . import runner
            print(runner.listing(args.chosen))
            return 3
    except UsageError as err:
        print(f"virtio-lm: {err}", file=sys.stderr)
        return 1
    if first:
        return 0
    # what is beyond this wants the tree's Python
    from . import commands
    return commands.run(args)


if __name__ == "__main__":
    sys.exit(main())
