# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian system to install packages in: the lab's tree, below a layer in memory. It is no guest, and so
compiles at the speed of the machine. No kernel, udev or systemd runs in it: only what a test asks for."""
import os
import subprocess

from vlm.l1 import LabError


def mount(*words):
    """Mount something."""
    subprocess.run(["mount", *words], check=True)


class Root:
    """One such system; /virtio-lm is in it as it is in the tree. It is gone when the test has ended."""

    def __init__(self, name):
        # for this process and its children
        os.unshare(os.CLONE_NEWNS)
        mount("--make-rprivate", "/")
        self.layers = f"/tmp/{name}"
        os.makedirs(self.layers)
        mount("-t", "tmpfs", "layers", self.layers)
        self.path = f"{self.layers}/root"
        self.lay("/", self.path)
        mount("-t", "proc", "proc", f"{self.path}/proc")
        for folder in "dev", "sys", "virtio-lm":
            mount("--rbind", f"/{folder}", f"{self.path}/{folder}")

    def lay(self, lower, path):
        """That folder at that path, with a layer in memory on it."""
        folder = f"{self.layers}/{len(os.listdir(self.layers))}"
        for part in f"{folder}/upper", f"{folder}/work", path:
            os.makedirs(part, exist_ok=True)
        options = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
        mount("-t", "overlay", "-o", options, "layer", path)

    def run(self, script, timeout=600):
        """Run a shell script in it; like subprocess.run."""
        return subprocess.run(["chroot", self.path, "sh", "-euc", script], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False)

    def sh(self, script, timeout=600):
        """Run a shell script in it, as one is in an L1; what it says, or LabError."""
        done = self.run(script, timeout)
        if done.returncode:
            raise LabError(f"`{script}` ended with {done.returncode}: {done.stdout.strip()[-800:]}")
        return done.stdout


def install(*what):
    """The words to install packages, files or names, with what is at hand alone."""
    return ("DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 --yes --no-install-recommends install " +
            " ".join(what))
