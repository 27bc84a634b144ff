#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=5400 variants=stock form=asked
"""Migration by the device's log against migration by shadow virtqueues: the same L2 goes there and back by each in
turn, with the same load. Measured are its throughput and its round trips while memory is copied, as parts of
what it has when nothing is copied; each time in which no device serves it, by the devices' traces, by QEMU's
account and by its packets; total time and memory sent; and what a migration costs that is cancelled. The full
form does that with L2s of several sizes, with several parts of its memory dirtied, and with several pairs of
queues."""
import dataclasses
import re
import statistics
import time

from testlib import bench, phases, tap, tcp
from testlib.bench import at_least, at_most, first_at_most
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.migration import Migration
from vlm.traffic import Traffic, wrong

LOG, SVQ = LEGS = "device", "svq"
NAMES = {LOG: "device log", SVQ: "shadow virtqueues"}
COPYING = "while memory is copied", "idle"
# bytes per second: so few that memory is copied for as long as there is something to measure
SLOW, FAST = 1 << 20, 128 << 20
# QEMU's own downtime limit, and a short one, in ms
LIMIT, SHORT = 300, 20
# of each measurement
SECONDS = 5 if tap.long_form() else 2
ROUNDS = tap.parameter("rounds", 6 if tap.long_form() else 2)
CANCEL_SECONDS = 2
SETTLE_SECONDS = 1
# of the memory that L2 keeps dirtying: a piece each second, one after the other
PIECES = 8
# in MiB, of L1s besides L2's
L1_MEMORY = 896
PROPS = "iommu_platform=on,ats=on,vdpa=on,rx_queue_size=1024,tx_queue_size=1024"


@dataclasses.dataclass
class Case:
    """What an L2 is like: memory in MiB, the part of it in percent that it keeps dirtying, pairs of queues; and how
    long QEMU may stop it, in ms. As soon as all that is left can be sent in that time, QEMU does stop it."""
    memory: int
    dirtied: int = 0
    pairs: int = 1
    limit: int = LIMIT

    def __str__(self):
        return (f"{self.memory} MiB, {self.dirtied} % dirtied, {self.pairs} pair{'s' * (self.pairs > 1)}"
                + f", limit of {self.limit} ms" * (self.limit != LIMIT))

    def file(self):
        """The name of its traffic's log."""
        return f"traffic.{self.memory}.{self.dirtied}.{self.pairs}.{self.limit}"


CASES = [Case(128)]
if tap.long_form():
    CASES += [Case(512), Case(1024), Case(2048), Case(128, limit=SHORT), Case(2048, limit=SHORT),
              Case(512, pairs=2), Case(512, pairs=4), Case(512, 10), Case(512, 50)]
# what the ways are compared by: (name of the value, what it is, unit, goal)
FIGURES = (
    ("interruptions", "all times without a device, together", "ms", at_most(0.5)),
    ("unserved", "last suspend to last ring enable", "ms", None),
    ("downtime", "downtime by QEMU", "ms", None),
    ("ours", "suspend to reset, first write to last enable", "ms", first_at_most(10)),
    ("common", "reset to first write: last pass, stream", "ms", None),
    ("packet", "last ring enable to the first packet", "ms", None),
    ("in", "gaps in packets from L2, together", "ms", None),
    ("out", "gaps in packets to L2, together", "ms", None),
    ("total", "total time, with the slow part", "ms", None),
    ("sent", "memory sent", "MiB", None),
    ("cancelled", "time without a device, cancelled", "ms", at_most(0.5)))
# and each way by itself, while memory is copied
LOADS = (("to", "TCP to L2", "MiB/s", at_least(0.97)), ("from", "TCP from L2", "MiB/s", at_least(0.97)),
         ("rtt", "round trip", "us", None))


def comparisons(kept, case):
    """Those of a case, by the names of their values."""
    found = {}
    for way in LEGS:
        for key, what, unit, goal in LOADS:
            # shadow virtqueues have none
            goal = goal if way == LOG else None
            found[way, key] = kept.compare(f"{case}: {what}, {NAMES[way]}", unit, COPYING, goal)
    for key, what, unit, goal in FIGURES:
        found[key] = kept.compare(f"{case}: {what}", unit, [NAMES[way] for way in LEGS], goal)
    return found


def load(traffic):
    """Throughput both ways, then round trips without other load; and when that was: (from, to, what)."""
    begin = time.time()
    values = {"to": tcp.to_l2(SECONDS)}
    turn = time.time()
    values["from"] = tcp.from_l2(SECONDS)
    quiet = time.time()
    time.sleep(SECONDS)
    trips = [step["rtt_us"] for step in traffic.steps(quiet, time.time()) if step["rtt_us"]]
    if not trips:
        raise LabError(f"L2's agent has answered no packet within {SECONDS} s")
    values["rtt"] = statistics.median(trips)
    return values, [(begin, turn, "TCP to L2"), (turn, quiet, "TCP from L2")]


def outside(gaps, marks):
    """Those that are not in one of these times: TCP that takes all of L2's CPU leaves gaps of its own."""
    return [(at, ms) for at, ms in gaps
            if not any(first <= at and at - ms / 1000 <= last for first, last, _ in marks)]


