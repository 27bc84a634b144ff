# SPDX-License-Identifier: GPL-2.0-or-later
"""L0's network: two bridges in a network namespace of the lab's own.

br0 joins the vdpa functions' taps, and has the addresses of the peers of the L2s' traffic. br1 joins
the manager NICs: a bridge of its own, so that what L2 sends cannot come between the lab
and the L1s.
"""
import json
import os
import subprocess

DATA = "10.77."
MANAGER = "10.78.0."
# as many as an L1 has functions at most
L2S = 8
L0_MANAGER = MANAGER + "1"
# the peer sends frames that are longer than a page; a bridge's own is its ports' least
MTU = 9000
# what a tap holds, in packets, until the device takes them: that of a minute, for an L2 that is starved
# on a busy host loses nothing, and the tests count what is lost
TAP_QUEUE = 16384
# How many times a neighbour is asked, once a second: one whose MAC address is known, before that is given up, and
# one whose address is not. And the bytes that wait for an answer. The kernel gives up after 3 s, and drops what
# waits; nobody is told. So an L2 that gets no time to run for 10 s would lose packets although nothing has stopped
# its device.
NEIGHBOUR = {"ucast_solicit": 3600, "mcast_solicit": 3600, "unres_qlen_bytes": 64 << 20}


def peer_address(number):
    """L0's, for the traffic of the L2 of that number: the two have a subnet."""
    return f"{DATA}{number}.1"


def l2_address(number):
    """That L2's."""
    return f"{DATA}{number}.2"


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
    for bridge, addresses in ("br0", map(peer_address, range(L2S))), ("br1", [L0_MANAGER]):
        ip("link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
        for address in addresses:
            ip("addr", "add", address + "/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for name, value in NEIGHBOUR.items():
            with open(f"/proc/sys/net/ipv4/neigh/{bridge}/{name}", "w", encoding="ascii") as file:
                file.write(str(value))


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
