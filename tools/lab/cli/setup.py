# SPDX-License-Identifier: GPL-2.0-or-later
"""lab setup, and what each other command needs of it."""
import time

from . import kernels
from .artefacts import Qemu, keep_newest, make, ssh_keys, tree
from .steps import CACHE, SetupLock, say


def parts(args):
    """What a lab of those options is made of: fields of Config, and the folder of the QEMU that is built, ""
    where QEMUs of the user's take its place."""
    begin = time.monotonic()
    with SetupLock():
        ssh_keys()
        made = kernels.user(args.kernel, args.modules, args.driver) if args.kernel else kernels.stock()
        if args.driver:
            made.update(driver=args.driver, log_modules="")
        made["tools"] = make("tools")
        keep_newest("tree", 4, f"{CACHE}/tree/{tree()}")
        folder = ""
        if not args.qemu or not args.l2_qemu:
            folder = Qemu(args.qemu_base, args.qemu_source).make()
        made["qemu"] = args.qemu or f"{folder}/bin/qemu-system-x86_64"
        made["l2_qemu"] = args.l2_qemu or f"{folder}/bin/qemu-system-x86_64"
    if time.monotonic() - begin > 10:
        say(f"set up in {time.monotonic() - begin:.0f} s")
    return made, folder
