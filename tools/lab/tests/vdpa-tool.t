#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=60 variants=stock form=all
"""All that vdpa(8) prints of the driver's devices is right, as text and as JSON. Where the values come from:

* what was provisioned with `vdpa dev add` and `vdpa dev set`, and what a VMM or a guest has set since;
* QEMU's properties of the function: MAC, MTU, pairs, sizes of queues, link. QEMU tells what features it has;
* the features that a driver has negotiated: what a VMM here asks for, or what L1's own kernel says it has;
* the counters of virtqueues: the writes to doorbells, control commands and acks that QEMU traces, the
  interrupts of L1's kernel, the packets of its NIC.

Whole objects are compared, so a value that is new, or gone, is noticed."""
import contextlib
import json
import re
import subprocess
import time

from testlib import kselftest, tap, vdpa
from testlib.ping import ping
from vlm import net
from vlm.config import PATIENCE
from vlm.l2 import l2

# QEMU's properties, virtqueues, entries of the longest queue that a vDPA device has
FUNCTIONS = (
    ("mq=on,rx_queue_size=1024,tx_queue_size=512,ioeventfd=off", 5, 1024),
    ("mq=on,lm-ctrl=off,host_mtu=9000,packed=on,rx_queue_size=512", 5, 512),
    ("ctrl_vq=off,status=off", 3, 256),
    ("mq=on,rss=on,hash=on,speed=25000,duplex=full", 5, 256),
)
VENDOR = 0x1af4
MAC, OTHER_MAC = "52:54:00:77:00:0a", "52:54:00:77:00:0b"
# Documentation/virtio-lm-driver.rst, "Features offered by default"
DEFAULT = vdpa.mask(("CSUM GUEST_CSUM MTU MAC GUEST_TSO4 GUEST_TSO6 GUEST_ECN GUEST_UFO HOST_TSO4 HOST_TSO6 "
                     "HOST_ECN HOST_UFO MRG_RXBUF STATUS RSC_EXT STANDBY SPEED_DUPLEX ANY_LAYOUT RING_EVENT_IDX "
                     "VERSION_1 ACCESS_PLATFORM").split())
MAILBOX = vdpa.mask("CTRL_VQ CTRL_RX CTRL_RX_EXTRA CTRL_VLAN CTRL_MAC_ADDR CTRL_GUEST_OFFLOADS".split())
MUST = "VERSION_1", "ACCESS_PLATFORM"
CTRL = "MAC", "STATUS", "CTRL_VQ", "CTRL_RX", "CTRL_MAC_ADDR"
# What QEMU lists as well, and offers to nobody but a legacy driver
LEGACY = vdpa.mask(("GSO", "NOTIFY_ON_EMPTY", "ANY_LAYOUT"))
# The status of a device whose features are settled, and of one that runs
FEATURES_OK, DRIVER_OK = 11, 15
# The driver's counters of a control virtqueue that it serves, by the class of the command
CLASSES = ("rx_commands", "mac_commands", "vlan_commands", "announce_commands", "mq_commands",
           "guest_offloads_commands", "other_commands")
PINGS = 30
# What L1's kernel says of a command that its device refuses
REFUSED = r"Fail to set num of queue pairs"

# A VMM: node, features or 0 for all that are offered, status, MAC to write. It ends with a line on its stdin
VMM = """
import fcntl, os, struct, sys
node, features, last, mac = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
fd = os.open(node, os.O_RDWR)
fcntl.ioctl(fd, 0xaf01)                                           # VHOST_SET_OWNER
offered, = struct.unpack("Q", fcntl.ioctl(fd, 0x8008af00, bytes(8)))    # VHOST_GET_FEATURES
if mac:
    mac = bytes.fromhex(mac.replace(":", ""))
    fcntl.ioctl(fd, 0x4008af74, struct.pack("II", 0, len(mac)) + mac)   # VHOST_VDPA_SET_CONFIG
for status in sorted({1, 3, 11, last}):
    if status == 11:
        fcntl.ioctl(fd, 0x4008af00, struct.pack("Q", features or offered))  # VHOST_SET_FEATURES
    fcntl.ioctl(fd, 0x4001af72, struct.pack("B", status))               # VHOST_VDPA_SET_STATUS
print(*fcntl.ioctl(fd, 0x8001af71, bytes(1)), flush=True)               # VHOST_VDPA_GET_STATUS
sys.stdin.readline()
"""


