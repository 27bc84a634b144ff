# SPDX-License-Identifier: GPL-2.0-or-later
"""make demo: an L2 guest with traffic migrates live from one L1 to another on the dirty log of
the device, and back by shadow virtqueues; both side by side, and a picture of each."""
import time

from testlib import phases, plot
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.lab import Lab, say
from vlm.migration import Migration
from vlm.traffic import Traffic, device_stops, wrong

from .steps import outside

NAMES = {"device": "device log", "svq": "shadow virtqueues"}


def packets(counts, prefix):
    """What went wrong in one direction."""
    return (f"{counts[prefix + 'lost']}, {counts[prefix + 'late']}, {counts[prefix + 'duplicate']}, "
            f"{counts[prefix + 'corrupt']} of {counts[prefix + 'sent']}")


# (what, the text for a Migrated and the counts of the traffic meanwhile)
ROWS = (
    ("total time", lambda m, c: f"{m.total_ms / 1000:.1f} s"),
    ("downtime, by QEMU's account", lambda m, c: f"{m.downtime_ms} ms"),
    ("  last suspend to last ring enable", lambda m, c: f"{m.unserved_ms:.0f} ms"),
    ("  longest gap in packets to L2", lambda m, c: f"{c['out_gap_ms']} ms"),
    ("  longest gap in packets from L2", lambda m, c: f"{c['in_gap_ms']} ms"),
    ("to L2: lost, late, doubled, corrupt", lambda m, c: packets(c, "out_")),
    ("  lost in runs, outside of the move", lambda m, c: f"{c['out_lost_runs']}, {c['lost_elsewhere']}"),
    ("from L2: lost, late, doubled, corrupt", lambda m, c: packets(c, "in_")),
    ("slowest answer", lambda m, c: f"{c['rtt_max_ms']} ms"),
    ("sent", lambda m, c: f"{m.ram_bytes / 2**20:.0f} MiB in {m.dirty_sync_count} passes"),
    ("pages the device dirtied", lambda m, c: str(m.device_pages) if m.device_pages >= 0 else "not told"),
    ("L2's pages checked, bad", lambda m, c: f"{c['pages_checked']}, {c['pages_bad']}"),
    ("packets held in L2, bad, late", lambda m, c: f"{c['held']}, {c['held_bad']}, {c['held_late']}"),
)


def draw(lab, traffic, migration, end):
    """A picture of a migration that has gone well, in the run's folder; the file."""
    parts = phases.of(migration)
    parts.packet = phases.first_packet(traffic.gaps("in", parts.begin, end), parts.enabled)
    marks = [(parts.begin, parts.begin, "migrate"), *parts.named()]
    name = NAMES.get(migration.way, migration.way)
    what = phases.picture(traffic, marks, end, f"One migration by {name}")
    path = f"{lab.run_dir}/migration.{migration.way}.svg"
    with open(path, "w", encoding="utf-8") as file:
        file.write(plot.timeline(what))
    return path


def leg(lab, src, dst, to_be):
    """One migration under traffic of its own: a Migrated, the traffic's counts, and the file of a picture of it,
    or why there is none."""
    config = lab.config
    traffic = Traffic(lab, f"traffic.{src.name}", step_ms=phases.STEP_MS)
    traffic.wait_both_ways()
    say(f"traffic in both directions, {config.rate} packets/s each; next: one pass over L2's memory")
    before = traffic.wait_first_pass()
    way = l2.dirty_log(src)
    say(f"migrating L2 from {src.name} to {dst.name}, under traffic, by {NAMES.get(way, way)}")
    with traffic.may_lose("the move", device_stops(way)), Migration(src, dst, to_be=to_be) as migration:
        moved = migration.finish()
        say(str(moved))
        traffic.wait_both_ways()
        end = time.time()
    say("traffic goes on in both directions; next: every page of L2's memory is checked")
    traffic.wait_pass()
    try:
        drawn = draw(lab, traffic, migration, end)
    except LabError as err:
        drawn = f"none: {err}"
    counts = traffic.finish()
    counts["pages_checked"] -= before["pages_checked"]
    counts["lost_elsewhere"] = len(traffic.lost_elsewhere())
    return moved, counts, drawn


def run(config, run_dir):
    """The demonstration; its exit status."""
    begin = time.monotonic()
    legs = []
    with Lab(config, run_dir) as lab:
        src, dst = lab.l1s[:2]
        for l1 in src, dst:
            say(f"{l1.name}: the driver takes the function over: {l2.take_over(l1)}")
        say(f"booting L2 in {src.name} on {l2.node}, about 20 s without KVM")
        l2.start(src)
        say(f"L2 is up after {l2.wait_up(src):.1f} s")
        # the other way after the one, where it is for us to choose
        both = config.dirty_log == "auto" and l2.dirty_log(src) == "device"
        legs.append(leg(lab, src, dst, "svq" if both else config.dirty_log))
        if both:
            legs.append(leg(lab, dst, src, "svq"))
            src, dst = dst, src
        src, dst = dst, src
        l2.stop(src)
        found = lab.stop()

    print(f"\nAn L2 guest ({config.l2_memory} MiB) on {l2.node}, migrated live between "
          f"{' and '.join(l1.name for l1 in lab.l1s[:2])}\n")
    names = [NAMES.get(moved.dirty_log, moved.dirty_log) for moved, *_ in legs]
    print(f"  {'':38}" + "".join(f"{name:24}" for name in names).rstrip())
    for what, text in ROWS:
        print(f"  {what:38}" + "".join(f"{text(moved, counts):24}" for moved, counts, _ in legs).rstrip())
    print(f"\n  {'kernel logs':38}" + ("; ".join(f"{k}: {len(v)} findings" for k, v in found.items()) or "clean"))
    print(f"  {'all of it took':38}{time.monotonic() - begin:.0f} s")
    for name, (*_, drawn) in zip(names, legs):
        print(f"  {f'picture of it, {name}':38}{outside(drawn)}")
    if not found and not any(wrong(counts) or counts["lost_elsewhere"] for _, counts, _ in legs):
        return 0
    for name, lines in found.items():
        for line in lines:
            print(f"  {name}: {line}")
    print("NOT as it should be, see above")
    return 1
