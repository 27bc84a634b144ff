#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=300 variants=stock form=long
"""What the dirty log costs as a guest grows: a start, reads of what is mapped, one read of all, and a stop, with
nothing dirty. With eight times the memory; and with the same memory spread over 1 TiB of addresses."""
import re
import statistics

from testlib import bench, tap
from testlib.bench import at_most
from vlm import l2
from vlm.l1 import LabError

ROUNDS = tap.parameter("rounds", 12)
# calls of each round, of which the median counts
CALLS = 9
SECONDS = 600
LINE = re.compile(r"start=(\d+) mapped=(\d+) all=(\d+) stop=(\d+)")
NAMES = "start", "reads of what is mapped", "read of all", "stop"
# MiB that are mapped, and of IOVA that they are spread over. A guest's memory is in one piece, or in a few
LARGE, SMALL = (1024, 1024), (128, 128)
# both have as many spans of 128 MiB with something in them, of which the log keeps a page each
SPARSE, DENSE = (128, 1 << 20), (128, 2048)
CASES = ("1024 MiB / 128 MiB", (LARGE, SMALL), at_most(8)), ("128 MiB in 1 TiB / in 2 GiB", (SPARSE, DENSE), None)


def measured(l1, mapped, span):
    """The medians of the calls, in us, in the order of NAMES."""
    done = l1.run(["env", f"VDPA_DEV={l2.NODE}", f"{l1.config.tools}/kselftest/vdpa_log_cost",
                   str(mapped), str(span), str(CALLS)], timeout=SECONDS)
    found = LINE.findall(done.stdout)
    if done.returncode or len(found) != CALLS:
        raise LabError(f"vdpa_log_cost {mapped} {span}: {done.stderr.strip() or done.stdout.strip()}")
    return [statistics.median(map(int, values)) for values in zip(*found)]


tap.need_log()
with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(":")[0] + ".") as kept, \
        tap.make_lab(memory=2048) as lab:
    l1 = lab.l1s[0]
    t.equal(l2.take_over(l1), l2.NODE, "the driver takes the function over")
    for what, legs, goal in CASES:
        named = {leg: "{} MiB in {}".format(*leg) for leg in legs}
        found = [kept.compare(f"log, {name}: {what}", "us", named.values(), goal) for name in NAMES]
        for number, leg in bench.order(legs, ROUNDS):
            for comparison, value in zip(found, measured(l1, *leg)):
                comparison.add(number, named[leg], value)
            kept.save()
    t.clean_logs(lab)