def cancelled(src, dst, traffic, nic):
    """A migration that is cancelled while memory is copied: how long L2's device was stopped, in ms."""
    with Migration(src, dst, nic=nic, max_bandwidth=SLOW) as migration:
        migration.wait("active")
        time.sleep(CANCEL_SECONDS)
        migration.cmd("migrate_cancel")
        migration.wait("cancelled")
        # by shadow virtqueues the device goes back to L2's own queues then
        time.sleep(CANCEL_SECONDS)
        stopped = phases.stopped_ms(src, migration.begin)
    l2.stop(dst)
    traffic.wait_both_ways()
    return stopped


def migrated(src, dst, traffic, nic, limit):
    """A migration: the load meanwhile, its values, its phases (from, to, what), and when it was over."""
    with Migration(src, dst, nic=nic, max_bandwidth=SLOW) as migration:
        migration.wait("active")
        # what begins a migration is over before there is load
        time.sleep(SETTLE_SECONDS)
        meanwhile, marks = load(traffic)
        migration.cmd("migrate-set-parameters", max_bandwidth=FAST, downtime_limit=limit)
        moved = migration.finish()
        traffic.wait_both_ways()
        end = time.time()
        parts = phases.of(migration)
    gaps = {way: outside(traffic.gaps(way, parts.begin, end), marks) for way in ("in", "out")}
    values = {"interruptions": parts.restart_ms + parts.unserved_ms, "unserved": parts.unserved_ms,
              "downtime": moved.downtime_ms, "ours": parts.ours_ms, "common": parts.common_ms,
              "total": moved.total_ms, "sent": moved.ram_bytes / 2**20,
              **{way: sum(ms for _, ms in found) for way, found in gaps.items()}}
    parts.packet = phases.first_packet(gaps["in"], parts.enabled)
    if parts.packet:
        values["packet"] = (parts.packet - parts.enabled) * 1000
    t.note(f"{moved}; {', '.join(f'{name} {value:.0f}' for name, value in values.items())}")
    return meanwhile, values, marks + parts.named(), end


def dirty(l1, case):
    """Have L2 keep dirtying that part of its memory."""
    piece = case.memory * case.dirtied // 100 // PIECES
    # not zeros: of a page of those QEMU sends a few bytes
    l2.console(l1, f"mkdir /dirt; mount -t tmpfs -o size={piece * (PIECES + 1) + 1}m dirt /dirt; "
                   f"busybox dd if=/dev/urandom of=/dirt/source bs=1M count={piece} 2>/dev/null; while :; do "
                   f"for n in {' '.join(map(str, range(PIECES)))}; do busybox dd if=/dirt/source of=/dirt/f bs=1M "
                   f"count={piece} seek=$((n * {piece})) conv=notrunc 2>/dev/null; sleep 1; done; done &")


def run(lab, case, kept):
    """All rounds of a case."""
    src, dst = lab.l1s
    found = comparisons(kept, case)
    nics = {way: l2.netdev(l2.node, way, pairs=case.pairs) for way in LEGS}
    sequence = bench.order(LEGS, ROUNDS)
    for l1 in src, dst:
        l2.take_over(l1)
    l2.start(src, nic=nics[sequence[0][1]])
    l2.wait_up(src)
    traffic = Traffic(lab, case.file(), case.pairs, phases.STEP_MS)
    traffic.wait_both_ways()
    if case.pairs > 1:
        # with one vCPU it takes one of them by itself
        l2.console(src, f"agent nic eth0 pairs {case.pairs}")
    tcp.listen(src)
    if case.dirtied:
        dirty(src, case)
    for n, (number, way) in enumerate(sequence):
        t.equal(l2.dirty_log(src), way, f"{case}: round {number + 1}: L2 migrates by {NAMES[way]}")
        following = sequence[min(n + 1, len(sequence) - 1)][1]
        found["cancelled"].add(number, NAMES[way], cancelled(src, dst, traffic, nics[following]))
        # one of two times before, and one of two times after
        idle = load(traffic)[0] if number % 2 == 0 else None
        copying, values, marks, end = migrated(src, dst, traffic, nics[following], case.limit)
        if number == 0 and case == CASES[0]:
            time.sleep(1)
            kept.pictures.append(phases.picture(traffic, marks, end, f"One migration by {NAMES[way]}"))
        idle = idle or load(traffic)[0]
        for key in idle:
            found[way, key].add(number, COPYING[0], copying[key])
            found[way, key].add(number, COPYING[1], idle[key])
        for key, value in values.items():
            found[key].add(number, NAMES[way], value)
        kept.save()
        src, dst = dst, src
    counts = traffic.finish()
    t.equal(wrong(counts, traffic.bad), "", f"{case}: nothing is wrong with any packet or page")
    # the last step has not ended
    left = counts["in_received"] - sum(step["in"] for step in traffic.told("step"))
    t.ok(0 <= left <= lab.config.rate, f"{case}: each packet from L2 is in one of the steps that have ended")
    t.note(f"{left} in the last one")
    l2.stop(src)


def available():
    """The machine's memory that can be had, in MiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"^MemAvailable: *(\d+)", file.read(), re.M)[1]) >> 10


tap.need_log()
with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(".")[0] + ".") as kept:
    for case in CASES:
        need = 2 * (L1_MEMORY + case.memory)
        if need > available():
            t.skip(f"{case}", f"the L1s need {need} MiB, and {available()} MiB are available")
            continue
        with tap.make_lab(l1s=2, l2_memory=case.memory, memory=L1_MEMORY + case.memory, pages=1, threads="multi",
                          queues=case.pairs, device_props=PROPS + ",mq=on" * (case.pairs > 1)) as lab:
            run(lab, case, kept)
            t.clean_logs(lab)
