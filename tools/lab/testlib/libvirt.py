# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's libvirt in an L1, and an L2 that is its domain, of samples/libvirt/l2.xml."""
import shlex
import xml.etree.ElementTree as ET

from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import dirty_log_of, l2
from vlm.machine import FIRMWARE, nested_kvm

from . import tap

SAMPLE = "/virtio-lm/src/samples/libvirt/l2.xml"
QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"

# Who QEMU is, as the packages have it
USERS = """
getent group kvm >/dev/null || groupadd --system kvm
groupadd --gid 64055 libvirt-qemu
useradd --system --uid 64055 --gid kvm --groups libvirt-qemu --home-dir /var/lib/libvirt libvirt-qemu
"""
# What its packages do when they are installed, where a package's folder is not the root; what udev does to
# /dev/kvm; and a daemon that the other L1 reaches. No AppArmor: its profiles are in the package, and their
# parser is not in an L1.
INSTALL = USERS + """
cd "$1"
for folder in usr/lib/x86_64-linux-gnu/libvirt usr/lib/libvirt usr/share/libvirt; do
	mkdir -p /$folder
	mount --bind $folder /$folder
done
ln -sf "$1"/usr/bin/virsh "$1"/usr/bin/virt-xml-validate "$1"/usr/bin/xmllint /usr/bin
echo "$1"/usr/lib/x86_64-linux-gnu >/etc/ld.so.conf.d/libvirt.conf
ldconfig
chgrp kvm /dev/kvm
chmod 660 /dev/kvm
mkdir -p /etc/libvirt
cat >/etc/libvirt/qemu.conf <<-'END'
	security_driver = "none"
	stdio_handler = "file"
END
cat >/etc/libvirt/libvirtd.conf <<-'END'
	auth_unix_rw = "none"
	listen_tls = 0
	listen_tcp = 1
	auth_tcp = "none"
END
setsid "$1"/usr/sbin/libvirtd --listen </dev/null >/virtio-lm/run/libvirtd.log 2>&1 &
tries=0
until virsh --connect qemu:///system version >/dev/null 2>&1; do
	[ $((tries += 1)) -le 120 ] || { tail -n 3 /virtio-lm/run/libvirtd.log >&2; exit 1; }
	sleep 1
done
# where the lab looks for L2's QEMU
ln -sf /run/libvirt/qemu/l2.pid /run/l2.pid
"""


def install(l1):
    """Have the daemon run in an L1."""
    l1.sh(f"{nested_kvm()}; set -- {tap.folder('libvirt')}\n{INSTALL}")


def virsh(l1, *words, timeout=PATIENCE):
    """What virsh says in an L1; LabError if it fails."""
    return l1.sh(shlex.join(["virsh", "--connect", "qemu:///system", *words]), timeout=timeout)


def domain(lab, emulator):
    """The sample, with the lab's kernel, that emulator, and files that the lab reads."""
    c = lab.config
    tree = ET.parse(SAMPLE)
    root = tree.getroot()
    for path, text in (("os/kernel", f"{c.kernel}/vmlinux"), ("os/initrd", f"{c.kernel}/l2.gz"),
                       ("os/cmdline", l2.kernel_words(c)), ("devices/emulator", emulator),
                       ("memory", str(c.l2_memory))):
        root.find(path).text = text
    root.find("devices/serial/source").set("path", "/virtio-lm/run/l2.console.log")
    serial = ET.SubElement(root.find("devices"), "serial", type="file")
    ET.SubElement(serial, "source", path="/virtio-lm/run/l2.agent.log", append="on")
    ET.SubElement(serial, "target", port="1")
    # an emulator that is not installed does not find the firmware
    line = ET.SubElement(root, f"{{{QEMU_NS}}}commandline")
    for word in FIRMWARE:
        ET.SubElement(line, f"{{{QEMU_NS}}}arg", value=word)
    ET.register_namespace("qemu", QEMU_NS)
    return ET.tostring(root, encoding="unicode")


def start(l1, text):
    """Define that domain, as a valid one, and start it."""
    with open(f"{l1.share}/l2.xml", "w", encoding="utf-8") as file:
        file.write(text)
    l1.sh("rm -f /virtio-lm/run/l2.*.log; virt-xml-validate /virtio-lm/run/l2.xml domain")
    virsh(l1, "create", "/virtio-lm/run/l2.xml", timeout=PATIENCE)


def migrate(src, dst):
    """virsh migrate --live, by the daemons of both."""
    virsh(src, "migrate", "--live", "l2", f"qemu+tcp://{dst.address}/system",
          "--migrateuri", f"tcp://{dst.address}", timeout=PATIENCE)
    if l2.alive(src) or not l2.alive(dst):
        raise LabError(f"libvirt has moved L2, and it is not in {dst.name} alone")


def dirty_log(l1):
    """How the L2 in that L1 migrates, as l2.dirty_log() has it."""
    return dirty_log_of(virsh(l1, "qemu-monitor-command", "--hmp", "l2", "info network"))


def destroy(l1):
    """End the L2 in that L1."""
    virsh(l1, "destroy", "l2")
