# SPDX-License-Identifier: GPL-2.0-or-later
"""make demo: an L2 guest with traffic migrates live from one L1 to another."""
import time

from . import l2, net
from .lab import Lab, say
from .traffic import Traffic


def direction(counts, prefix):
    """One line about one direction of the traffic."""
    at = counts[prefix + "gap_at_ms"] / 1000
    return (f"{counts[prefix + 'sent']} sent, {counts[prefix + 'received']} received, "
            f"{counts[prefix + 'lost']} lost, {counts[prefix + 'duplicate']} doubled, "
            f"{counts[prefix + 'late']} late, {counts[prefix + 'corrupt']} corrupt; "
            f"longest gap {counts[prefix + 'gap_ms']} ms, {at:.1f} s after the start")


def run(config, run_dir):
    """The demonstration; its exit status."""
    begin = time.monotonic()
    with Lab(config, run_dir) as lab:
        src, dst = lab.l1s[:2]
        for l1 in src, dst:
            say(f"{l1.name}: the driver takes the function over: {l2.take_over(l1)}")
        say(f"booting L2 in {src.name} on /dev/vhost-vdpa-0, about 20 s without KVM")
        l2.start(src)
        say(f"L2 is up after {l2.wait_up(src):.1f} s")
        traffic = Traffic(f"{config.tools}/peer", config.rate, f"{run_dir}/traffic.log")
        traffic.wait_both_ways()
        say(f"traffic in both directions, {config.rate} packets/s each; next: one pass over L2's memory")
        before = traffic.wait("a pass over L2's memory", lambda c: c["passes"] >= 1, 60)
        say(f"migrating L2 from {src.name} to {dst.name}, under traffic, by shadow virtqueues")
        moved = l2.migrate(src, dst)
        say(str(moved))
        traffic.wait_both_ways()
        say("traffic goes on in both directions; next: every page of L2's memory is checked")
        traffic.wait_pass()
        counts = traffic.finish()
        l2.stop(dst)
        found = lab.stop()
    pages = counts["pages_checked"] - before["pages_checked"]
    print(f"""
An L2 guest ({config.l2_memory} MiB) on /dev/vhost-vdpa-0, migrated live from {moved.source} to {moved.destination}
  migration       {moved.total_ms / 1000:.1f} s in all, downtime {moved.downtime_ms} ms, {moved.ram_bytes / 2**20:.0f} MiB in {moved.dirty_sync_count} passes
  L0 to L2        {direction(counts, "out_")}
  L2 to L0        {direction(counts, "in_")}
  slowest answer  {counts["rtt_max_ms"]} ms
  L2's memory     {counts["pages_checked"]} page checks, {pages} since the migration began; {counts["pages_bad"]} bad
  kernel logs     {"clean" if not found else ""}{"; ".join(f"{k}: {len(v)} findings" for k, v in found.items())}
  all of it took  {time.monotonic() - begin:.0f} s""")
    good = (counts["pages_bad"] == 0 and counts["out_corrupt"] == 0 and counts["in_corrupt"] == 0
            and counts["out_duplicate"] == 0 and counts["in_duplicate"] == 0
            and counts["in_sessions"] == 1 and not found)
    if not good:
        for name, lines in found.items():
            for line in lines:
                print(f"  {name}: {line}")
        print("NOT as it should be, see above")
    return 0 if good else 1
