# SPDX-License-Identifier: GPL-2.0-or-later
"""L0's end of the traffic: tools/lab/agent/peer.c, started, read and ended."""
import contextlib
import dataclasses
import os
import subprocess
import time

from .config import PATIENCE
from .l1 import LabError, die_with_parent
from .l2 import agent_mib, l2

TAIL = 1 << 14
# What has to stay 0
BAD = ("pages_bad", "held_bad", "held_late", "out_corrupt", "in_corrupt", "out_duplicate", "in_duplicate",
       "out_late", "in_late", "in_lost")


def device_stops(way):
    """How often a migration of that way stops L2's device. By shadow virtqueues it does so twice: before
    the first pass, as the device goes on with other rings."""
    return 1 if way == "device" else 2


@dataclasses.dataclass
class Window:
    """A time in which packets to L2 may be lost, in so many runs: those that were under way when it began, and
    those that were sent in it."""
    what: str
    # the number of a packet that L2 had got, and how many were sent in the end
    got: int
    sent: int
    runs: int

    def holds(self, run):
        """Was that run of lost packets under way in it?"""
        return self.got < run["from"] and run["to"] < self.sent


class Traffic:
    """The stream in both directions, from construction to finish(), with guest. pairs: of queues that it uses. With
    several, a flow that goes over to another queue may overtake itself: the host's tap, L2's kernel and
    L2's device keep an order within each queue alone. step_ms: have the peer tell what has come in each
    step of that length, see steps() and gaps()."""

    def __init__(self, lab, name="traffic", pairs=1, step_ms=None, guest=l2):
        config = lab.config
        self.log = f"{lab.run_dir}/{name}.log"
        self.pages = agent_mib(config) << 8
        self.windows = []
        self.ordered = pairs == 1
        self.bad = BAD if self.ordered else tuple(name for name in BAD if not name.endswith("_late"))
        # those of two seconds, or as many as say enough
        self.some = min(2 * config.rate, 30)
        with open(self.log, "w", encoding="ascii") as file:
            self.proc = subprocess.Popen([f"{config.tools}/peer", guest.peer_address, guest.address, str(config.rate),
                                          *([str(step_ms)] if step_ms else [])],
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

    @contextlib.contextmanager
    def may_lose(self, what, runs=1):
        """What is sent to L2 meanwhile may be lost, in so many runs of consecutive packets: one for each
        time that L2's device is stopped. It ends where packets go both ways again, and not before: until
        L2 has sent one, the bridge does not know where it is."""
        got = self.counts()["out_highest"]
        try:
            yield
        finally:
            self.windows.append(Window(what, got, self.counts()["out_sent"], runs))

    def told(self, what):
        """The lines of that name that the peer has printed, each as a dict."""
        with open(self.log, encoding="ascii") as file:
            lines = [line.split()[1:] for line in file if line.endswith("\n") and line.startswith(f"{what} ")]
        pairs = [[word.split("=") for word in line] for line in lines]
        return [{key: int(value) if value.isdigit() else value for key, value in line} for line in pairs]

    def lost(self):
        """The runs of packets that L2 has not got, as the peer tells in the end: from, to."""
        return self.told("lost")

    def since_begin(self):
        """What the peer's at_ms count from, by the clock of the L1s' traces, in seconds."""
        return self.told("begin")[0]["unix_us"] / 1e6

    def steps(self, begin, end):
        """Those that have ended between two times of that clock: packets in and out, mean round trip."""
        zero = self.since_begin()
        return [step for step in self.told("step") if begin < zero + step["at_ms"] / 1000 <= end]

    def gaps(self, direction, begin, end):
        """The times, longer than a step, in which nothing has come in that direction, out or in, of those that
        have ended between two times of that clock: (end, ms)."""
        zero = self.since_begin()
        found = [(zero + gap["at_ms"] / 1000, gap["ms"]) for gap in self.told("gap")
                 if gap["direction"] == direction]
        return [gap for gap in found if begin < gap[0] <= end]

    def lost_elsewhere(self):
        """The same, of those that nothing explains: what was sent in none of the windows, or is more
        than one of them may lose."""
        room = [window.runs for window in self.windows]
        left = []
        for run in self.lost():
            # L2 tells late what it has got, so one window's run may look like the next one's, too
            held = [n for n, window in enumerate(self.windows) if room[n] and window.holds(run)]
            if held:
                room[held[0]] -= 1
            else:
                left.append(run)
        return left

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

    def wait_both_ways(self, seconds=PATIENCE):
        """Wait until packets go on in both directions, from now."""
        then = self.counts() or {"out_received": 0, "in_received": 0}
        return self.wait("traffic in both directions",
                         lambda c: c["out_received"] > then["out_received"] + self.some
                         and c["in_received"] > then["in_received"] + self.some, seconds)

    def wait_held(self, seconds=PATIENCE, then=None):
        """Wait until every packet that the agent holds, now or when it had those counts, was
        looked at."""
        then = then or self.counts()
        return self.wait("a look at all packets that L2 holds",
                         lambda c: c["held_until_ms"] >= then["seconds"] * 1000, seconds)

    def wait_first_pass(self, seconds=PATIENCE):
        """Wait until every page of the agent's memory was checked once; the counters."""
        return self.wait("a pass over L2's memory", lambda c: c["passes"] >= 1, seconds)

    def wait_pass(self, seconds=PATIENCE, held=True):
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
        self.proc.wait(timeout=PATIENCE)
        return self.counts()


def wrong(counts, bad=BAD):
    """What the traffic has seen that should not be, as text; empty if nothing."""
    found = [f"{name}={counts[name]}" for name in bad if counts[name]]
    if counts["in_sessions"] != 1:
        found.append(f"L2's agent started {counts['in_sessions']} times")
    return ", ".join(found)


def account(t, traffic):
    """End the traffic, and promise what must hold of its counts, which are returned: no packet is
    doubled, reordered or damaged, none that L2 sent is lost, and every page of its memory holds what
    was written to it.

    Of what is sent to L2, packets are lost where traffic.may_lose() allows it, and nowhere else: each
    time that L2's device stops, that is one run of consecutive packets. They wait in the source's tap when
    its device is reset, which drops them, or come to that until the bridge has learnt where L2 is.
    """
    counts = traffic.finish()
    t.note(" ".join(f"{k}={v}" for k, v in counts.items()))
    for prefix, name in ("in_", "L2 to L0"), ("out_", "L0 to L2"):
        t.equal(counts[prefix + "duplicate"], 0, f"{name}: no packet comes twice")
        if traffic.ordered:
            t.equal(counts[prefix + "late"], 0, f"{name}: no packet comes out of sequence")
        t.equal(counts[prefix + "corrupt"], 0, f"{name}: no packet is damaged")
    t.equal(counts["in_lost"], 0, "L2 to L0: no packet is lost")
    lost = traffic.lost()
    for run in lost:
        where = [window.what for window in traffic.windows if window.holds(run)]
        t.note(f"L0 to L2: lost {run['to'] - run['from'] + 1} packets in a run: "
               f"{', '.join(where) or 'at no time for that'}")
    t.at_most(counts["out_lost_runs"], sum(window.runs for window in traffic.windows),
              "L0 to L2: packets are lost in runs, one for each stop of L2's device")
    t.equal(traffic.lost_elsewhere(), [], "L0 to L2: and none at another time")
    t.equal(counts["out_lost"], sum(run["to"] - run["from"] + 1 for run in lost),
            "L0 to L2: these are all that are lost")
    t.equal(counts["pages_bad"], 0, "every page of L2's memory was right whenever it was looked at")
    t.ok(counts["held"] > 0, "packets were held in the buffers that the device had written")
    t.equal(counts["held_bad"], 0, "and each of them was still there and intact afterwards")
    if traffic.ordered:
        t.equal(counts["held_late"], 0, "and came in sequence")
    t.equal(counts["in_sessions"], 1, "L2 is the same all along: its agent never started anew")
    return counts
