# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of the commands: one table, from which their help, their checks and a lab's Config come.

It is read on the host, too, by whatever Python that has: before anything is set up."""
import os
import subprocess
import typing

from vlm.config import Config

# where tools/lab/inside shows the host's files
HOST = "/virtio-lm/host"
SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


class UsageError(Exception):
    """What is wrong with the command line, and what would be right."""


class Option(typing.NamedTuple):
    """An option. name is a field's of Config, or of those that are for the setup alone."""
    name: str
    metavar: str
    help: str
    choices: tuple = ()
    # of a number
    least: typing.Optional[int] = None
    most: typing.Optional[int] = None
    # "file" or "folder", of the user's
    path: str = ""

    @property
    def flag(self):
        """As it is written."""
        return "--" + self.name.replace("_", "-")

    def default(self):
        """What it is where nobody says anything."""
        return getattr(Config, self.name, "")

    def check(self, text):
        """The value, or UsageError. argparse has defaults checked, too."""
        if text == self.default() and self.least is None:
            return text
        if self.least is not None:
            if not text.isascii() or not text.isdigit():
                raise UsageError(f"{self.flag}: {text} is not a number")
            if not self.least <= int(text) <= (self.most or int(text)):
                bounds = f"{self.least} to {self.most}" if self.most else f"{self.least} or more"
                raise UsageError(f"{self.flag}: {text} is out of range; possible are {bounds}")
            return int(text)
        if self.choices and text not in self.choices:
            raise UsageError(f"{self.flag}: there is no {text}; possible are {', '.join(self.choices)}")
        if self.path:
            return host_path(self.flag, text, self.path)
        return text


def bases():
    """The names of QEMU's bases, the best first."""
    with open(f"{SRC}/tools/bases", encoding="ascii") as file:
        return tuple(line.split()[1] for line in file if line.startswith("qemu "))


def host_path(flag, path, kind):
    """A file or folder of the user's, as it is named in the tree."""
    path = os.path.join(os.environ["LM_HOST_CWD"], path)
    if "LM_ON_HOST" not in os.environ:
        # links of the host's are the host's to follow
        done = subprocess.run(["chroot", HOST, "realpath", "--", path], capture_output=True, text=True, check=False)
        seen = HOST + (done.stdout.strip() or path)
    else:
        seen = os.path.realpath(path)
    if not (os.path.isdir(seen) if kind == "folder" else os.path.isfile(seen)):
        raise UsageError(f"{flag}: there is no {kind} {path}")
    return seen


# What a lab is made of. Those whose defaults are files that setup makes have none in Config.
LAB = (
    Option("l1s", "N", "how many L1s, side by side", least=1, most=8),
    Option("devices", "N", "vdpa functions of each L1", least=0, most=8),
    Option("device_props", "PROPS", "their properties; several sets, apart by ;, are for the functions 0, 1, ..."),
    Option("queues", "N", "queue pairs of their taps", least=1, most=256),
    Option("machine", "TYPE", "QEMU's type of their machine, of the family q35: pc-q35-8.2 for one"),
    Option("iommu", "DEVICE", "QEMU's words for the IOMMU that they are behind"),
    Option("cpus", "N", "vCPUs of an L1", least=2, most=64),
    Option("memory", "MIB", "memory of an L1", least=256),
    Option("accel", "ACCEL", "auto is KVM where it truly works", ("auto", "kvm", "tcg")),
    Option("threads", "HOW", "under TCG, host threads for the vCPUs of an L1: multi is one for each, single is one "
           "for all, auto is multi where the host has as many CPUs as all L1s have vCPUs",
           ("auto", "multi", "single")),
    Option("qemu_base", "BASE", "which QEMU to build (tools/bases says what they are): if not said, the one taken "
           "last, or the first there is", bases()),
    Option("qemu_source", "TREE", "build a source tree of QEMU of yours, in a copy, with our patches", path="folder"),
    Option("qemu", "FILE", "a QEMU of yours for the L1s, as it is", path="file"),
    Option("qemu_args", "ARGS", "more arguments for it"),
    Option("kernel", "VMLINUX", "a kernel of yours for the L1s, and L2 unless --l2-kernel: uncompressed, with 9p, "
           "overlayfs, virtio-net, IOMMU, KVM", path="file"),
    Option("modules", "DIR", "... and its modules: DIR is lib/modules/RELEASE", path="folder"),
    Option("append", "WORDS", "more words for L1's kernel command line"),
    Option("vdpa_modules", "SET", "the L1s' vDPA modules: log (the set with the dirty log, and the driver that uses "
           "it) or stock (the kernel's own)", ("log", "stock")),
    Option("driver", "FILE.ko", "a driver module of yours, with the kernel's own vDPA modules", path="file"),
    Option("dirty_log", "WAY", "how L2's QEMU migrates: device (log), svq (shadow virtqueues) or auto, device where "
           "that is possible", ("auto", "device", "svq")),
    Option("l2_qemu", "FILE", "a QEMU of yours for L2", path="file"),
    Option("l2_qemu_args", "ARGS", "more arguments for it"),
    Option("l2_kernel", "VMLINUX", "a kernel of yours for L2", path="file"),
    Option("l2_initrd", "FILE", "... with its own initramfs", path="file"),
    Option("l2_memory", "MIB", "memory of L2", least=64),
    Option("l2_append", "WORDS", "more words for L2's kernel command line"),
    Option("rate", "N", "packets per second that L2 and its peer send each other", least=1, most=100000),
    Option("pages", "N", "pages of its memory that L2 checks and dirties per second", least=1),
)

# What the tests can be told; what is not said is each test's own
TESTS = (
    Option("rounds", "N", "migrations there and back of migration and soak, rounds of a benchmark", least=1),
    Option("lives", "N", "lifetimes of hostile", least=1),
    Option("inputs", "N", "inputs of fuzz", least=1),
    Option("seed", "N", "of all random choices: what has failed is repeated with the seed that it printed", least=0),
)


def add(parser, options, defaults):
    """Those options, for a parser. defaults: those that differ from Config's."""
    for option in options:
        default = defaults.get(option.name, option.default())
        text = option.help + (f" ({default})" if default not in ("", None) else "")
        parser.add_argument(option.flag, metavar=option.metavar, default=default, type=option.check,
                            help=text.replace("%", "%%"))


def consistent(args):
    """What one option asks of another."""
    if args.kernel and not args.modules:
        raise UsageError("--kernel needs --modules, the lib/modules/RELEASE folder of that kernel")
    if args.modules and not args.kernel:
        raise UsageError("--modules needs --kernel, the vmlinux that they are for")
    if args.qemu_source and args.qemu_base:
        raise UsageError("--qemu-base and --qemu-source exclude each other")
    if args.qemu_source and args.qemu and args.l2_qemu:
        raise UsageError("--qemu-source builds what --qemu and --l2-qemu take the place of")


def config_of(args, made):
    """The Config of the options, and of what setup has made of those that name files."""
    fields = {option.name: getattr(args, option.name) for option in LAB if hasattr(Config, option.name)}
    if args.qemu and fields["threads"] == "auto":
        # it need not have fixes/0034, without which what the device logs is lost
        fields["threads"] = "multi"
    return Config(**{**fields, **made})
