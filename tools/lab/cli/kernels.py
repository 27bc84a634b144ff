# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that a lab can have: the tree's own, one of the user's, and the debug kernel. Each gives the
fields of Config that depend on a kernel, and makes in the cache what they name."""
import hashlib
import os

from .artefacts import make, there
from .steps import CACHE, SRC, need_space, step

DEBUG = f"{CACHE}/debug-kernel"


def read(path):
    """A file of one line."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def stock():
    """The tree's own, with all that is built for it."""
    return {"kernel": make("images"), "driver": f"{make('driver')}/virtio_lm_vdpa.ko",
            "simulator": make("simulator"), "log_modules": make("log-modules")}


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
