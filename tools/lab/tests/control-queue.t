#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=300,400 variants=stock,debug form=both,all
"""What L2 has set through its control virtqueue arrives at the destination: its MAC, the addresses and VLANs
that it takes in, promiscuous mode, its offloads, and how many pairs of queues it uses: four, two and one.
There and back, and after a migration that is cancelled, or refused as the other device has fewer of them; by
the device's log, and, on a stock kernel, by the shadow virtqueues of Debian's own QEMU. The destination's
device says so itself, and L2 hears the frames that its filters let pass, and no other ones. L2 makes itself
known from there."""
import contextlib
import dataclasses
import errno
import itertools
import re
import socket
import struct
import subprocess
import time

from testlib import nested, tap
from testlib.faults import SLOW, cancelled
from testlib.kselftest import DRIVER
from vlm import net
from vlm.config import Config
from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import DEBIAN_QEMU, l2
from vlm.migration import Migration, migrate
from vlm.traffic import Traffic, account, device_stops

PAIRS = 4
NIC = l2.netdev(l2.node, "auto", pairs=PAIRS)
MAC, NEXT_MAC, VLAN_MAC = "52:54:00:77:00:0a", "52:54:00:77:00:0b", "52:54:00:77:00:06"
GROUP = "01:00:5e:01:02:03"
BROADCAST = "ff:ff:ff:ff:ff:ff"
# IEEE's for local experiments; of whoever sends these frames
ETHERTYPE, SENDER = 0x88b5, "52:54:00:77:00:01"
ETH_P_8021Q, ETH_P_ARP = 0x8100, 0x0806
# the frames that L0 sends L2: the address, and the VLAN's tag
FRAMES = {
    "mac": (MAC, None),
    "next": (NEXT_MAC, None),
    "given": (l2.mac, None),
    "group": (GROUP, None),
    "other": ("01:00:5e:01:02:04", None),
    "five": (BROADCAST, 5),
    "six": (VLAN_MAC, 6),
    "seven": (BROADCAST, 7),
    "all": (BROADCAST, None),
}
FIRST = {
    "lines": [
        f"ip link set eth0 address {MAC}",
        f"agent nic eth0 pairs {PAIRS}",
        f"agent nic eth0 multicast {GROUP}",
        "for m in /lib/vlan/*; do insmod $m; done",
        "ip link add link eth0 name v5 type vlan id 5 && ip link set v5 up",
        f"ip link add link eth0 name v6 type vlan id 6 && ip link set v6 address {VLAN_MAC} up",
    ],
    "state": {"main-mac": MAC, "promiscuous": False, "unicast": "normal", "multicast": "normal", "vlan": "normal",
              "unicast-table": [VLAN_MAC], "vlan-table": [0, 5, 6]},
    "hears": ["mac", "group", "five", "six", "all"],
    "pairs": PAIRS,
    "segments": "on",
}
THEN = {
    "lines": [
        f"ip link set eth0 address {NEXT_MAC}",
        "ifconfig eth0 allmulti",
        "ip link del v6",
        "agent nic eth0 pairs 2",
        "agent nic eth0 off rx-gro-hw",
    ],
    "state": {**FIRST["state"], "main-mac": NEXT_MAC, "multicast": "all", "unicast-table": [], "vlan-table": [0, 5]},
    "hears": ["next", "group", "other", "five", "all"],
    "pairs": 2,
    "segments": "off",
}
PROMISCUOUS = {
    "lines": ["ifconfig eth0 promisc", "agent nic eth0 pairs 1"],
    "state": {**THEN["state"], "promiscuous": True},
    "hears": list(FRAMES),
    "pairs": 1,
    "segments": "off",
}
NORMAL = {
    **THEN,
    "lines": ["ifconfig eth0 -promisc", f"agent nic eth0 pairs {PAIRS}", "agent nic eth0 on rx-gro-hw"],
    "pairs": PAIRS,
    "segments": "on",
}
FLOWS = 64
numbers = itertools.count(1)


def wait_shown(l1, pattern, what):
    """Until it has shown that."""
    end = time.monotonic() + PATIENCE
    while not (found := re.search(pattern, l2.shown(l1))):
        if time.monotonic() > end:
            raise LabError(f"not within {PATIENCE} s: {what}; L2's console: {l2.shown(l1)[-400:]}")
        time.sleep(0.2)
    return found


def run(l1, line):
    """Run a line in the L2 in that L1; what it prints."""
    n = next(numbers)
    before = len(l2.shown(l1))
    l2.console(l1, f"{{ {line}; }}; echo 'ended '{n} $?")
    found = wait_shown(l1, rf"\nended {n} (\d+)", line)
    if found[1] != "0":
        raise LabError(f"L2: `{line}` ended with {found[1]}: {l2.shown(l1)[before:]}")
    return l2.shown(l1)[before:]


