#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=300 variants=stock form=asked
"""What grows with the number of queues: the calls of a VMM's life on a vDPA device of four pairs of queues,
against one of one pair of the same function. Each call's accesses to registers are counted; the full form measures
its time, too, and how long it takes to make and to delete a device of 64 pairs, against one of one pair."""
from testlib import bench, steps, tap
from testlib.bench import at_most
from testlib.registers import MSIX, Registers
from vlm.l2 import l2

FEW = 4, 1
# A tap has 256, MAX_TAP_QUEUES of Linux. But vhost-vdpa of 6.12 asks for all virtqueues of a device in one piece
# of memory, which for those of 128 pairs is more than there can be
MANY = 64, 1
# the same each time
COUNTS = 2
ROUNDS = tap.parameter("rounds", 20)
PROPS = "iommu_platform=on,ats=on,vdpa=on,mq=on"
MADE, DELETED = "dev add", "dev del"


def named(pairs):
    """Of a leg."""
    return f"{pairs} pair{'s' * (pairs > 1)}"


def run(kept, calls, unit, legs, rounds, measure):
    """All rounds of those calls, by what measure(pairs) tells of each."""
    names = " / ".join(map(named, legs))
    # what grows faster than the pairs does more for each of them than for one alone
    found = {name: kept.compare(f"{name}, {unit}: {names}", unit, [named(pairs) for pairs in legs],
                                at_most(legs[0] / legs[1])) for name in calls}
    for number, pairs in bench.order(legs, rounds):
        measured = measure(pairs)
        for name in calls:
            found[name].add(number, named(pairs), measured[name])
        kept.save()


def taken(l1):
    """The function, and no device."""
    t.equal(l2.take_over(l1), l2.node, "the driver takes the function over")
    l1.sh(steps.delete())


def accesses(l1, registers, pairs):
    """All of each call, but the PCI code's to the MSI-X table."""
    return {name: sum(count for (area, _), count in counts.items() if area != MSIX)
            for name, counts in steps.counted(l1, registers, pairs).items()}


def made(l1, pairs):
    """A device that nobody uses."""
    return {MADE: clocked(l1, steps.add(l1, pairs)), DELETED: clocked(l1, steps.delete())}


def clocked(l1, command):
    """How many microseconds a command takes in L1, without its way there."""
    return int(l1.sh(f"began=$(date +%s%N); {command}; echo $((($(date +%s%N) - began) / 1000))"))


tap.need_log()
with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(":")[0] + ".") as kept:
    with tap.make_lab(queues=max(FEW), device_props=PROPS) as lab:
        l1 = lab.l1s[0]
        taken(l1)
        registers = Registers(l1)
        run(kept, (MADE, *steps.ORDER, DELETED), "accesses", FEW, COUNTS,
            lambda pairs: accesses(l1, registers, pairs))
        if tap.long_form():
            run(kept, steps.TIMED, "us", FEW, ROUNDS, lambda pairs: steps.timed(l1, pairs))
        t.clean_logs(lab)
    if tap.long_form():
        with tap.make_lab(queues=max(MANY), device_props=PROPS) as lab:
            l1 = lab.l1s[0]
            taken(l1)
            run(kept, (MADE, DELETED), "us", MANY, ROUNDS, lambda pairs: made(l1, pairs))
            t.clean_logs(lab)
