# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a VMM, step by step, on an L1's vDPA device: tools/testing/selftests/vdpa/vdpa_step.c."""
import re
import select
import subprocess

from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2

# those of a VMM's life on a device, which was reset before. The reset at their end has something to stop
ORDER = ("features", "queues", "start", "status", "config", "log_start", "log_read", "log_stop", "command",
         "suspend", "get_state", "set_state", "resume", "reset")
# all but the command, whose answer is looked for once in a millisecond
TIMED = tuple(name for name in ORDER if name != "command")


class Steps:
    """vdpa_step in an L1, on its device, which it opens and resets, up to end()."""

    def __init__(self, l1):
        self.proc = l1.popen(["env", f"VDPA_DEV={l2.node}", f"{l1.config.tools}/kselftest/vdpa_step"], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.step("open")
        self.step("reset")

    def step(self, name):
        """Take one; how many microseconds it took."""
        self.proc.stdin.write(f"{name}\n")
        self.proc.stdin.flush()
        said = self.proc.stdout.readline() if select.select([self.proc.stdout], [], [], PATIENCE)[0] else ""
        done = re.fullmatch(rf"{name}=0 us=(\d+)\n", said)
        if not done:
            raise LabError(f"step {name}: want {name}=0, have {said.strip() or 'nothing'}")
        return int(done[1])

    def end(self):
        """Close it."""
        self.step("close")
        self.proc.communicate(timeout=PATIENCE)


def add(l1, pairs):
    """The command that makes the device of L1's function, with so many pairs."""
    return f"vdpa dev add name vdpa0 mgmtdev pci/{l1.pci(0)} mac {l2.mac} max_vqp {pairs}"


def delete():
    """The one that deletes it."""
    return "vdpa dev del vdpa0"


def counted(l1, registers, pairs):
    """The accesses that each of these takes, by its name, on a device with so many pairs that is made for it."""
    command = add(l1, pairs)
    counts = {"dev add": registers.count(lambda: l1.sh(command))}
    steps = Steps(l1)
    for name in ORDER:
        counts[name] = registers.count(lambda: steps.step(name))
    steps.end()
    counts["dev del"] = registers.count(lambda: l1.sh(delete()))
    return counts


def timed(l1, pairs):
    """How many microseconds each of TIMED takes, likewise."""
    l1.sh(add(l1, pairs))
    steps = Steps(l1)
    took = {name: steps.step(name) for name in ORDER}
    steps.end()
    l1.sh(delete())
    return {name: took[name] for name in TIMED}
