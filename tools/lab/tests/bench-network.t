#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=900 variants=stock form=asked
"""What vdpa=on costs a network device that nobody migrates, and what the log costs while it is on. Two
functions of one L1, of which one has vdpa=on and one has not, are used by L1's own driver in turn: TCP in both
directions, small packets in both directions, round trips. Every second round has two others. All have their
interrupts on one of L1's CPUs. A fifth one is used through vhost-vdpa with the log on and off in turn: frames that
are sent, and frames that are received."""
import contextlib
import json
import re
import statistics
import subprocess

from testlib import bench, frames, tap
from testlib.bench import at_least, at_most
from vlm import net
from vlm.l1 import LabError, die_with_parent
from vlm.l2 import l2

LEGS = "vdpa=on", "vdpa=off"
# of the functions, in their order: which leg uses them, and in which rounds. Behind them is that of vhost-vdpa
USED = (LEGS[0], 0), (LEGS[1], 0), (LEGS[1], 1), (LEGS[0], 1)
PROPS = "iommu_platform=on,ats=on"
SECONDS = 5 if tap.long_form() else 1
ROUNDS = tap.parameter("rounds", 10 if tap.long_form() else 2)
LOG_LEGS = "log on", "log off"
# bytes of a small packet's payload, and pings of a round
SMALL = 64
PINGS = 500 if tap.long_form() else 100
TIME = re.compile(r"time=([\d.]+) ms")


def space_of(leg, number):
    """The function of a leg in that round, as the network namespace that has it."""
    return f"f{USED.index((leg, number % 2))}"


def spaces(l1):
    """Each function in a network namespace of its own: all are on one network. And on one CPU, of which L1 would
    choose one for each interrupt."""
    for n in range(len(USED)):
        name = f"f{n}"
        l1.sh(f"ip netns add {name}; dev=$(ls /sys/bus/pci/devices/{l1.pci(n)}/virtio*/net); "
              f"ip link set $dev netns {name}; ip -n {name} addr add {net.DATA}0.{21 + n}/24 dev $dev; "
              f"ip -n {name} link set $dev up")
        l1.one_cpu(n)


def iperf(l1, space, *words):
    """iperf3's account, from a function to L0."""
    command = ["ip", "netns", "exec", space, "iperf3", "-J", "-c", l2.peer_address, "-t", str(SECONDS), *words]
    done = l1.run(command, timeout=120 + 2 * SECONDS)
    said = json.loads(done.stdout)
    if "error" in said or done.returncode:
        raise LabError(f"{space}: iperf3 {' '.join(words)}: {said.get('error', done.stderr.strip())}")
    return said["end"]


def tcp(l1, space, *words):
    """MiB/s that have come."""
    return iperf(l1, space, "-O", "1", *words)["sum_received"]["bits_per_second"] / 8 / 2**20


def taken(l1, space):
    """The packets that L0 has taken from a function."""
    return net.received(l1.data_tap(int(space[1:])))


def given(l1, space):
    """The packets that L1 has from a function."""
    return int(l1.sh(f"ip netns exec {space} sh -c 'cat /sys/class/net/e*/statistics/rx_packets'"))


def packets(l1, space, count, *words):
    """Small packets per second that have come, of as many as can be sent. The kernel's count: iperf3 takes
    those that come late for lost."""
    before = count(l1, space)
    seconds = iperf(l1, space, "-u", "-b", "0", "-l", str(SMALL), *words)["sum"]["seconds"]
    return (count(l1, space) - before) / seconds


def round_trip(l1, space):
    """The median of some pings, in us."""
    said = l1.sh(f"ip netns exec {space} ping -n -i 0.01 -c {PINGS} {l2.peer_address}", timeout=120)
    return statistics.median(float(ms) for ms in TIME.findall(said)) * 1000


# what it is, unit, goal, how
MEASURED = (
    ("TCP from L1", "MiB/s", at_least(0.99), tcp),
    ("TCP to L1", "MiB/s", at_least(0.99), lambda l1, space: tcp(l1, space, "-R")),
    ("small packets from L1", "1/s", at_least(0.99), lambda l1, space: packets(l1, space, taken)),
    ("small packets to L1", "1/s", at_least(0.99), lambda l1, space: packets(l1, space, given, "-R")),
    ("round trip", "us", at_most(1.01), round_trip),
)


def rate(l1, node, what, leg):
    """Frames per second through vhost-vdpa."""
    log = ["log"] if leg == LOG_LEGS[0] else []
    done = l1.run(["env", f"VDPA_DEV={node}", f"{l1.config.tools}/kselftest/vdpa_rate", what, str(SECONDS), *log],
                  timeout=120 + SECONDS)
    if done.returncode:
        raise LabError(f"vdpa_rate {what}, {leg}: {done.stderr.strip()}")
    return float(done.stdout)


def with_log(l1, kept):
    """The last function, with the log on and off."""
    node = l2.take_over(l1, len(USED), mac="")
    for what in "send", "receive":
        comparison = kept.compare(f"vhost-vdpa: {what}, the log on", "1/s", LOG_LEGS, at_least(0.97))
        with frames.Sender(l1.mac(len(USED))) if what == "receive" else contextlib.nullcontext():
            for number, leg in bench.order(LOG_LEGS, ROUNDS):
                comparison.add(number, leg, rate(l1, node, what, leg))
        kept.save()


with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(".")[0] + ".") as kept:
    props = ";".join(f"{PROPS},{leg}" for leg, _ in (*USED, (LEGS[0], 0)))
    with tap.make_lab(devices=len(USED) + 1, device_props=props) as lab:
        l1 = lab.l1s[0]
        spaces(l1)
        comparisons = [kept.compare(what, unit, LEGS, goal) for what, unit, goal, _ in MEASURED]
        with open(f"{lab.run_dir}/iperf3.log", "w", encoding="utf-8") as log:
            server = subprocess.Popen(["iperf3", "-s", "-B", l2.peer_address], stdout=log, stderr=log,
                                      preexec_fn=die_with_parent)
            # of one measurement both legs are one right after the other
            for comparison, (*_, measure) in zip(comparisons, MEASURED):
                for number, leg in bench.order(LEGS, ROUNDS):
                    comparison.add(number, leg, measure(l1, space_of(leg, number)))
                kept.save()
            t.ok(server.poll() is None, "L0's end of the traffic is there to the end")
            server.kill()
            server.wait()
        if lab.config.log_modules:
            with_log(l1, kept)
        else:
            t.skip("the log on and off", "its modules are built for the lab's own kernel and driver alone")
        t.clean_logs(lab)
