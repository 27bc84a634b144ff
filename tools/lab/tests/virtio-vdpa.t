#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=58 variants=stock
"""A kernel drives a device by itself, through virtio_vdpa: its network interface has the MAC and the
MTU that the device was given, and packets go both ways; again after each of many changes between
virtio_vdpa and vhost-vdpa, and with a control virtqueue and two pairs of queues, whose commands reach the
device: that of the driver's own, by default, and the device's."""
import time

from testlib import kselftest, tap, vdpa
from testlib.ping import ping
from vlm import net
from vlm.config import PATIENCE
from vlm.l2 import l2

MAC, OTHER_MAC = "52:54:00:77:00:02", "52:54:00:77:00:0a"
BINDS = 10
PINGS = 50
MTU = 1400
IP_HEADERS = 28
# VIRTIO_NET_F_MTU, MAC, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX, MQ, VERSION_1, ACCESS_PLATFORM
FEATURES = sum(1 << bit for bit in (3, 5, 15, 16, 17, 18, 22, 32, 33))


def interface(l1):
    """The network interface that virtio_vdpa's device has: its parent is who does its DMA."""
    vdpa.bind(l1, "virtio_vdpa")
    return l1.sh(f"ls /sys/bus/pci/devices/{l1.pci(0)}/virtio*/net").strip()


def answers(t, l1, what, size=56):
    """Every ping of L0 is answered."""
    missing, said = ping(l2.address, PINGS, 0.02, "-s", str(size), "-M", "do")
    if not t.equal(missing, [], f"{what}: each of {PINGS} pings of {size} bytes is answered"):
        t.note(said)


def filters(l1):
    """What the device takes in, by its own word: for which MAC, whether all, and of which VLANs."""
    found, = l1.qmp("query-rx-filter", name="vdpa0")
    return found["main-mac"], found["promiscuous"], sorted(found["vlan-table"])


def up(l1, name):
    """The interface gets L2's address, which L0 knows nothing of yet."""
    net.ip("neigh", "flush", "dev", "br0")
    l1.sh(f"ip addr add {l2.address}/24 dev {name} && ip link set {name} up")


with tap.Tap() as t:
    with tap.make_lab(devices=1, queues=2, vdpa_modules="stock", device_props=f"{kselftest.PROPS},mq=on") as lab:
        l1 = lab.l1s[0]
        l1.sh("modprobe virtio_vdpa")
        l2.take_over(l1, mac=MAC)
        for n in range(1, BINDS + 1):
            name = interface(l1)
            t.equal(l1.sh(f"cat /sys/class/net/{name}/address").strip(), MAC, f"bind {n}: an interface with the MAC")
            up(l1, name)
            answers(t, l1, f"bind {n}")
            vdpa.bind(l1, "vhost_vdpa")
            t.equal(l1.run(["sh", "-c", f": <>{l2.node}"]).stderr, "", f"bind {n}: then it is vhost-vdpa's, and opens")
        l1.sh("vdpa dev del vdpa0")

        # with CTRL_RX the device filters, for a MAC of its own
        l2.take_over(l1, mac="", words=("device_features", hex(FEATURES), "max_vqp", "2", "mtu", str(MTU)))
        name = interface(l1)
        t.equal(l1.sh(f"cat /sys/class/net/{name}/address").strip(), l1.mac(0), "an interface with the function's MAC")
        t.equal(l1.sh(f"cat /sys/class/net/{name}/mtu").strip(), str(MTU), "and the MTU that was asked for")
        t.ok(l1.run(["ip", "link", "set", name, "mtu", str(MTU + 1)]).returncode != 0, "which cannot be more")
        up(l1, name)
        answers(t, l1, "of that MTU", MTU - IP_HEADERS)
        l1.sh(f"ethtool -L {name} combined 2; ip link set {name} allmulticast on promisc on")
        t.equal(l1.sh(f"ethtool -l {name} | sed -n 's/^Combined:[[:space:]]*//p'").split(), ["2", "2"],
                "its control virtqueue changes the number of pairs")
        answers(t, l1, "with two pairs", MTU - IP_HEADERS)
        l1.sh(f"ip link set {name} down && ip link set {name} up")
        answers(t, l1, "down and up")
        l1.sh("vdpa dev del vdpa0")

        l2.take_over(l1, mac=MAC)
        name = interface(l1)
        up(l1, name)
        l1.sh(f"""ethtool -L {name} combined 2
            ip link set {name} address {OTHER_MAC} promisc on
            ip link add link {name} name v5 type vlan id 5 && ip link set v5 up""")
        net.ip("neigh", "flush", "dev", "br0")
        answers(t, l1, "by default, with another MAC and two pairs")
        # the kernel tells the device of filters when it comes to it
        want = OTHER_MAC, True, [0, 5]
        end = time.monotonic() + PATIENCE
        while (have := filters(l1)) != want and time.monotonic() < end:
            time.sleep(0.2)
        t.equal(have, want, "and the device has the MAC, is promiscuous, and takes the VLAN in")
        t.clean_logs(lab)
