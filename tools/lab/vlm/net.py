# SPDX-License-Identifier: GPL-2.0-or-later
"""L0's network: two bridges in a network namespace of the lab's own.

br0 joins the vdpa functions' taps, and has the address of the traffic's peer. br1 joins
the manager NICs: a bridge of its own, so that what L2 sends cannot come between the lab
and the L1s.
"""
import json
import os
import subprocess

DATA = "10.77.0."
MANAGER = "10.78.0."
L0_DATA = DATA + "1"
L2_DATA = DATA + "2"
L0_MANAGER = MANAGER + "1"
# the peer sends frames that are longer than a page; a bridge's own is its ports' least
MTU = 9000
# what a tap holds, in packets, until the device takes them: that of a minute, for an L2 that is starved
# on a busy host loses nothing, and the tests count what is lost
TAP_QUEUE = 16384
# How many times a silent neighbour is asked, once a second, before its MAC address is given up. What is sent to
# it after that is dropped within 3 s, and nobody is told. With the kernel's 3, an L2 that gets no time to run for
# 10 s loses packets although nothing has stopped its device.
ARP_PROBES = 3600


def ip(*words):
    """Run ip(8)."""
    subprocess.run(["ip", *words], check=True)


def create():
    """Move to a new network namespace, which ends with this process, and make both bridges."""
    os.unshare(os.CLONE_NEWNET)
    # no traffic but the lab's own
    for path in ("all", "default"):
        with open(f"/proc/sys/net/ipv6/conf/{path}/disable_ipv6", "w", encoding="ascii") as file:
            file.write("1")
    ip("link", "set", "lo", "up")
    for bridge, address in ("br0", L0_DATA), ("br1", L0_MANAGER):
        ip("link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
        ip("addr", "add", address + "/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        with open(f"/proc/sys/net/ipv4/neigh/{bridge}/ucast_solicit", "w", encoding="ascii") as file:
            file.write(str(ARP_PROBES))


def received(name):
    """The packets that a port has taken from what is behind it."""
    done = subprocess.run(["ip", "-j", "-s", "link", "show", "dev", name], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)[0]["stats64"]["rx"]["packets"]


def isolate(name, off):
    """Cut a port off from all others that are cut off, or undo that."""
    subprocess.run(["bridge", "link", "set", "dev", name, "isolated", "on" if off else "off"], check=True)


def tap(name, bridge, queues=1):
    """Make a tap that is a port of the bridge."""
    ip("tuntap", "add", "dev", name, "mode", "tap", *(["multi_queue"] if queues > 1 else []))
    ip("link", "set", name, "mtu", str(MTU), "txqueuelen", str(TAP_QUEUE))
    # where the host's own is fq_codel, that drops what an L1 is late to take
    subprocess.run(["tc", "qdisc", "replace", "dev", name, "root", "pfifo_fast"], check=True)
    ip("link", "set", name, "master", bridge, "up")
