#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=lab cost=40
"""The account of a traffic is right, however busy the host is. A packet that L2 has got and not told of yet, when
the traffic is ended, is not counted as lost. L0 goes on to send to an L2 that does not answer ARP for a while, as
one that gets no time to run. A packet that L2 holds and that was overtaken is counted as late, and not as damaged.
L2 tells of each run of packets that it has not got. L2's agent runs without L2 here, and is stopped for a while."""
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import types

from testlib import tap
from vlm import net
from vlm.l1 import die_with_parent
from vlm.l2 import agent_mib, l2
from vlm.traffic import Traffic, wrong

# longer than the peer waits for packets that were overtaken
STOPPED_SECONDS = 4

UNTOLD = 20
# A neighbour that is not heard of is believed for 5 s, is asked three times in 3 s, and would then be given up.
# And longer than the agent holds packets: until the first one of a traffic is looked at, it counts those of before
SILENT_SECONDS = 15
# as in tools/lab/agent/stream.h
STREAM_PORT, HELD_PORT = 7001, 7002
HELD_LENGTH, STREAM_MAGIC = 8900, 0x4d4c5354
STREAM_MIN, STREAM_MAX = 64, 1400
FUTURE = 1 << 62
HEADER = struct.Struct("<IIQQQQQ")
REPORT = struct.Struct("<17Q")
# packets of the agent's, in which it tells of two runs
TURNS = 200
SESSION = 1
# the agent tells every 10 s
TOLD_SECONDS = 60
M64 = (1 << 64) - 1

# It begins when its network is there. It does not answer ARP.
AGENT = f"""
until ip addr add {l2.address}/24 dev eth0 2>/dev/null; do sleep 0.1; done
echo 8 >/proc/sys/net/ipv4/conf/eth0/arp_ignore
ip link set eth0 up
exec "$@"
"""


def start_agent(config):
    """L2's agent, in a network namespace that a port of br0 leads to."""
    with open(f"{tap.run_dir()}/agent.log", "w", encoding="ascii") as file:
        agent = subprocess.Popen(["unshare", "--net", "sh", "-euc", AGENT, "sh", f"{config.tools}/agent",
                                  l2.peer_address, str(config.rate), str(agent_mib(config)), str(config.pages)],
                                 stdout=file, preexec_fn=die_with_parent)
    while os.readlink(f"/proc/{agent.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pass
    net.ip("link", "add", "l2", "mtu", str(net.MTU), "type", "veth", "peer", "name", "eth0", "mtu", str(net.MTU),
           "netns", str(agent.pid))
    net.ip("link", "set", "l2", "master", "br0", "up")
    return agent


def mix(x):
    """The pattern's mixer, see tools/lab/agent/stream.h."""
    x = (x + 0x9e3779b97f4a7c15) & M64
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & M64
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & M64
    return x ^ (x >> 31)


def packet(number, length, sent_ns):
    """One to L2."""
    start = HEADER.size + REPORT.size
    start = start if length >= start else HEADER.size
    words = b"".join(struct.pack("<Q", mix((SESSION + number * HELD_LENGTH + at) & M64))
                     for at in range(start, length, 8))
    header = HEADER.pack(STREAM_MAGIC, length, SESSION, number, sent_ns, 0, 0)
    return (header + bytes(start - HEADER.size) + words)[:length]


def held_packet(number):
    """A packet that L2 holds. Its time makes no sense, so that it is looked at as soon as it comes."""
    return packet(number, HELD_LENGTH, FUTURE)


def stream_packet(number):
    """A packet of the stream to L2."""
    return packet(number, STREAM_MIN + mix(SESSION ^ number) % (STREAM_MAX - STREAM_MIN + 1), 0)


def told_runs(sock):
    """The runs of lost packets that the agent tells of, if 1 and 3 are lost. Each of its packets is answered: it
    wakes up once to send and once to receive."""
    runs = set()
    for number in range(0, 6, 2):
        sock.sendto(stream_packet(number), (l2.address, STREAM_PORT))
    for number in range(5, 5 + TURNS):
        said = sock.recv(STREAM_MAX)
        if len(said) >= HEADER.size + REPORT.size:
            *_, lost_runs, _, first, last = REPORT.unpack_from(said, HEADER.size)
            if lost_runs == 2:
                runs.add((first, last))
        sock.sendto(stream_packet(number), (l2.address, STREAM_PORT))
    return runs


def told(held):
    """The agent's counts, as soon as it tells of so many packets that were held."""
    end = time.monotonic() + TOLD_SECONDS
    while time.monotonic() < end:
        with open(f"{tap.run_dir()}/agent.log", encoding="ascii") as file:
            lines = [dict(re.findall(r"(\w+)=(\d+)", line)) for line in file if line.endswith("\n")]
        if lines and int(lines[-1].get("held", 0)) == held:
            return {name: int(value) for name, value in lines[-1].items()}
        time.sleep(0.2)
    return {}


with tap.Tap() as t:
    net.create()
    lab = types.SimpleNamespace(config=tap.config(l2_memory=16, pages=100), run_dir=tap.run_dir())
    agent = start_agent(lab.config)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TOLD_SECONDS)
        sock.bind((l2.peer_address, STREAM_PORT))
        # by then L0 knows L2's MAC
        sock.recv(1)
        for number in 0, 2, 1:
            sock.sendto(held_packet(number), (l2.address, HELD_PORT))
        t.equal(told_runs(sock), {(1, 1), (3, 3)}, f"of two lost runs, each is told of in {TURNS} packets")
    counts = told(3)
    t.equal((counts.get("held_late"), counts.get("held_bad")), (1, 0),
            "a packet that was held and overtaken is late, and not bad")
    for what, seconds in ("it answers no ARP", 0), ("and is held up when the traffic ends", STOPPED_SECONDS):
        traffic = Traffic(lab, f"traffic-{seconds}")
        traffic.wait_both_ways()
        if seconds:
            agent.send_signal(signal.SIGSTOP)
            traffic.wait("packets that L2 has not told of", lambda c: c["out_sent"] > c["out_highest"] + UNTOLD, 60)
            threading.Timer(seconds, agent.send_signal, (signal.SIGCONT,)).start()
        else:
            traffic.wait("seconds of packets", lambda c: c["seconds"] > SILENT_SECONDS, 2 * SILENT_SECONDS)
        counts = traffic.finish()
        t.equal(counts["out_lost"], 0, f"an L2: {what}: no packet to L2 is counted as lost")
        t.equal(wrong(counts), "", f"an L2: {what}: and nothing is wrong with any")
    agent.kill()
