# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 guests: each has a QEMU in an L1, on a vDPA device there."""
import contextlib
import re
import shlex
import socket
import time

from . import net
from .config import PATIENCE
from .l1 import LabError
from .machine import FIRMWARE, Q35, nested_kvm
from .qmp import QMP, QMPError

# what users have: without any of our patches
DEBIAN_QEMU = "/usr/bin/qemu-system-x86_64"
# of the first L2; the next one's are so much higher
QMP_PORT = 4444
CONSOLE_PORT = 4445
MIGRATION_PORT = 4446
PORTS = 10
ALIVE_SECONDS = 5
STOPPED_SECONDS = 2
# by its QEMU, for good: KVM could not go on, or L2 has powered off
STOPPED = ("internal-error", "io-error", "guest-panicked", "shutdown")
# then it is looked whether there is a QEMU at all
FIRST_QMP_SECONDS = 20
# for the agent to check and dirty all of its memory once, which is no more than a sixth of L2's
PASS_SECONDS = 4
UP_LINE = "lab: {} is up"
# one for each function that an L1 can have
NAMES = ("l2", "l2b", "l2c", "l2d", "l2e", "l2f", "l2g", "l2h")


def agent_mib(config):
    """How much memory the agent checks, in MiB. Its sockets may take a quarter of a small L2's, its kernel
    has another, and what runs out of memory on a busy host is the agent."""
    return max(1, min(config.l2_memory // 6, config.pages * PASS_SECONDS >> 8))


def generic_device(node):
    """QEMU's words for an L2 whose NIC is all of the vDPA device: QEMU does not know what it is."""
    return ["-device", f"vhost-vdpa-device-pci,vhostdev={node}"]


def dirty_log_of(text):
    """How an L2 migrates, of what its monitor says to `info network`: device or svq; "unknown" where its QEMU
    knows of one way only."""
    found = re.search(r"dirty-log=(\w+)", text)
    return found.group(1) if found else "unknown"


class L2:
    """An L2, by its number. It is on the vDPA device of the L1's function of the same number, which is one after
    the other the device of several L1s: so each method is told of the L1 in which it is."""

    def __init__(self, number):
        self.number = number
        self.name = NAMES[number]
        self.address = net.l2_address(number)
        self.peer_address = net.peer_address(number)
        self.mac = f"52:54:00:77:00:{2 + number:02x}"
        self.device = f"vdpa{number}"
        # where all functions before this one's have such a device, too
        self.node = f"/dev/vhost-vdpa-{number}"
        self.up_line = UP_LINE.format(self.name)
        self.pid_file = f"/run/{self.name}.pid"
        self.console_port = CONSOLE_PORT + PORTS * number
        self.migration_port = MIGRATION_PORT + PORTS * number

    def log(self, l1, what):
        """A log of it: what its console has shown, its agent said, its QEMU said or traced."""
        return f"{l1.share}/{self.name}.{what}.log"

    def take_over(self, l1, function=None, name=None, mac=None, words=()):
        """Give L1's function, the one of L2's number if not said, to the driver, and make the vDPA device of that name
        of it; its /dev node.

        Both ends of a migration get L2's MAC: it is L2's address that moves. With "" the function keeps its own. words
        are what else `vdpa dev add` is to know.
        """
        c = l1.config
        driver = (["-s", c.log_modules] if c.log_modules and c.vdpa_modules == "log" else
                  ["-d", c.driver] if c.driver else [])
        address = l1.pci(self.number if function is None else function)
        words = ["/virtio-lm/src/tools/lab/l1-vdpa", *driver, address, name or self.device, *words]
        if mac != "":
            words += ["mac", mac or self.mac]
        return l1.sh(shlex.join(words)).strip().splitlines()[-1]

    def netdev(self, node, dirty_log, more="", pairs=1):
        """QEMU's words for L2's NIC: its virtqueues are the vDPA device's, and QEMU has the rest, the MAC,
        too, which it gives the device. more: properties of it. pairs: of queues."""
        way = "" if dirty_log == "auto" else f",x-dirty-log={dirty_log}"
        if pairs > 1:
            way += f",queues={pairs}"
            more += ",mq=on"
        return ["-netdev", f"vhost-vdpa,id=n0,vhostdev={node}{way}",
                "-device", f"virtio-net-pci,netdev=n0,mac={self.mac},romfile={more}"]

    def mmio(self, node):
        """The same, for a NIC of virtio-mmio."""
        return [*self.netdev(node, "auto")[:2], "-device", f"virtio-net-device,netdev=n0,mac={self.mac}"]

    def kernel_words(self, config):
        """The command line of its kernel."""
        # zeroed when they are allocated, receive buffers would be dirtied by L2's CPU, too, and
        # a device that forgets their bits would hardly be found out
        return ("console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 quiet "
                f"lab.name={self.name} lab.address={self.address} "
                f"lab.agent={self.peer_address},{config.rate},{agent_mib(config)},{config.pages}")

    def command_line(self, l1, nic, incoming, machine):
        """L1's QEMU for L2."""
        c = l1.config
        args = [c.l2_qemu, *FIRMWARE, "-name", self.name, "-accel", "kvm", "-cpu", "host",
                "-smp", "1", "-m", f"{c.l2_memory}M", "-nodefaults", "-display", "none",
                "-vga", "none", "-no-reboot",
                "-chardev", f"socket,id=console,host={l1.address},port={self.console_port},server=on,"
                            f"wait=off,logfile=/virtio-lm/run/{self.name}.console.log,logappend=on",
                "-serial", "chardev:console",
                "-chardev", f"file,id=agent,path=/virtio-lm/run/{self.name}.agent.log", *machine,
                "-qmp", f"tcp:{l1.address}:{QMP_PORT + PORTS * self.number},server=on,wait=off",
                "-kernel", c.l2_kernel or f"{c.kernel}/vmlinux",
                "-initrd", c.l2_initrd or f"{c.kernel}/l2.gz",
                "-append", f"{self.kernel_words(c)} {c.l2_append}".strip(),
                "-D", f"/virtio-lm/run/{self.name}.trace.log", "-trace", "vhost_vdpa_log_*", *nic]
        if incoming:
            args += ["-incoming", "defer"]
        return args + shlex.split(c.l2_qemu_args)

    def start(self, l1, node=None, incoming=False, dirty_log=None, nic=None, machine=Q35):
        """Start L2 in an L1, or the empty shell of one that waits for a migration. dirty_log: how
        it will migrate away (auto, device, svq); None: as the lab is configured. nic: QEMU's words for
        it, if it is not the usual self.netdev(). machine: for what its NIC is plugged into."""
        if self.alive(l1):
            raise LabError(f"{l1.name} runs {self.name} already: stop it first")
        nic = nic or self.netdev(node or self.node, dirty_log or l1.config.dirty_log)
        line = shlex.join(self.command_line(l1, nic, incoming, machine))
        # L2 lives on nested virtualization, which the L1 has if its CPU shows it
        l1.sh(f"{nested_kvm()}; "
              f"rm -f /virtio-lm/run/{self.name}.*.log; ulimit -l unlimited; "
              f"setsid {line} </dev/null >/virtio-lm/run/{self.name}.qemu.log 2>&1 & echo $! >{self.pid_file}")
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.qmp(l1, FIRST_QMP_SECONDS).close()
                return
            except QMPError as err:
                if time.monotonic() < end and self.alive(l1):
                    continue
                # it may take a while to end, and the next one is not to find it there
                self.stop(l1)
                raise LabError(f"L2's QEMU did not start in {l1.name}: {self.complaint(l1)}") from err

    def console(self, l1, line):
        """Give the shell on the console of the L2 in that L1 a line. What it answers is in the L2's log."""
        with socket.create_connection((l1.address, self.console_port), timeout=PATIENCE) as conn:
            conn.sendall(line.encode() + b"\n")
            # QEMU takes what has come before the end of the connection
            conn.shutdown(socket.SHUT_WR)
            while conn.recv(4096):
                pass

    def shown(self, l1):
        """What the console of the L2 in that L1, or of the last one there, has shown; "" where there was none."""
        try:
            with open(self.log(l1, "console"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def boots(self, *l1s):
        """How often L2 has booted in those L1s, in which it was one after the other. The line that tells may begin in
        one L1's log and end in the next one's."""
        return "".join(map(self.shown, l1s)).count(self.up_line)

    def qmp(self, l1, timeout=PATIENCE):
        """QMP of the L2 in that L1."""
        return QMP((l1.address, QMP_PORT + PORTS * self.number), timeout)

    def said(self, l1):
        """The output of the QEMU of the L2 that is in that L1, or was last."""
        with open(self.log(l1, "qemu"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def complaint(self, l1):
        """The last line of that."""
        lines = self.said(l1).strip().splitlines()
        return lines[-1] if lines else "it has said nothing"

    def alive(self, l1):
        """Does an L2's QEMU run in that L1?"""
        return l1.run(["sh", "-c", f"kill -0 $(cat {self.pid_file})"]).returncode == 0

    def running(self, l1):
        """The status of the L2 in that L1: "running", "inmigrate", ... or None."""
        end = time.monotonic() + PATIENCE
        # it may end meanwhile
        while self.alive(l1):
            try:
                with contextlib.closing(self.qmp(l1, FIRST_QMP_SECONDS)) as conn:
                    return conn.cmd("query-status")["status"]
            except QMPError:
                if time.monotonic() > end:
                    raise
        return None

    def stopped(self, l1):
        """Has its QEMU in that L1 stopped it for good? False as well where nothing answers at once: QMP is for
        one at a time, and libvirt's is elsewhere."""
        try:
            with contextlib.closing(self.qmp(l1, STOPPED_SECONDS)) as conn:
                return conn.cmd("query-status")["status"] in STOPPED
        except QMPError:
            return False

    def wait_up(self, l1, count=1):
        """Wait until L2 has booted as often in that L1; the seconds it took from now."""
        begin = looked = time.monotonic()
        while self.boots(l1) < count:
            now = time.monotonic()
            if now > begin + PATIENCE:
                raise LabError(f"L2 not up within {PATIENCE} s. {self.stuck(l1)}; see {self.log(l1, 'console')}")
            # a command in L1 takes time that L2 does not have then
            if now > looked + ALIVE_SECONDS:
                if not self.alive(l1):
                    raise LabError(f"L2 ended while booting in {l1.name}: {self.complaint(l1)}")
                if self.stopped(l1):
                    raise LabError(f"L2 was stopped while booting in {l1.name}: {self.stuck(l1)}; "
                                   f"{self.complaint(l1)}")
                looked = time.monotonic()
            time.sleep(0.2)
        return time.monotonic() - begin

    def stuck(self, l1):
        """What can be told of an L2 in that L1 that does not get on: twice where its CPU is, its interrupts, and
        the end of its console."""
        def monitor(line):
            return conn.cmd("human-monitor-command", command_line=line)

        try:
            with contextlib.closing(self.qmp(l1, FIRST_QMP_SECONDS)) as conn:
                cpu = []
                for _ in range(2):
                    cpu += re.findall(r"\b(?:[ER]IP|[ER]FL|HLT)=\w+", monitor("info registers"))
                    time.sleep(1)
                timer = re.findall(r"^(?:LVTT|Timer|ISR|IRR)\b.*", monitor("info lapic"), re.M)
                status = conn.cmd("query-status")["status"]
        except QMPError as err:
            return f"its QEMU does not answer: {err}"
        return f"{status}, {' '.join(cpu)}, {', '.join(timer)}, last on its console: {self.shown(l1)[-200:]!r}"

    def agent_count(self, l1, name, expected):
        """The agent's own counter of that name, from the second serial port of the L2 in that L1.

        It is printed every ten seconds: wait a while for what is expected.
        """
        end = time.monotonic() + PATIENCE
        while True:
            with open(self.log(l1, "agent"), encoding="ascii", errors="replace") as file:
                lines = [line for line in file.read().split("\n")[:-1] if line.startswith("agent: ")]
            pairs = dict(word.split("=", 1) for line in lines[-1:] for word in line.split() if "=" in word)
            value = int(pairs.get(name, -1))
            if value == expected or time.monotonic() > end:
                return value
            time.sleep(0.2)

    def stop(self, l1):
        """End the L2 in that L1."""
        l1.sh(f"[ ! -f {self.pid_file} ] || {{ kill -9 $(cat {self.pid_file}) 2>/dev/null && "
              f"while kill -0 $(cat {self.pid_file}) 2>/dev/null; do sleep 0.1; done; rm -f {self.pid_file}; }}")

    def dirty_log(self, l1):
        """How the L2 in that L1 migrates, by its QEMU's word: device or svq; "unknown" where that
        QEMU knows of one way only."""
        conn = self.qmp(l1)
        try:
            text = conn.cmd("human-monitor-command", command_line="info network")
        finally:
            conn.close()
        return dirty_log_of(text)

    def device_status(self, l1):
        """What the QEMU of the L2 in that L1 tells of its virtio-net device (x-query-virtio-status)."""
        conn = self.qmp(l1)
        try:
            paths = [device["path"] for device in conn.cmd("x-query-virtio") if device["name"] == "virtio-net"]
            return conn.cmd("x-query-virtio-status", path=paths[0])
        finally:
            conn.close()

    def traced(self, l1, event):
        """The lines of that event that the QEMU of the L2 in that L1 has traced."""
        try:
            with open(self.log(l1, "trace"), encoding="ascii", errors="replace") as file:
                return [line for line in file if line.startswith(event + " ")]
        except FileNotFoundError:
            return []


# the first one, which most labs have alone
l2 = L2(0)
