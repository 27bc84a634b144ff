# SPDX-License-Identifier: GPL-2.0-or-later
"""L0's end of the traffic: tools/lab/agent/peer.c, started, read and ended."""
import subprocess
import time

from . import net
from .l1 import LabError, die_with_parent


class Traffic:
    """The stream in both directions, from construction to finish()."""

    def __init__(self, peer, rate, log):
        self.log = log
        with open(log, "w", encoding="ascii") as file:
            self.proc = subprocess.Popen([peer, net.L0_DATA, net.L2_DATA, str(rate)],
                                         stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                         preexec_fn=die_with_parent)

    def counts(self):
        """The counters of the last line that the peer printed."""
        with open(self.log, encoding="ascii") as file:
            lines = [line for line in file.read().split("\n")[:-1] if line.startswith(("now ", "end "))]
        if not lines:
            return None
        pairs = (word.split("=", 1) for word in lines[-1].split()[1:])
        return {key: float(value) if "." in value else int(value) for key, value in pairs}

    def gaps_ms(self, direction):
        """All the time that was lost in gaps of that direction, "out" or "in"."""
        with open(self.log, encoding="ascii") as file:
            return sum(int(line.split(" ms=")[1].split()[0]) for line in file
                       if line.startswith(f"gap direction={direction} "))

    def wait(self, what, reached, seconds):
        """Wait until reached(counts)."""
        end = time.monotonic() + seconds
        while True:
            counts = self.counts()
            if counts and reached(counts):
                return counts
            if self.proc.poll() is not None:
                raise LabError(f"the traffic's peer ended by itself, see {self.log}")
            if time.monotonic() > end:
                raise LabError(f"not within {seconds} s: {what}; last counts: {counts}")
            time.sleep(0.2)

    def wait_both_ways(self, seconds=30):
        """Wait until packets go on in both directions, from now."""
        then = self.counts() or {"out_received": 0, "in_received": 0}
        return self.wait("traffic in both directions",
                         lambda c: c["out_received"] > then["out_received"] + 50
                         and c["in_received"] > then["in_received"] + 50, seconds)

    def wait_pass(self, seconds=120):
        """Wait until every page of the agent's memory was checked once more, from now."""
        then = self.counts()["passes"]
        # the pass that is under way began before
        return self.wait("a whole pass over L2's memory",
                         lambda c: c["passes"] >= then + 2, seconds)

    def finish(self):
        """Stop sending, wait for what is under way; the final counters."""
        self.proc.terminate()
        self.proc.wait(timeout=15)
        return self.counts()