def octets(mac):
    """A MAC's six."""
    return bytes.fromhex(mac.replace(":", ""))


def send(l1, mac, vlan, text):
    """L0 sends a frame with that text to the vdpa function of that L1."""
    tag = struct.pack("!HH", ETH_P_8021Q, vlan) if vlan else b""
    frame = octets(mac) + octets(SENDER) + tag + struct.pack("!H", ETHERTYPE) + text.encode() + b"\0"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        # not by way of the bridge, which sends a frame where it has seen the address last
        sock.sendto(frame.ljust(64, b"\0"), (l1.data_tap(0), 0))


def hears(l1, wanted):
    """Which of the frames does L2 hear?"""
    n = next(numbers)
    for name, (mac, vlan) in FRAMES.items():
        send(l1, mac, vlan, f"{n} {name}")
    for name in wanted:
        wait_shown(l1, rf"heard {n} {name}\b", f"L2 hears {name}")
    # and what has come before the last one
    send(l1, BROADCAST, None, f"{n} end")
    wait_shown(l1, rf"heard {n} end\b", "L2 hears the last one")
    return re.findall(rf"heard {n} (\w+)", l2.shown(l1))[:-1]


def state(l1):
    """What the vdpa function of that L1 takes in, by its own word."""
    found, = l1.qmp("query-rx-filter", name="vdpa0")
    return {name: sorted(value) if isinstance(value, list) else value for name, value in found.items()}


def interrupts(l1):
    """How many of them the L2 in that L1 has had from each of the virtqueues."""
    text = run(l1, r"sed -n 's/^ *[0-9]*: *\([0-9]*\) .*virtio0-\([a-z]*put.[0-9]\)$/irq \2 \1/p' /proc/interrupts")
    return {name: int(count) for name, count in re.findall(r"^irq (\S+) (\d+)$", text, re.M)}


def connects(n):
    """Does L2 answer, by a refusal, a connection from another port of L0's than all others?"""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        return sock.connect_ex((l2.address, 1000 + n)) == errno.ECONNREFUSED


def uses_pairs(t, what, l1, pairs):
    """Packets go both ways on so many pairs of queues."""
    before = interrupts(l1)
    t.equal(sum(connects(n) for n in range(FLOWS)), FLOWS, f"{what}: L2 answers on each of {FLOWS} flows")
    after = interrupts(l1)
    t.equal(sorted(name for name in after if after[name] > before[name]),
            [f"{way}.{n}" for way in ("input", "output") for n in range(pairs)],
            f"{what}: and these use {pairs} of its {PAIRS} pairs of queues")


