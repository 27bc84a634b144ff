# SPDX-License-Identifier: GPL-2.0-or-later
"""make soak: L2 migrates back and forth under traffic, as often as is asked for, and every page of
its memory is checked each time."""
import statistics
import time

from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.lab import Lab, say
from vlm.migration import migrate
from vlm.qmp import QMPError
from vlm.traffic import Traffic, device_stops, wrong


class Soak:
    """An L2 in the first two L1s of a lab that is up."""

    def __init__(self, lab):
        self.lab = lab
        self.begin = time.monotonic()
        self.moves = []
        self.counts = {}
        self.failure = ""
        self.way = "unknown"

    def run(self, rounds):
        """There and back, so many times, or until something is wrong."""
        here = self.lab.l1s[0]
        config = self.lab.config
        for l1 in self.lab.l1s[:2]:
            l2.take_over(l1)
        say(f"booting L2 in {here.name} on {l2.node}, about 20 s without KVM")
        l2.start(here)
        l2.wait_up(here)
        self.way = l2.dirty_log(here)
        traffic = Traffic(self.lab)
        try:
            traffic.wait_both_ways()
            traffic.wait_first_pass()
            say(f"{rounds} rounds, each there and back, dirty-log={self.way}, "
                f"under {config.rate} packets/s each way")
            self.rounds(traffic, rounds)
        except (LabError, QMPError) as err:
            self.failure = str(err)
        self.counts = traffic.finish()
        self.failure = self.failure or wrong(self.counts)
        if traffic.lost_elsewhere():
            self.failure = self.failure or f"packets to L2 are lost outside of its moves: {traffic.lost_elsewhere()}"

    def rounds(self, traffic, rounds):
        """The migrations."""
        here, there = self.lab.l1s[:2]
        for n in range(rounds):
            for src, dst in (here, there), (there, here):
                with traffic.may_lose(f"round {n + 1}, {src.name} to {dst.name}", device_stops(self.way)):
                    moved = migrate(src, dst)
                    traffic.wait_both_ways()
                counts = traffic.wait_pass(held=False)
                self.moves.append(moved)
                if wrong(counts):
                    self.failure = f"round {n + 1}, {src.name} to {dst.name}: {wrong(counts)}"
                    return
            say(f"round {n + 1} of {rounds}: downtime {self.moves[-2].downtime_ms} and "
                f"{self.moves[-1].downtime_ms} ms, {counts['pages_checked']} page checks")
        # the packets that L2 still holds
        traffic.wait_pass()

    def packets(self):
        """How many came in sequence."""
        return self.counts["in_received"] + self.counts["out_received"]

    def __str__(self):
        downtimes = [moved.downtime_ms for moved in self.moves] or [0]
        unserved = [moved.unserved_ms for moved in self.moves] or [0]
        c = self.counts
        return (f"{len(self.moves) // 2} rounds ({len(self.moves)} migrations, dirty-log={self.way}), "
                f"{c['pages_checked']} page checks, {c['pages_bad']} bad; "
                f"{c['held']} packets held in memory, {c['held_bad']} bad, {c['held_late']} late; "
                f"{self.packets()} packets in sequence; "
                f"downtime median {statistics.median(downtimes):.0f} ms, worst {max(downtimes)} ms; "
                f"unserved median {statistics.median(unserved):.0f} ms, worst {max(unserved):.0f} ms; "
                f"{time.monotonic() - self.begin:.0f} s")


def run(config, run_dir, rounds):
    """Its exit status."""
    with Lab(config, run_dir) as lab:
        soak = Soak(lab)
        soak.run(rounds)
        found = lab.stop()
    failures = [soak.failure] if soak.failure else []
    failures += [f"{name}: kernel: {line}" for name, lines in found.items() for line in lines]
    print(f"soak of {rounds} rounds: {soak}; {len(failures)} failures")
    for failure in failures:
        print(f"soak: {failure}")
    return 1 if failures else 0