@contextlib.contextmanager
def vmm(l1, node, features=0, status=FEATURES_OK, mac=""):
    """A VMM has the device, as far as that status."""
    process = l1.popen(["python3", "-c", VMM, node, str(features), str(status), mac], text=True,
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said = process.stdout.readline().strip()
        assert said == str(status), f"a VMM has the device at status {said}, not {status}"
        yield
    finally:
        process.communicate("\n", timeout=PATIENCE)


def host_features(l1, function):
    """What the function offers, by QEMU's word."""
    path = f"/machine/peripheral/vdpa{function}/virtio-backend"
    told = l1.qmp("x-query-virtio-status", path=path)["host-features"]
    features = told.get("unknown-dev-features", 0)
    for line in told["transports"] + told["dev-features"]:
        found = re.match(r"VIRTIO_(RING_|NET_|)F_(\w+):", line)
        # VHOST_NET_F_VIRTIO_NET_HDR is QEMU's own. From bit 64 on all are of tunnels, and none the vDPA bus's
        if found and "UDP_TUNNEL" not in line:
            name = found[2].replace("IOMMU_PLATFORM", "ACCESS_PLATFORM")
            features |= 1 << vdpa.BITS[f"RING_{name}" if found[1] == "RING_" else name]
    return features & ~LEGACY


def prints(t, l1, what, words, section, entries):
    """Both forms of a command, to the last character."""
    text, told = vdpa.shows(l1, words)
    t.equal(told, {section: entries}, f"{what}: `vdpa -jp {words}`")
    t.equal(text, vdpa.plain(section, entries), f"{what}: `vdpa {words}`")


def device(l1, function, queues, size):
    """What `vdpa dev show` tells of a device."""
    return {"type": "network", "mgmtdev": f"pci/{l1.pci(function)}", "vendor_id": VENDOR, "max_vqs": queues,
            "max_vq_size": size}


def config(mac=None, link=None, announce=False, pairs=None, mtu=None, negotiated=None):
    """What `vdpa dev config show` tells of it. Two keys end with a blank: that is how vdpa(8) has them."""
    fields = {"mac": mac, "link ": link, "link_announce ": announce if link else None, "max_vq_pairs": pairs,
              "mtu": mtu, "negotiated_features": None if negotiated is None else vdpa.printed(negotiated)}
    return {key: value for key, value in fields.items() if value is not None}


def stats(kind, kicks=0, calls=0, avail=0, commands=None, errors=0, used=None):
    """What `vdpa dev vstats show` tells of a queue. commands: by their classes, of a control virtqueue."""
    fields = {"queue_type": kind, "kicks": kicks, "calls": calls, "avail_idx": avail,
              "used_idx": avail if used is None else used}
    if commands is not None:
        fields.update({"errors": errors}, **dict(zip(CLASSES, commands)))
    return fields


def defaults(t, l1, host):
    """All functions, each with the device that it gives by default, one by one and in one list."""
    managers = {}
    for n, (_, queues, _) in enumerate(FUNCTIONS):
        l2.take_over(l1, n, f"v{n}", mac="")
        managers[f"pci/{l1.pci(n)}"] = {
            "supported_classes": ["net"], "max_supported_vqs": queues,
            "dev_features": vdpa.printed(host[n] | vdpa.mask(("MAC", "MTU")))}
    devices = {f"v{n}": device(l1, n, count, FUNCTIONS[n][2]) for n, count in enumerate((5, 2, 2, 5))}
    configs = {"v0": config(l1.mac(0), "up", pairs=2), "v1": config(l1.mac(1), "up", mtu=9000),
               "v2": config(l1.mac(2)), "v3": config(l1.mac(3), "up", pairs=2)}
    for words, section, entries in ("mgmtdev show", "mgmtdev", managers), ("dev show", "dev", devices), \
            ("dev config show", "config", configs):
        prints(t, l1, "all functions", words, section, entries)
        for name, fields in entries.items():
            prints(t, l1, "one of four", f"{words} {name}", section, {name: fields})
    l1.sh("for n in 0 1 2 3; do vdpa dev del v$n; done")


def kinds(host):
    """Devices of all kinds: what, function, words for `vdpa dev add`, virtqueues, configuration, features."""
    def features(*names):
        return "device_features", hex(vdpa.mask(MUST + names))

    ring = "MAC", "MRG_RXBUF", "RING_INDIRECT_DESC", "RING_EVENT_IDX", "RING_RESET", "GUEST_USO4"
    rss = CTRL + ("RSS", "HASH_REPORT")
    mq = CTRL + ("MQ", "RING_PACKED")
    some = DEFAULT | MAILBOX
    both = vdpa.mask(("MAC", "MTU"))
    return (
        ("all provisioned", 0, ("mac", MAC, "mtu", "1400", "max_vqp", "2"), 5,
         config(MAC, "up", pairs=2, mtu=1400), host[0] & (some | vdpa.mask(["MQ"])) | both),
        ("one pair of two", 0, ("max_vqp", "1"), 3, config(True, "up"), host[0] & some),
        ("no features but those that must be", 0, features(), 2, config(), vdpa.mask(MUST)),
        ("features without a name", 0, features(*ring), 2, config(True), vdpa.mask(MUST + ring)),
        ("the device's own control virtqueue", 1, features(*CTRL), 3, config(True, "up"), vdpa.mask(MUST + CTRL)),
        ("the same, two pairs, packed rings", 1, features(*mq), 5, config(True, "up", pairs=2),
         vdpa.mask(MUST + mq)),
        ("an MTU below the device's", 1, ("mtu", "1280"), 2, config(True, "up", mtu=1280), host[1] & DEFAULT),
        ("a device without control virtqueue", 2, ("mac", MAC, "mtu", "68"), 2, config(MAC, mtu=68),
         host[2] & DEFAULT | both),
        ("RSS in place of MQ", 3, features(*rss), 5, config(True, "up", pairs=2), vdpa.mask(MUST + rss)),
    )


def one_kind(t, l1, what, function, words, queues, fields, offered):
    """Before, while and after a VMM has it, with all that is offered."""
    node = l2.take_over(l1, function, "v", mac="", words=words)
    if fields.get("mac") is True:
        fields["mac"] = l1.mac(function)
    prints(t, l1, what, "dev show v", "dev", {"v": device(l1, function, queues, FUNCTIONS[function][2])})
    prints(t, l1, what, "dev config show v", "config", {"v": fields})
    with vmm(l1, node):
        prints(t, l1, f"{what}, negotiated", "dev config show v", "config",
               {"v": {**fields, "negotiated_features": vdpa.printed(offered)}})
    prints(t, l1, f"{what}, and given back", "dev config show v", "config", {"v": fields})
    l1.sh("vdpa dev del v")


def changes(t, l1):
    """What changes while there is a device."""
    def shown(what, *args, **fields):
        prints(t, l1, what, "dev config show v", "config", {"v": config(*args, **fields)})

    names = CTRL + ("GUEST_ANNOUNCE", "CTRL_RX_EXTRA")
    some = vdpa.mask(MUST + CTRL + ("GUEST_ANNOUNCE",))
    node = l2.take_over(l1, 0, "v", mac=MAC, words=("device_features", hex(vdpa.mask(MUST + names))))
    l1.set_link(0, False)
    shown("its link is down", MAC, "down")
    l1.set_link(0, True)
    shown("its link is up again", MAC, "up")
    with vmm(l1, node, some, DRIVER_OK, OTHER_MAC):
        shown("a VMM has written a MAC, and takes some features", OTHER_MAC, "up", negotiated=some)
        l1.qmp("announce-self", initial=50, max=50, rounds=1, step=50)
        end = time.monotonic() + PATIENCE
        while "link_announce true" not in l1.sh("vdpa dev config show v") and time.monotonic() < end:
            time.sleep(0.2)
        shown("the device is to announce itself", OTHER_MAC, "up", True, negotiated=some)
    shown("the VMM has gone", MAC, "up")
    l1.sh(f"vdpa dev set name v mac {OTHER_MAC}")
    shown("another MAC is set", OTHER_MAC, "up")
    l1.sh("vdpa dev del v")


def unasked(t, l1):
    """Statistics that there are none of, and of queues that nobody uses."""
    def refused(words, why):
        done = l1.run(["sh", "-c", f"vdpa dev vstats show {words}"])
        if not t.ok(done.returncode and why in done.stderr, f"`vdpa dev vstats show {words}` fails: {why}"):
            t.note(done.stdout + done.stderr)

    node = l2.take_over(l1, 0, "v", mac="", words=("max_vqp", "1"))
    refused("v qidx 0", "feature negotiation not complete")
    with vmm(l1, node):
        refused("v qidx 3", "virtqueue 3: there are 3")
        refused("v", "Invalid argument")
        # Without MQ the kernel does not tell how many pairs there are, and vdpa(8) takes that for none
        for n, wanted in enumerate((stats("control_vq"), stats("tx"), stats("rx", commands=[0] * len(CLASSES)))):
            prints(t, l1, "a control virtqueue without MQ", f"dev vstats show v qidx {n}", "vstats", {"v": wanted})
    l1.sh("vdpa dev del v")


def packets(l1, name):
    """What L1's kernel has received and sent."""
    return [int(l1.sh(f"cat /sys/class/net/{name}/statistics/{kind}_packets")) for kind in ("rx", "tx")]


def counted(l1, since):
    """What everybody else has counted of the device's queues: so the driver should have, too."""
    kicks = [int(rest.split()[2], 16) for _, _, rest in l1.events("virtio_pci_notify_write", since=since)]
    lines = l1.sh(f"grep -F 'virtio_lm_vdpa[{l1.pci(0)}]-vq' /proc/interrupts").splitlines()
    calls = [sum(map(int, line.split()[1:1 + l1.config.cpus])) for line in lines]
    path = "/machine/peripheral/vdpa0/virtio-backend"
    rings = [l1.qmp("x-query-virtio-queue-status", path=path, queue=n) for n in range(4)]
    queues = [stats(kind, kicks.count(n), calls[n], rings[n]["last-avail-idx"], used=rings[n]["used-idx"])
              for n, kind in enumerate(("rx", "tx", "rx", "tx"))]
    commands = [0] * len(CLASSES)
    for _, _, rest in l1.events("virtio_lm_ctrl", since=since):
        commands[int(re.search(r"class (\d+)", rest)[1])] += 1
    errors = sum(not rest.endswith("ack 0\n") for _, _, rest in l1.events("virtio_lm_ctrl_done", since=since))
    # L1's kernel kicks for each command, and polls for its end
    return queues + [stats("control_vq", sum(commands), 0, sum(commands), commands, errors)]


def counters(t, l1):
    """L1's own kernel drives the device, with two pairs and a control virtqueue."""
    l1.qmp("trace-event-set-state", name="virtio_pci_notify_write", enable=True)
    since = time.time()
    l2.take_over(l1, 0, "v", mac="")
    # not before: it would have the device once already, and indices begin anew with each driver
    l1.sh("modprobe virtio_vdpa")
    vdpa.bind(l1, "virtio_vdpa", "v")
    nic = f"/sys/bus/pci/devices/{l1.pci(0)}/virtio*"
    name = l1.sh(f"ls {nic}/net").strip()
    bridge = subprocess.run(["ip", "-j", "link", "show", "br0"], stdout=subprocess.PIPE, check=True).stdout
    # neither end is to send by itself while the counters are read: no IPv6, and no ARP
    l1.sh(f"""ip addr add {l2.address}/24 dev {name}
        for path in all default {name}; do echo 1 >/proc/sys/net/ipv6/conf/$path/disable_ipv6; done
        ip link set {name} up
        ip neigh replace {l2.peer_address} lladdr {json.loads(bridge)[0]["address"]} dev {name} nud permanent
        ethtool -L {name} combined 2
        ip link set {name} address {OTHER_MAC} promisc on
        ip link add link {name} name v5 type vlan id 5 && ip link set v5 up""")
    net.ip("neigh", "replace", l2.address, "lladdr", OTHER_MAC, "dev", "br0", "nud", "permanent")
    t.equal(ping(l2.address, PINGS, 0.02)[0], [], "a guest has the device, and its network")
    l1.misbehave(0, ctrl_error_every=1)
    failed = l1.run(["ethtool", "-L", name, "combined", "1"]).returncode
    t.ok(failed, "the device refuses one of its commands")
    l1.misbehave(0, ctrl_error_every=0)

    bits = l1.sh(f"cat {nic}/features").strip()
    negotiated = sum(1 << n for n, bit in enumerate(bits) if bit == "1")
    prints(t, l1, "a guest has it", "dev config show v", "config",
           {"v": config(OTHER_MAC, "up", pairs=2, negotiated=negotiated)})

    end = time.monotonic() + PATIENCE
    while True:
        want, seen = counted(l1, since), packets(l1, name)
        have = [json.loads(l1.sh(f"vdpa -jp dev vstats show v qidx {n}"))["vstats"]["v"] for n in range(len(want))]
        used = [have[n]["used_idx"] + have[n + 2]["used_idx"] for n in range(2)]
        if (have, used) == (want, seen) or time.monotonic() > end:
            break
        time.sleep(0.2)
    t.ok(want[1]["kicks"] and want[0]["calls"] and min(seen) >= PINGS, "there is something to count")
    t.equal(used, seen, "each packet that the guest has received and sent is a used buffer")
    for n, fields in enumerate(want):
        prints(t, l1, "a guest has it", f"dev vstats show v qidx {n}", "vstats", {"v": fields})
    l1.sh("vdpa dev del v")


with tap.Tap() as t:
    props = ";".join(f"{kselftest.PROPS},{more}" for more, _, _ in FUNCTIONS)
    with tap.make_lab(devices=len(FUNCTIONS), queues=2, device_props=props, vdpa_modules="stock") as lab:
        l1 = lab.l1s[0]
        t.note(l1.sh("modprobe vdpa && vdpa -V"))
        host = [host_features(l1, n) for n in range(len(FUNCTIONS))]
        defaults(t, l1, host)
        for kind in kinds(host):
            one_kind(t, l1, *kind)
        changes(t, l1)
        unasked(t, l1)
        counters(t, l1)
        t.clean_logs(lab, REFUSED)
