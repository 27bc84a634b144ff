#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=lab cost=20
"""The account of a traffic is right, however busy the host is: a packet that L2 has got and not told of yet, when
the traffic is ended, is not counted as lost. L2's agent runs without L2 here, and is stopped for a while."""
import os
import signal
import subprocess
import threading
import types

from testlib import tap
from vlm import net
from vlm.l1 import die_with_parent
from vlm.traffic import Traffic, agent_mib, wrong

# longer than the peer waits for packets that were overtaken
STOPPED_SECONDS = 4

UNTOLD = 20

# it begins when its network is there
AGENT = f"""
until ip addr add {net.L2_DATA}/24 dev eth0 2>/dev/null; do sleep 0.1; done
ip link set eth0 up
exec "$@"
"""


def start_agent(config):
    """L2's agent, in a network namespace that a port of br0 leads to."""
    agent = subprocess.Popen(["unshare", "--net", "sh", "-euc", AGENT, "sh", f"{config.tools}/agent", net.L0_DATA,
                              str(config.rate), str(agent_mib(config)), str(config.pages)],
                             stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    while os.readlink(f"/proc/{agent.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pass
    net.ip("link", "add", "l2", "mtu", str(net.MTU), "type", "veth", "peer", "name", "eth0", "mtu", str(net.MTU),
           "netns", str(agent.pid))
    net.ip("link", "set", "l2", "master", "br0", "up")
    return agent


with tap.Tap() as t:
    net.create()
    lab = types.SimpleNamespace(config=tap.config(l2_memory=16, pages=100), run_dir=tap.run_dir())
    agent = start_agent(lab.config)
    for what, seconds in ("undisturbed", 0), ("L2 is held up when the traffic ends", STOPPED_SECONDS):
        traffic = Traffic(lab, f"traffic-{seconds}")
        traffic.wait_both_ways()
        if seconds:
            agent.send_signal(signal.SIGSTOP)
            traffic.wait("packets that L2 has not told of", lambda c: c["out_sent"] > c["out_highest"] + UNTOLD, 60)
            threading.Timer(seconds, agent.send_signal, (signal.SIGCONT,)).start()
        counts = traffic.finish()
        t.equal(counts["out_lost"], 0, f"{what}: no packet to L2 is counted as lost")
        t.equal(wrong(counts), "", f"{what}: and nothing is wrong with any")
    agent.kill()
