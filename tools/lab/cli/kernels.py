# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that a lab can have: the tree's own, the newest, one of the user's, and the debug kernel. Each gives the
fields of Config that depend on a kernel, and makes in the cache what they name."""
import hashlib
import os

from .artefacts import hash_of, keep_newest, make, there, tree
from .steps import CACHE, SRC, need_space, say, step

DEBUG = f"{CACHE}/debug-kernel"


def read(path):
    """A file of one line."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def stock():
    """The tree's own, with all that is built for it."""
    return {"kernel": make("images"), "driver": f"{make('driver')}/virtio_lm_vdpa.ko",
            "simulator": make("simulator"), "log_modules": make("log-modules")}


def newest():
    """The newest of the suite that tools/bases has for it, with all that is built for it; {} where it cannot be had."""
    folder = f"{CACHE}/kernels/newest-{hash_of('tools/lab/linux-kernel', 'tools/bases')}"
    if not there(f"{folder}/taken"):
        need_space(2000)
        os.makedirs(f"{CACHE}/kernels", exist_ok=True)
        # which says by 3 that it is not there
        if not step("get the newest kernel", 60, ["sh", f"{SRC}/tools/lab/linux-kernel", folder, "newest"], optional=3):
            say("  the tests on it are skipped")
            return {}
        keep_newest("kernels", 2, folder)
    say(f"  {read(f'{folder}/taken')}")
    key = f"{tree()}-newest-{hashlib.sha256(read(f'{folder}/taken').encode()).hexdigest()[:8]}"

    def built(name, what):
        return make(name, [folder], key, f"{what} for the newest kernel")
    return {"kernel": built("images", "make the images"),
            "driver": f"{built('driver', 'build the driver')}/virtio_lm_vdpa.ko",
            "simulator": built("simulator", "build the vDPA simulator"), "root": folder,
            "log_modules": built("log-modules", "build the vDPA modules with a dirty log")}


def user(vmlinux, modules, driver):
    """One of the user's, with its modules. Sets of vDPA modules are built for the tree's alone."""
    stat = os.stat(vmlinux)
    key = hashlib.sha256(f"{vmlinux} {stat.st_mtime} {stat.st_size}".encode()).hexdigest()[:12]
    return {"kernel": make("images", [vmlinux, modules], f"user-{key}", f"make the images of {vmlinux}"),
            "driver": driver, "simulator": "", "log_modules": ""}


def debug():
    """One that reports what a stock one lets pass (tools/linux/debug.config). The driver and the dirty log
    are in its tree. Its first build takes as long as all else."""
    built = there(f"{DEBUG}/vmlinux")
    if not built:
        need_space(3500)
    step("build the debug kernel, where it has changed", 20 if built else 600,
         ["sh", f"{SRC}/tools/linux/debug-kernel", DEBUG])
    key = read(f"{DEBUG}/key")
    modules = f"{DEBUG}/lib/modules/{read(f'{DEBUG}/release')}"
    return {"kernel": make("images", [f"{DEBUG}/vmlinux", modules], f"debug-{key}",
                           "make the debug kernel's images"),
            "driver": "", "vdpa_modules": "stock",
            # every report and not the first alone, in a log that does not wrap around
            "append": "kasan_multi_shot log_buf_len=8M"}


# What the tests can declare as a variant besides stock, which is the lab's own, or the user's. One is made if a
# test of it is to be run; where it is {}, those tests are skipped.
VARIANTS = {"newest": newest, "debug": debug}
