# SPDX-License-Identifier: GPL-2.0-or-later
"""An L1 that is a domain of Debian's libvirt in L0, of samples/libvirt/l1.xml."""
import os
import subprocess
import time
import xml.etree.ElementTree as ET

from vlm.config import PATIENCE
from vlm.l1 import L1, LabError, die_with_parent
from vlm.machine import FIRMWARE

from . import tap
from .libvirt import QEMU_NS, USERS

SAMPLE = "/virtio-lm/src/samples/libvirt/l1.xml"
PID = "/run/libvirt/qemu/l1a.pid"

# The tree with libvirt laid over it, as if its packages were installed: the tree itself is not written to.
# QEMU is root, as what L1 has over 9p is all of the tree. The shell is the first process of a PID namespace: its
# wait reaps the QEMUs that libvirt has had tell what they can do, or libvirt waits for their end for ever.
DAEMON = """
mkdir -p "$2/data" "$2/work" "$2/root"
mount -t overlay -o lowerdir="$1":/,upperdir="$2/data",workdir="$2/work" overlay "$2/root"
for folder in dev sys tmp run virtio-lm; do
	mount --rbind "/$folder" "$2/root/$folder"
done
mount -t proc proc "$2/root/proc"
chroot "$2/root" sh -euc "$3"
cat >"$2/root/etc/libvirt/qemu.conf" <<-'END'
	user = "root"
	group = "root"
	security_driver = "none"
	stdio_handler = "file"
	cgroup_device_acl = [ "/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom",
			      "/dev/ptmx", "/dev/userfaultfd", "/dev/kvm", "/dev/net/tun" ]
END
echo 'auth_unix_rw = "none"' >"$2/root/etc/libvirt/libvirtd.conf"
chroot "$2/root" /usr/sbin/libvirtd &
wait
"""


class Daemon:
    """libvirtd in L0, in the network that its L1 is in."""

    def __init__(self):
        self.folder = tap.folder("libvirt")
        self.log = f"{tap.run_dir()}/libvirtd.log"
        self.proc = None

    def virsh(self, *words, timeout=PATIENCE):
        """What virsh says; LabError if it fails."""
        done = subprocess.run([f"{self.folder}/usr/bin/virsh", "--connect", "qemu:///system", *words], check=False,
                              env={**os.environ, "LD_LIBRARY_PATH": f"{self.folder}/usr/lib/x86_64-linux-gnu"},
                              capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise LabError(f"virsh {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start(self):
        """Start it, and wait until it answers."""
        with open(self.log, "w", encoding="utf-8") as file:
            self.proc = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", DAEMON,
                                          "sh", self.folder, "/tmp/libvirt", USERS], stdin=subprocess.DEVNULL,
                                         stdout=file, stderr=file, preexec_fn=die_with_parent)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.virsh("version")
                return
            except LabError as err:
                if self.proc.poll() is not None or time.monotonic() > end:
                    raise LabError(f"libvirtd in L0: {err}, see {self.log}") from err
                time.sleep(0.2)

    def stop(self):
        """End it, and all that it has started."""
        self.proc.kill()
        self.proc.wait()


class Domain:
    """The domain's QEMU, as an L1 knows it."""

    def __init__(self, daemon, text):
        self.daemon = daemon
        path = f"{tap.run_dir()}/l1a.xml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        daemon.virsh("create", "--validate", path, timeout=PATIENCE)

    def poll(self):
        """None as long as it runs."""
        return None if os.path.exists(PID) else 0

    def kill(self):
        """End it, and its daemon."""
        self.daemon.stop()

    def wait(self):
        """libvirt has waited."""


class LibvirtL1(L1):
    """An L1 of that kind."""

    def __init__(self, config, run):
        super().__init__(config, 0, run)
        self.daemon = Daemon()

    def domain(self):
        """The sample, with what of it is the lab's own: kernel, folders and firmware."""
        c = self.config
        tree = ET.parse(SAMPLE)
        root = tree.getroot()
        usual = self.command_line()
        for path, text in (("os/kernel", f"{c.kernel}/vmlinux"), ("os/initrd", f"{c.kernel}/l1.gz"),
                           ("os/cmdline", usual[usual.index("-append") + 1]), ("devices/emulator", c.qemu),
                           ("memory", str(c.memory)), ("vcpu", str(c.cpus))):
            root.find(path).text = text
        root.find("devices/serial/source").set("path", self.serial_log)
        for tag, path, readonly in self.shares():
            share = ET.SubElement(root.find("devices"), "filesystem", accessmode="passthrough", multidevs="remap")
            ET.SubElement(share, "source", dir=path)
            ET.SubElement(share, "target", dir=tag)
            if readonly == "on":
                ET.SubElement(share, "readonly")
        line = root.find(f"{{{QEMU_NS}}}commandline")
        for word in FIRMWARE:
            ET.SubElement(line, f"{{{QEMU_NS}}}arg", value=word)
        ET.register_namespace("qemu", QEMU_NS)
        return ET.tostring(root, encoding="unicode")

    def launch(self, *more):
        """Start its QEMU."""
        self.log = "/tmp/libvirt/data/var/log/libvirt/qemu/l1a.log"
        self.daemon.start()
        self.started = time.monotonic()
        self.proc = Domain(self.daemon, self.domain())

    def peak_mib(self):
        """Not known: libvirtd's processes are in a PID namespace of their own."""
        return None

    def pci(self, function):
        """The PCI address of its vdpa function, which its subsystem id tells."""
        return self.sh("grep -l 0x4c4d /sys/bus/pci/devices/*/subsystem_device").split("/")[5]
