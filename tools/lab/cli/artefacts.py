# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made in the cache: one table. Each thing has a name that follows from what it is made of, is made
under another name and renamed when it is whole: a setup can be interrupted and repeated, and checkouts share
what is equal."""
import fcntl
import glob
import hashlib
import os
import shutil
import typing

from .options import bases
from .steps import CACHE, RUN, SRC, need_space, say, step

LAB = f"{SRC}/tools/lab"


class Artefact(typing.NamedTuple):
    """A folder of the cache that a program of tools/lab makes of files of the checkout."""
    # the program, which is told the folder
    program: str
    what: str
    seconds: int
    # files and folders besides the program
    made_of: tuple
    # how many are kept
    keep: int
    folder: str = ""
    mib: int = 100
    # one that needs the network, and may not be there: what needs it is skipped then
    optional: bool = False


ARTEFACTS = {
    "images": Artefact("kernel", "make the kernel's images", 5,
                       ("tools/lab/l1-initramfs", "tools/lab/l2-init", "tools/lab/agent"), 6, "linux"),
    "simulator": Artefact("modules", "build the vDPA simulator and vp_vdpa", 20, ("tools/lab/sim",), 3),
    "driver": Artefact("driver", "build the driver", 20, ("drivers", "include"), 10),
    "log-modules": Artefact("log-modules", "build the vDPA modules with a dirty log", 40,
                            ("tools/lab/sim", "tools/linux/modules-log", "patches/linux-6.12", "patches/linux-7.x",
                             "drivers", "include", "dkms.conf"), 6),
    "tools": Artefact("helpers", "build the lab's helpers and the kselftests", 10,
                      ("tools/lab/agent", "tools/testing", "samples", "include"), 10, "tools"),
    "dkms": Artefact("dkms", "get Debian's DKMS and debhelper", 5, ("tools/lab/debs",), 2, optional=True),
    "dpdk": Artefact("dpdk", "get Debian's DPDK", 30, ("tools/lab/debs", "tools/lab/unpack"), 2, mib=500,
                     optional=True),
    "libvirt": Artefact("libvirt", "get Debian's libvirt", 30, ("tools/lab/debs", "tools/lab/unpack"), 2, mib=300,
                        optional=True),
    "vhost-crate": Artefact("vhost-crate", "build a program with Debian's vhost crate", 90,
                            ("tools/lab/debs", "tools/lab/unpack", "tools/lab/vdpa-net.rs"), 2, mib=1000,
                            optional=True),
    "vng": Artefact("vng", "get Debian's virtme-ng", 10, ("tools/lab/debs", "tools/lab/unpack"), 2, optional=True),
}


def hash_of(*paths):
    """Of the files at those paths of the checkout."""
    files = []
    for path in paths:
        if os.path.isfile(f"{SRC}/{path}"):
            files.append(path)
        files += [os.path.relpath(os.path.join(folder, name), SRC)
                  for folder, _, names in os.walk(f"{SRC}/{path}") for name in names
                  # an editor's lock is a link to nothing
                  if os.path.isfile(os.path.join(folder, name))]
    digest = hashlib.sha256()
    for path in sorted(files):
        with open(f"{SRC}/{path}", "rb") as file:
            digest.update(f"{path} {hashlib.sha256(file.read()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def tree():
    """The name of the tree that this runs in."""
    return os.environ["LM_TREE"]


def keep_newest(folder, count, used):
    """Of a folder of the cache, what was used last, and what is used now; nothing of a setup that was ended. The
    caller is alone in the cache."""
    for path in glob.glob(f"{CACHE}/{folder}/*.new"):
        shutil.rmtree(path, ignore_errors=True)
    old = [path for path in glob.glob(f"{CACHE}/{folder}/*") if os.path.isdir(path) and path != used]
    for path in sorted(old, key=os.path.getmtime, reverse=True)[count - 1:]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # whoever has a lab on it holds the lock
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # what is left of it is not to be taken for whole
            os.rename(path, path + ".old")
            shutil.rmtree(path + ".old", ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def there(path):
    """Is it there? Then note that it is used."""
    if os.path.exists(path):
        os.utime(path)
        return True
    return False


def make(name, words=(), key="", what=""):
    """The folder of an artefact of the table, which is made where it is not there; "" where it cannot be had
    and is optional. words: more arguments of its program. key: what these are, in the name."""
    artefact = ARTEFACTS[name]
    folder = artefact.folder or artefact.program
    program = f"tools/lab/{artefact.program}"
    path = f"{CACHE}/{folder}/{key or tree()}-{hash_of(program, *artefact.made_of)}"
    if there(path):
        return path
    os.makedirs(f"{CACHE}/{folder}", exist_ok=True)
    need_space(artefact.mib)
    if not step(what or artefact.what, artefact.seconds, ["sh", f"{SRC}/{program}", path, *words], artefact.optional):
        say("  its test is skipped")
        return ""
    keep_newest(folder, artefact.keep, path)
    return path


def ssh_keys():
    """Of the L1s."""
    if not there(f"{CACHE}/ssh/known_hosts"):
        step("make the ssh keys", 1, ["sh", f"{LAB}/keys", f"{CACHE}/ssh"])


class Qemu:
    """The QEMU of L1 and L2: of a base, or of a source of the user's. It is built where it has changed."""

    def __init__(self, base, source):
        self.words = ["--source", source] if source else ["--base", base] if base else []
        self.base = "source" if source else base

    def folder(self):
        """In the cache; "" where none was built yet."""
        if not self.base:
            if not os.path.exists(f"{CACHE}/qemu/base"):
                return ""
            with open(f"{CACHE}/qemu/base", encoding="ascii") as file:
                return f"{CACHE}/qemu/{file.read().strip()}"
        return f"{CACHE}/qemu/{self.base}"

    def make(self, kind="", seconds=400, mib=2500, prefix=()):
        """Build it, of a kind: "", fuzz or tsan. prefix: the words of what it is built in. Its folder."""
        os.makedirs(f"{CACHE}/qemu", exist_ok=True)
        built = self.folder() and os.path.exists(f"{self.folder()}/{kind or '.'}/bin/key")
        if not built:
            need_space(mib)
        step(f"build QEMU{' with ' + kind if kind else ''}, where it has changed", 5 if built else seconds,
             [*prefix, "sh", f"{SRC}/tools/qemu/build", *self.words, *(["--" + kind] if kind else []), f"{CACHE}/qemu"])
        with open(f"{self.folder()}/taken", encoding="utf-8") as file:
            say(f"  {file.read().strip()}")
        return self.folder()

    def source(self):
        """Its source as Debian has it: the folder."""
        os.makedirs(f"{CACHE}/qemu", exist_ok=True)
        if not self.folder() or not os.path.isdir(f"{self.folder()}/pristine"):
            need_space(1000)
            step("get QEMU's source", 30, ["sh", f"{SRC}/tools/qemu/build", *self.words, "--fetch", f"{CACHE}/qemu"])
        return f"{self.folder()}/pristine"

    @staticmethod
    def sources():
        """Get the sources of all bases, for the tests of these."""
        for base in bases():
            if not os.path.isdir(f"{CACHE}/qemu/{base}/pristine"):
                need_space(1000)
                if not step(f"get the source of QEMU's base {base}", 30,
                            ["sh", f"{SRC}/tools/qemu/build", "--base", base, "--fetch", f"{CACHE}/qemu"], True):
                    say("  its tests are skipped")


def fuzz_tree():
    """The tree in which QEMU is built for fuzzing and fuzzed; the words to run a command in it."""
    key = hashlib.sha256((tree() + hash_of("tools/lab/tree-fuzz", "tools/lab/packages-fuzz")).encode()).hexdigest()[:12]
    path = f"{CACHE}/tree/{key}"
    if not there(path):
        need_space(2500)
        step("add clang to a copy of the tree", 120,
             ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
              "sh", f"{LAB}/tree-fuzz", f"{CACHE}/tree/{tree()}", path])
    folder = f"{RUN}/fuzz-tree"
    os.makedirs(folder, exist_ok=True)
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc",
            "sh", f"{LAB}/inside", path, SRC, CACHE, folder]