def segments(l1):
    """Does the vdpa function of that L1 pass on TCP's segments that are longer than frames? By its tap's word."""
    text = subprocess.run(["ethtool", "-k", l1.data_tap(0)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.search(r"tx-tcp-segmentation: (\w+)", text)[1]


def has(t, what, l1, want):
    """The L1's device has that state, which L2 has set, and works by it; the state."""
    have = state(l1)
    t.equal({name: have[name] for name in want["state"]}, want["state"],
            f"{what}: {l1.name}'s device has what L2 has set")
    t.ok(GROUP in have["multicast-table"], f"{what}: and the multicast address")
    t.equal(segments(l1), want["segments"], f"{what}: and L2's offloads")
    t.equal(sorted(hears(l1, want["hears"])), sorted(want["hears"]),
            f"{what}: L2 hears the frames that it has asked for, and no other one")
    return have


def set_up(t, what, l1, want):
    """L2 sets that; the state that its device has then."""
    for line in want["lines"]:
        run(l1, line)
    # L2's kernel tells its device of filters when it comes to it
    end = time.monotonic() + PATIENCE
    while not want["state"].items() <= state(l1).items() and time.monotonic() < end:
        time.sleep(0.2)
    return has(t, what, l1, want)


@contextlib.contextmanager
def announcements():
    """The MACs that L2 makes itself known by, in a list that is there at the end."""
    found = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as sock:
        sock.bind(("br0", ETH_P_ARP))
        sock.setblocking(False)
        yield found
        end = time.monotonic() + PATIENCE
        while True:
            try:
                frame = sock.recv(2048)
            except BlockingIOError:
                # L2's kernel makes itself known when it comes to it
                if found or time.monotonic() > end:
                    break
                time.sleep(0.2)
                continue
            # the sender's address and the target's are one in an announcement
            if frame[28:32] == frame[38:42] == socket.inet_aton(l2.address):
                found.append(frame[22:28].hex(":"))


def move(t, what, src, dst, traffic, want, had):
    """One migration, which brings the state along."""
    with announcements() as announced, traffic.may_lose(what, device_stops(l2.dirty_log(src))):
        t.note(migrate(src, dst, nic=NIC))
        nested.well(t, what, traffic)
    t.equal(has(t, what, dst, want), had, f"{what}: all of the state is the source's")
    uses_pairs(t, what, dst, want["pairs"])
    t.equal(set(announced), {want["state"]["main-mac"]}, f"{what}: L2 has announced its MAC: {len(announced)} times")


def cancel(t, what, src, dst, traffic, want, had):
    """A migration that is cancelled leaves the state where it is."""
    stops = device_stops(l2.dirty_log(src))
    with traffic.may_lose(what, 0 if stops == 1 else stops):
        with Migration(src, dst, nic=NIC, max_bandwidth=SLOW) as migration:
            migration.wait("active", reached=lambda info: info["ram"]["transferred"] > SLOW)
            cancelled(migration)
        l2.stop(dst)
        nested.well(t, what, traffic)
    t.equal(has(t, what, src, want), had, f"{what}: nothing of the state has changed")


def differs(t, what, src, dst, traffic, caps=nested.ALL_CAPS, words=()):
    """The other device has fewer pairs than L2 uses: its QEMU does not begin, and says why. L2 goes on at the
    source."""
    nested.other_device(dst, caps, words)
    why = f"queues={PAIRS}, but the device has queue pairs: "
    with traffic.may_lose(what, 0):
        try:
            l2.start(dst, incoming=True, nic=NIC)
        except LabError as err:
            t.note(err)
        t.ok(why in l2.said(dst), f"{what}: L2's QEMU does not begin there, and says: {why}")
        l2.stop(dst)
        t.equal(l2.running(src), "running", f"{what}: L2 goes on where it is")
        nested.well(t, what, traffic)
    nested.other_device(dst, nested.ALL_CAPS)


def travel(t, lab, way, log):
    """L2 sets its NIC up, and goes there and back."""
    here, there = lab.l1s
    for l1 in lab.l1s:
        t.equal(l2.take_over(l1), l2.node, f"{way}: {l1.name}: the driver takes the function over")
    l2.start(here, nic=NIC)
    t.note(f"L2 up after {l2.wait_up(here):.1f} s")
    t.equal(l2.dirty_log(here), log, f"{way}: so L2 will migrate")
    l2.console(here, f"agent nic any hear {ETHERTYPE} &")
    had = set_up(t, f"{way}, at first", here, FIRST)
    net.ip("neigh", "flush", "dev", "br0")
    traffic = Traffic(lab, "-".join(way.replace("'", "").split()), pairs=PAIRS)
    traffic.wait_both_ways()
    uses_pairs(t, f"{way}, at first", here, PAIRS)

    cancel(t, f"{way}, cancelled", here, there, traffic, FIRST, had)
    if log == "device":
        differs(t, f"{way}, to a device with fewer pairs", here, there, traffic, words=["max_vqp", "2"])
        differs(t, f"{way}, to a device without a mailbox", here, there, traffic, nested.NO_MAILBOX)
    move(t, f"{way}, there", here, there, traffic, FIRST, had)
    # a change may lose a run of packets: a tap, for one, drops what is in a queue of its that is switched off
    with traffic.may_lose("changed", len(THEN["lines"])):
        had = set_up(t, f"{way}, changed", there, THEN)
        net.ip("neigh", "flush", "dev", "br0")
        traffic.wait_both_ways()
    move(t, f"{way}, back", there, here, traffic, THEN, had)
    with traffic.may_lose("promiscuous", len(PROMISCUOUS["lines"])):
        had = set_up(t, f"{way}, promiscuous", here, PROMISCUOUS)
        traffic.wait_both_ways()
    move(t, f"{way}, promiscuous, there", here, there, traffic, PROMISCUOUS, had)
    with traffic.may_lose("promiscuous no more", len(NORMAL["lines"])):
        set_up(t, f"{way}, promiscuous no more", there, NORMAL)
        traffic.wait_both_ways()

    account(t, traffic)
    l2.stop(there)
    for l1 in lab.l1s:
        l1.sh(f"vdpa dev del vdpa0; rmmod {DRIVER} vhost_vdpa vdpa")


with tap.Tap() as t:
    # which joins groups of its own, whenever it likes
    with nested.make_lab(queues=PAIRS, device_props=f"{Config.device_props},mq=on", l2_append="ipv6.disable=1") as lab:
        with_vlan = dataclasses.replace(lab.config, l2_initrd=f"{tap.config().kernel}/l2-vlan.gz")
        for l1 in lab.l1s:
            l1.config = with_vlan
        travel(t, lab, "the device's log", "device")
        if not tap.DEBUG:
            for l1 in lab.l1s:
                l1.config = dataclasses.replace(with_vlan, vdpa_modules="stock", l2_qemu=DEBIAN_QEMU)
            travel(t, lab, "shadow virtqueues", "unknown")
        t.clean_logs(lab)
