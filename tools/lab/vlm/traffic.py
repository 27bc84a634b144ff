# SPDX-License-Identifier: GPL-2.0-or-later
"""L0's end of the traffic: tools/lab/agent/peer.c, started, read and ended."""
import os
import subprocess
import time

from . import net
from .l1 import LabError, die_with_parent

# for the agent to check and dirty all of its memory once, which is no more than a quarter of L2's
PASS_SECONDS = 8
# peer.c lists gaps from this on
SHORT_GAP_MS = 250
TAIL = 1 << 14
# What has to stay 0
BAD = ("pages_bad", "held_bad", "out_corrupt", "in_corrupt", "out_duplicate", "in_duplicate",
       "out_late", "in_late", "in_lost")


def agent_mib(config):
    """How much memory the agent checks, in MiB. Its sockets may take a quarter of a small L2's, its kernel
    has another, and what runs out of memory on a busy host is the agent."""
    return max(1, min(config.l2_memory // 6, config.pages * PASS_SECONDS >> 8))


class Traffic:
    """The stream in both directions, from construction to finish()."""

    def __init__(self, lab, name="traffic"):
        config = lab.config
        self.log = f"{lab.run_dir}/{name}.log"
        self.pages = agent_mib(config) << 8
        # those of two seconds, or as many as say enough
        self.some = min(2 * config.rate, 50)
        with open(self.log, "w", encoding="ascii") as file:
            self.proc = subprocess.Popen([f"{config.tools}/peer", net.L0_DATA, net.L2_DATA, str(config.rate)],
                                         stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                         preexec_fn=die_with_parent)

    def counts(self):
        """The counters of the last line that the peer printed."""
        with open(self.log, "rb") as file:
            # the last of many
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode("ascii")
        lines = [line for line in text.split("\n")[:-1] if line.startswith(("now ", "end "))]
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

    def wait_both_ways(self, seconds=120):
        """Wait until packets go on in both directions, from now."""
        then = self.counts() or {"out_received": 0, "in_received": 0}
        return self.wait("traffic in both directions",
                         lambda c: c["out_received"] > then["out_received"] + self.some
                         and c["in_received"] > then["in_received"] + self.some, seconds)

    def wait_held(self, seconds=240, then=None):
        """Wait until every packet that the agent holds, now or when it had those counts, was
        looked at."""
        then = then or self.counts()
        return self.wait("a look at all packets that L2 holds",
                         lambda c: c["held_until_ms"] >= then["seconds"] * 1000, seconds)

    def wait_pass(self, seconds=240, held=True):
        """Wait until every page of the agent's memory was checked once more, from now, and
        every packet that it holds, unless not held."""
        now = self.counts()
        then = self.wait("a packet of L2", lambda c: c["in_received"] > now["in_received"], seconds)
        # it takes them in turn
        counts = self.wait("a whole pass over L2's memory",
                           lambda c: c["pages_checked"] >= then["pages_checked"] + self.pages, seconds)
        return self.wait_held(seconds, then) if held else counts

    def finish(self):
        """Stop sending, wait for what is under way; the final counters."""
        self.proc.terminate()
        self.proc.wait(timeout=15)
        return self.counts()


def wrong(counts, bad=BAD):
    """What the traffic has seen that should not be, as text; empty if nothing."""
    found = [f"{name}={counts[name]}" for name in bad if counts[name]]
    if counts["in_sessions"] != 1:
        found.append(f"L2's agent started {counts['in_sessions']} times")
    return ", ".join(found)


def account(t, traffic, rate, gaps):
    """End the traffic, and promise what must hold of its counts, which are returned: no packet is
    doubled, reordered or damaged, none that L2 sent is lost, and every page of its memory holds what
    was written to it.

    What comes while L2 is nowhere, or until the bridge has learnt where it is, is lost: as much
    as was sent in the gaps. gaps: how many there may be that are too short to be listed.
    """
    counts = traffic.finish()
    t.note(" ".join(f"{k}={v}" for k, v in counts.items()))
    for prefix, name in ("in_", "L2 to L0"), ("out_", "L0 to L2"):
        t.equal(counts[prefix + "duplicate"], 0, f"{name}: no packet comes twice")
        t.equal(counts[prefix + "late"], 0, f"{name}: no packet comes out of sequence")
        t.equal(counts[prefix + "corrupt"], 0, f"{name}: no packet is damaged")
    t.equal(counts["in_lost"], 0, "L2 to L0: no packet is lost")
    may_lose = (traffic.gaps_ms("out") + gaps * SHORT_GAP_MS) * rate // 1000
    t.at_most(counts["out_lost"], may_lose, "L0 to L2: only what came while L2 was nowhere is lost")
    t.equal(counts["pages_bad"], 0, "every page of L2's memory was right whenever it was looked at")
    t.ok(counts["held"] > 0, "packets were held in the buffers that the device had written")
    t.equal(counts["held_bad"], 0, "and each of them was still there and intact afterwards")
    t.equal(counts["in_sessions"], 1, "L2 is the same all along: its agent never started anew")
    return counts
