#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=700 variants=stock form=asked
"""What vdpa=on costs a network device that nobody migrates: two functions of one L1, of which one has it and one has
it not, each used by L1's own driver in turn. Measured are TCP in both directions, small packets in both
directions, and round trips."""
import json
import re
import statistics
import subprocess

from testlib import bench, tap
from testlib.bench import at_least, at_most
from vlm import net
from vlm.l1 import LabError, die_with_parent

LEGS = "vdpa=on", "vdpa=off"
PROPS = "iommu_platform=on,ats=on"
SECONDS = 10 if tap.long_form() else 2
ROUNDS = tap.parameter("rounds", 20 if tap.long_form() else 3)
# bytes of a small packet's payload, and pings of a round
SMALL = 64
PINGS = 500 if tap.long_form() else 100
TIME = re.compile(r"time=([\d.]+) ms")


def spaces(l1):
    """Each function in a network namespace of its own: both are on one network."""
    for n, name in enumerate(LEGS):
        l1.sh(f"ip netns add {name}; dev=$(ls /sys/bus/pci/devices/{l1.pci(n)}/virtio*/net); "
              f"ip link set $dev netns {name}; ip -n {name} addr add {net.DATA}{21 + n}/24 dev $dev; "
              f"ip -n {name} link set $dev up")


def iperf(l1, space, *words):
    """iperf3's account, from a function to L0."""
    command = ["ip", "netns", "exec", space, "iperf3", "-J", "-c", net.L0_DATA, "-t", str(SECONDS), "-O", "1", *words]
    done = l1.run(command, timeout=120 + 2 * SECONDS)
    said = json.loads(done.stdout)
    if "error" in said or done.returncode:
        raise LabError(f"{space}: iperf3 {' '.join(words)}: {said.get('error', done.stderr.strip())}")
    return said["end"]


def tcp(l1, space, *words):
    """MiB/s that have come."""
    return iperf(l1, space, *words)["sum_received"]["bits_per_second"] / 8 / 2**20


def packets(l1, space, *words):
    """Small packets per second that have come, of as many as can be sent."""
    told = iperf(l1, space, "-u", "-b", "0", "-l", str(SMALL), *words)["sum"]
    return (told["packets"] - told["lost_packets"]) / told["seconds"]


def round_trip(l1, space):
    """The median of some pings, in us."""
    said = l1.sh(f"ip netns exec {space} ping -n -i 0.01 -c {PINGS} {net.L0_DATA}", timeout=120)
    return statistics.median(float(ms) for ms in TIME.findall(said)) * 1000


# what it is, unit, goal, how
MEASURED = (
    ("TCP from L1", "MiB/s", at_least(0.99), tcp),
    ("TCP to L1", "MiB/s", at_least(0.99), lambda l1, space: tcp(l1, space, "-R")),
    ("small packets from L1", "1/s", at_least(0.99), packets),
    ("small packets to L1", "1/s", at_least(0.99), lambda l1, space: packets(l1, space, "-R")),
    ("round trip", "us", at_most(1.01), round_trip),
)

with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(": ")[0] + ".") as kept:
    with tap.make_lab(devices=2, device_props=f"{PROPS},vdpa=on;{PROPS},vdpa=off", vdpa_modules="stock") as lab:
        l1 = lab.l1s[0]
        spaces(l1)
        comparisons = [kept.compare(what, unit, LEGS, goal) for what, unit, goal, _ in MEASURED]
        with open(f"{lab.run_dir}/iperf3.log", "w", encoding="utf-8") as log:
            server = subprocess.Popen(["iperf3", "-s", "-B", net.L0_DATA], stdout=log, stderr=log,
                                      preexec_fn=die_with_parent)
            # of one measurement both legs are one right after the other
            for comparison, (*_, measure) in zip(comparisons, MEASURED):
                for number, leg in bench.order(LEGS, ROUNDS):
                    comparison.add(number, leg, measure(l1, leg))
                kept.save()
            t.ok(server.poll() is None, "L0's end of the traffic is there to the end")
            server.kill()
            server.wait()
        t.clean_logs(lab)
