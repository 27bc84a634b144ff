#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=bench cost=900 variants=stock form=asked
"""The network of an L2 by virtio_lm_vdpa, against the same by vp_vdpa, which drives any virtio function and cannot
migrate. An L2 has a NIC of each, on functions that are alike, and a third one by virtio_lm_vdpa with all features
that the function has: what it is compared with vp_vdpa by, and what the features by default cost. Measured are
TCP in both directions, echoes with many under way, round trips; and, as a count says more than a clock, L2's exits
and the function's interrupts for each echo. All have their interrupts on one of L1's CPUs. In the full form each
has each of the functions in a third of the rounds; and there is a second case, in which doorbells have pages of
their own in both layers. Two pairs of queues are not a case: of QEMU's device, vp_vdpa has the virtqueues of one."""
import dataclasses
import itertools
import re
import statistics
import subprocess

from testlib import bench, tap, tcp, vdpa
from testlib.bench import at_least, at_most
from vlm import net
from vlm.l1 import LabError
from vlm.l2 import l2

# the parents by which L2 has its NICs
DEFAULT, ALL, OTHER = LEGS = "virtio_lm_vdpa", "virtio_lm_vdpa, all features", "vp_vdpa"
# with an MTU of their own: a feature that is offered has to have its value
PROPS = "iommu_platform=on,ats=on,vdpa=on,rx_queue_size=1024,tx_queue_size=1024,host_mtu=1500"
SECONDS = 5 if tap.long_form() else 1
# the parents in the order of the functions: an L1 and an L2 for each, which take most of the quick form's time
ORDERS = [LEGS[n:] + LEGS[:n] for n in range(len(LEGS) if tap.long_form() else 1)]
# each of the orders has as many
ROUNDS = -(-tap.parameter("rounds", 6 if tap.long_form() else 3) // len(ORDERS)) * len(ORDERS)
# echoes of a round: one after the other, and so many under way at a time
PINGS = 500 if tap.long_form() else 100
FLOOD, UNDER_WAY = (20000, 64) if tap.long_form() else (4000, 64)
TIME = re.compile(r"time=([\d.]+) ms")
FLOODED = re.compile(r"(\d+) received.* time (\d+)ms")


@dataclasses.dataclass
class Case:
    """How L2 has its NICs: more properties of the function and of L2's NIC."""
    name: str
    more: str = ""


CASES = [Case("one pair")]
if tap.long_form():
    CASES.append(Case("one pair, page-per-vq", ",page-per-vq=on"))


def subnet(leg):
    """Each NIC of L2 has a network of its own; L0 is .1 in it, and L2 is .2."""
    return f"10.77.{11 + LEGS.index(leg)}"


def all_features(l1):
    """Those that the driver can pass on, of the function that it has got."""
    names, = (dev["dev_features"] for dev in vdpa.shows(l1, "mgmtdev show")[1]["mgmtdev"].values()
              if "dev_features" in dev)
    return sum(1 << (vdpa.BITS[name] if isinstance(name, str) else name) for name in names)


def make_nodes(l1, legs):
    """The three vDPA devices, of the parents in the order of the functions; their nodes."""
    default, every, other = (legs.index(leg) for leg in LEGS)
    nodes = {default: l2.take_over(l1, default, f"vdpa{default}", mac="")}
    mask = ("device_features", hex(all_features(l1)))
    nodes[every] = l2.take_over(l1, every, f"vdpa{every}", mac="", words=mask)
    nodes[other] = l1.sh("/virtio-lm/src/tools/lab/l1-vdpa -d "
                         f"{l1.config.simulator}/vp_vdpa.ko {l1.pci(other)} vdpa{other}").split()[-1]
    return [nodes[n] for n in sorted(nodes)]


def nics(l1, nodes, case):
    """QEMU's words for them. A MAC is its function's: vp_vdpa cannot give it another one."""
    words = []
    for n, node in enumerate(nodes):
        words += ["-netdev", f"vhost-vdpa,id=n{n},vhostdev={node}",
                  "-device", f"virtio-net-pci,netdev=n{n},mac={l1.mac(n)},romfile={case.more}"]
    return words


def configure(l1, legs):
    """L0's and L2's ends of the three networks. All are on one bridge: nobody is to answer for another NIC."""
    l2.console(l1, "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")
    for n, leg in enumerate(legs):
        net.ip("addr", "add", f"{subnet(leg)}.1/24", "dev", "br0")
        l2.console(l1, f"ip addr add {subnet(leg)}.2/24 dev eth{n}; ip link set eth{n} up")


def ping(leg, *words):
    """What ping says of L2's NIC."""
    done = subprocess.run(["ping", "-n", *words, f"{subnet(leg)}.2"], stdout=subprocess.PIPE, text=True,
                          timeout=240, check=False)
    if done.returncode:
        raise LabError(f"{leg}: ping {' '.join(words)}: {done.stdout.strip()[-200:]}")
    return done.stdout


def round_trip(leg):
    """The median of some, in us."""
    return statistics.median(float(ms) for ms in TIME.findall(ping(leg, "-i", "0.01", "-c", str(PINGS)))) * 1000


def many_echoes(leg):
    """Echoes per second, with many under way."""
    found = FLOODED.search(ping(leg, "-q", "-f", "-l", str(UNDER_WAY), "-c", str(FLOOD)))
    return int(found[1]) * 1000 / int(found[2])


# what it is, unit, goal, how, and the echoes in that
MEASURED = (
    ("TCP to L2", "MiB/s", at_least(1), lambda leg: tcp.to_l2(SECONDS, f"{subnet(leg)}.2"), 0),
    ("TCP from L2", "MiB/s", at_least(1), lambda leg: tcp.from_l2(SECONDS, f"{subnet(leg)}.2"), 0),
    (f"echoes with {UNDER_WAY} under way", "1/s", at_least(1), many_echoes, FLOOD),
    ("round trip", "us", at_most(1), round_trip, PINGS),
)
COUNTED = "exits of L2", "interrupts of the function"


def counts(l1, function):
    """What there was until now of COUNTED."""
    irqs = f"$(ls /sys/bus/pci/devices/{l1.pci(function)}/msi_irqs | paste -sd '|')"
    said = l1.sh("mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug; "
                 f"cat /sys/kernel/debug/kvm/exits; grep -E \"^ *({irqs}):\" /proc/interrupts || "
                 "{ echo the function has no interrupts >&2; exit 1; }")
    exits, *lines = said.splitlines()
    return [int(exits), sum(int(word) for line in lines for word in line.split()[1:] if word.isdigit())]


def negotiated(l1):
    """What L2 has negotiated with each NIC, by QEMU's names."""
    conn = l2.qmp(l1)
    try:
        found = {}
        for device in conn.cmd("x-query-virtio"):
            if device["name"] == "virtio-net":
                features = conn.cmd("x-query-virtio-status", path=device["path"])["guest-features"]
                names = features["transports"] + features["dev-features"]
                found[device["path"]] = {name.partition(":")[0] for name in names}
        # their paths are numbered in the order of the words
        return [found[path] for path in sorted(found)]
    finally:
        conn.close()


def comparisons(kept, case):
    """Those of a case: of each measurement what is measured, and what is counted meanwhile; two of each."""
    def two(what, unit, goal):
        return [kept.compare(f"{case.name}: {what}, {against}", unit, legs, goal)
                for against, legs, goal in (("by virtio_lm_vdpa / by vp_vdpa", (ALL, OTHER), goal),
                                            ("features by default / all of them", (DEFAULT, ALL), None))]
    return [[two(what, unit, goal), *(two(f"{what}, {count}", "for each", None) for count in COUNTED if echoes)]
            for what, unit, goal, _, echoes in MEASURED]


def add(pairs, number, leg, value):
    """To those of two comparisons that have this leg."""
    for comparison in pairs:
        if leg in comparison.legs:
            comparison.add(number, leg, value)


def run(t, lab, case, legs, sequence, found):
    """The rounds of a case that have the parents in that order."""
    l1, name = lab.l1s[0], f"{case.name}: {'; '.join(legs)}"
    l2.start(l1, nic=nics(l1, make_nodes(l1, legs), case))
    l2.wait_up(l1)
    configure(l1, legs)
    for n in range(len(LEGS)):
        l1.one_cpu(n)
    tcp.listen(l1)
    features = dict(zip(legs, negotiated(l1)))
    t.equal(features[ALL], features[OTHER], f"{name}: L2 has the same features by {ALL}, as by {OTHER}")
    t.note(f"beside those by {DEFAULT}: {', '.join(sorted(features[ALL] - features[DEFAULT])) or 'none'}")
    for (what, _, _, measure, echoes), (measured, *counted) in zip(MEASURED, found):
        elsewhere = []
        for number, leg in sequence:
            before = [net.received(l1.data_tap(n)) for n in range(len(LEGS))]
            begun = counts(l1, legs.index(leg))
            value = measure(leg)
            ended = counts(l1, legs.index(leg))
            came = [net.received(l1.data_tap(n)) - then for n, then in enumerate(before)]
            if max(came) != came[legs.index(leg)]:
                elsewhere.append((leg, came))
            add(measured, number, leg, value)
            for pairs, old, new in zip(counted, begun, ended):
                add(pairs, number, leg, (new - old) / echoes)
        t.equal(elsewhere, [], f"{name}: {what}: each NIC's packets are those of its function")
    l2.stop(l1)


if not tap.config().simulator:
    tap.skip_all("vp_vdpa is built for the lab's own kernels alone")
with tap.Tap() as t, bench.Bench(tap.run_dir(), __doc__.partition(".")[0] + ".") as kept:
    for case, (part, legs) in itertools.product(CASES, enumerate(ORDERS)):
        if part == 0:
            found = comparisons(kept, case)
        sequence = [(number, leg) for number, leg in bench.order(LEGS, ROUNDS) if number % len(ORDERS) == part]
        with tap.make_lab(devices=len(LEGS), vdpa_modules="stock", l2_memory=128, rate=1, pages=1,
                          device_props=PROPS + case.more) as lab:
            run(t, lab, case, legs, sequence, found)
            t.clean_logs(lab)
        kept.save()
