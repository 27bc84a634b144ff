#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=600 variants=stock form=long
"""What the dirty log costs as a guest grows: a start, reads of what is mapped, one read of all, and a stop. With
eight times the memory; with the same memory spread over 1 TiB of addresses; with sixteen times the pages that
the device has written to since the start; and with four functions of one L1 that are logged at the same time."""
import contextlib
import dataclasses
import re
import statistics

from testlib import bench, frames, tap
from testlib.bench import at_most
from vlm.l1 import LabError
from vlm.l2 import l2

ROUNDS = tap.parameter("rounds", 12)
# calls of each round, of which the median counts
CALLS = 9
SECONDS = 600
FUNCTIONS = 4
# in L1: where the programs of several functions wait for each other
MEET = "/run/meet"
LINE = re.compile(r"start=(\d+) mapped=(\d+) all=(\d+) stop=(\d+)")
NAMES = "start", "reads of what is mapped", "read of all", "stop"


@dataclasses.dataclass(frozen=True)
class Leg:
    """MiB that are mapped, MiB of IOVA that they are spread over, pages that the device writes to between a start and
    the reads, and functions that this is done with at the same time."""
    name: str
    mapped: int = 128
    span: int = 128
    pages: int = 0
    functions: int = 1


# A guest's memory is in one piece, or in a few. Both legs of the second case have as many spans of 128 MiB with
# something in them, of which the log keeps a page each
CASES = (
    (at_most(8), Leg("1024 MiB", 1024, 1024), Leg("128 MiB")),
    (None, Leg("128 MiB in 1 TiB", span=1 << 20), Leg("in 2 GiB", span=2048)),
    (at_most(16), Leg("16384 pages written", pages=16384), Leg("1024", pages=1024)),
    (at_most(FUNCTIONS), Leg(f"{FUNCTIONS} functions at the same time", functions=FUNCTIONS), Leg("one")),
)


def measured(l1, nodes, leg):
    """The medians of the calls, in us, in the order of NAMES: of all functions."""
    program = f"{l1.config.tools}/kselftest/vdpa_log_cost {leg.mapped} {leg.span} {CALLS} {leg.pages}"
    if leg.functions > 1:
        program += f" {MEET} {leg.functions}"
    with frames.Sender(l1.mac(0)) if leg.pages else contextlib.nullcontext():
        done = l1.run(["sh", "-c", f"rm -f {MEET}; for node in {' '.join(nodes[:leg.functions])}; do "
                       f"VDPA_DEV=$node {program} & all=\"$all $!\"; done; "
                       "for one in $all; do wait $one || exit; done"], timeout=SECONDS)
    found = LINE.findall(done.stdout)
    if done.returncode or len(found) != CALLS * leg.functions:
        raise LabError(f"{program}: {done.stderr.strip() or done.stdout.strip()}")
    return [statistics.median(map(int, values)) for values in zip(*found)]


tap.need_log()
with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(":")[0] + ".") as kept, \
        tap.make_lab(memory=2048, devices=FUNCTIONS) as lab:
    l1 = lab.l1s[0]
    nodes = [l2.take_over(l1, n, f"vdpa{n}", mac="") for n in range(FUNCTIONS)]
    for goal, *legs in CASES:
        names = [leg.name for leg in legs]
        found = [kept.compare(f"log, {name}: {' / '.join(names)}", "us", names, goal) for name in NAMES]
        for number, leg in bench.order(legs, ROUNDS):
            for comparison, value in zip(found, measured(l1, nodes, leg)):
                comparison.add(number, leg.name, value)
            kept.save()
    t.equal(len(set(nodes)), FUNCTIONS, "each function has a node of its own")
    t.clean_logs(lab)
