# SPDX-License-Identifier: GPL-2.0-or-later
"""The L2 guest: its QEMU in an L1, on /dev/vhost-vdpa-N; its migration to another L1."""
import dataclasses
import re
import shlex
import socket
import time

from . import net
from .l1 import LabError
from .qmp import QMP, QMPError
from .traffic import agent_mib

MAC = "52:54:00:77:00:02"
# what users have: without any of our patches
DEBIAN_QEMU = "/usr/bin/qemu-system-x86_64"
# L2 migrates between QEMUs of several versions: the newest machine that all of them have. Without
# vmport, which has Debian's send the state of a mouse that the lab's does not have
Q35 = ("-M", "pc-q35-10.0,vmport=off", "-bios", "qboot.rom", "-serial", "chardev:agent")
# no PCI: its devices are virtio-mmio's, which L2's kernel finds by ACPI
MICROVM = ("-M", "microvm", "-bios", "bios-microvm.bin",
           "-device", "isa-serial,chardev=agent,index=1,iobase=0x2f8,irq=3")
# its transports are legacy ones without that, which no vDPA device can serve
MODERN_MMIO = "-global virtio-mmio.force-legacy=false"
QMP_PORT = 4444
CONSOLE_PORT = 4445
MIGRATION_PORT = 4446
BOOT_SECONDS = 240
CONSOLE_SECONDS = 60
AGENT_LINE_SECONDS = 30
MIGRATION_SECONDS = 240
UP_LINE = "lab: l2 is up"
NODE = "/dev/vhost-vdpa-0"
# a sync of the log, which tells how many pages the device has dirtied since the last one
PAGES_EVENT = "vhost_vdpa_log_sync"
BANDWIDTH = 128 << 20
ENDED = ("completed", "failed", "cancelled")


def take_over(l1, function=0, name="vdpa0", mac=MAC, words=()):
    """Give L1's function to the driver and make the vDPA device of it; its /dev node.

    Both ends of a migration get L2's MAC: it is L2's address that moves. words are what else
    `vdpa dev add` is to know.
    """
    c = l1.config
    driver = (["-s", c.log_modules] if c.log_modules and c.vdpa_modules == "log" else
              ["-d", c.driver] if c.driver else [])
    words = ["/virtio-lm/src/tools/lab/l1-vdpa", *driver, l1.pci(function), name, *words]
    if mac:
        words += ["mac", mac]
    return l1.sh(shlex.join(words)).strip().splitlines()[-1]


@dataclasses.dataclass
class Migrated:
    """What one migration took."""
    source: str
    destination: str
    dirty_log: str          # how it was done: device, svq, or unknown to L2's QEMU
    total_ms: int           # by the source's own account
    downtime_ms: int
    ram_bytes: int
    dirty_sync_count: int
    unserved_ms: float      # from the source's last suspend to the destination's last ring enable
    device_pages: int       # that the device dirtied, by its log; -1 without it

    def __str__(self):
        way = {"device": "device log", "svq": "shadow virtqueues"}.get(self.dirty_log, self.dirty_log)
        return (f"{self.source} -> {self.destination}, {way}: {self.total_ms / 1000:.1f} s in all, "
                f"downtime {self.downtime_ms} ms, {self.ram_bytes / 2**20:.0f} MiB sent in "
                f"{self.dirty_sync_count} passes")


def netdev(node, dirty_log, more=""):
    """QEMU's words for L2's NIC: its virtqueues are the vDPA device's, and QEMU has the rest. more:
    properties of it."""
    way = "" if dirty_log == "auto" else f",x-dirty-log={dirty_log}"
    return ["-netdev", f"vhost-vdpa,id=n0,vhostdev={node}{way}", "-device", f"virtio-net-pci,netdev=n0,romfile={more}"]


def mmio(node):
    """The same, for a NIC of virtio-mmio."""
    return [*netdev(node, "auto")[:2], "-device", "virtio-net-device,netdev=n0"]


def generic_device(node):
    """QEMU's words for an L2 whose NIC is all of the vDPA device: QEMU does not know what it is."""
    return ["-device", f"vhost-vdpa-device-pci,vhostdev={node}"]


def command_line(l1, nic, incoming, machine):
    """L1's QEMU for L2."""
    c = l1.config
    agent = f"{net.L0_DATA},{c.rate},{agent_mib(c)},{c.pages}"
    args = [c.l2_qemu, "-L", "/usr/share/qemu", "-L", "/usr/share/seabios",
            "-name", "l2", "-accel", "kvm", "-cpu", "host",
            "-smp", "1", "-m", f"{c.l2_memory}M", "-nodefaults", "-display", "none",
            "-vga", "none", "-no-reboot",
            "-chardev", f"socket,id=console,host={l1.address},port={CONSOLE_PORT},server=on,"
                        f"wait=off,logfile=/virtio-lm/run/l2.console.log,logappend=on",
            "-serial", "chardev:console",
            "-chardev", "file,id=agent,path=/virtio-lm/run/l2.agent.log", *machine,
            "-qmp", f"tcp:{l1.address}:{QMP_PORT},server=on,wait=off",
            "-kernel", c.l2_kernel or f"{c.kernel}/vmlinux",
            "-initrd", c.l2_initrd or f"{c.kernel}/l2.gz",
            # zeroed when they are allocated, receive buffers would be dirtied by L2's CPU, too, and
            # a device that forgets their bits would hardly be found out
            "-append", f"console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 quiet "
                       f"lab.address={net.L2_DATA} lab.agent={agent} {c.l2_append}".strip(),
            "-D", "/virtio-lm/run/l2.trace.log", "-trace", "vhost_vdpa_log_*", *nic]
    if incoming:
        args += ["-incoming", "defer"]
    return args + shlex.split(c.l2_qemu_args)


def start(l1, node=NODE, incoming=False, dirty_log=None, nic=None, machine=Q35):
    """Start L2 in an L1, or the empty shell of one that waits for a migration. dirty_log: how
    it will migrate away (auto, device, svq); None: as the lab is configured. nic: QEMU's words for
    it, if it is not the usual netdev(). machine: for what its NIC is plugged into."""
    if alive(l1):
        raise LabError(f"{l1.name} runs an L2 already: stop it first")
    nic = nic or netdev(node, dirty_log or l1.config.dirty_log)
    line = shlex.join(command_line(l1, nic, incoming, machine))
    # L2 lives on nested virtualization, which the L1 has if its CPU shows it
    l1.sh("[ -c /dev/kvm ] || { modprobe kvm ignore_msrs=1 report_ignored_msrs=0; "
          "if grep -qw svm /proc/cpuinfo; then modprobe kvm_amd nested=0; else modprobe kvm_intel; fi; }; "
          "rm -f /virtio-lm/run/l2.*.log; ulimit -l unlimited; "
          f"setsid {line} </dev/null >/virtio-lm/run/l2.qemu.log 2>&1 & echo $! >/run/l2.pid",
          timeout=240)
    try:
        qmp(l1).close()
    except QMPError as err:
        raise LabError(f"L2's QEMU did not start in {l1.name}: {complaint(l1)}") from err


def console(l1, line):
    """Give the shell on the console of the L2 in that L1 a line. What it answers is in the L2's log."""
    with socket.create_connection((l1.address, CONSOLE_PORT), timeout=CONSOLE_SECONDS) as conn:
        conn.sendall(line.encode() + b"\n")
        # QEMU takes what has come before the end of the connection
        conn.shutdown(socket.SHUT_WR)
        while conn.recv(4096):
            pass


def boots(*l1s):
    """How often L2 has booted in those L1s, where it was one after the other."""
    text = ""
    for l1 in l1s:
        try:
            with open(f"{l1.share}/l2.console.log", encoding="utf-8", errors="replace") as file:
                text += file.read()
        except FileNotFoundError:
            pass
    return text.count(UP_LINE)


def qmp(l1, timeout=60):
    """QMP of the L2 in that L1."""
    return QMP((l1.address, QMP_PORT), timeout)


def said(l1):
    """The output of the QEMU of the L2 that is in that L1, or was last."""
    with open(f"{l1.share}/l2.qemu.log", encoding="utf-8", errors="replace") as file:
        return file.read()


def complaint(l1):
    """The last line of that."""
    lines = said(l1).strip().splitlines()
    return lines[-1] if lines else "it has said nothing"


def alive(l1):
    """Does an L2's QEMU run in that L1?"""
    return l1.run(["sh", "-c", "kill -0 $(cat /run/l2.pid)"]).returncode == 0


def running(l1):
    """The status of the L2 in that L1: "running", "inmigrate", ... or None."""
    if not alive(l1):
        return None
    try:
        conn = qmp(l1)
        try:
            return conn.cmd("query-status")["status"]
        finally:
            conn.close()
    except QMPError:
        # it has ended meanwhile
        if not alive(l1):
            return None
        raise


def wait_up(l1, count=1):
    """Wait until L2 has booted as often in that L1; the seconds it took from now."""
    begin = time.monotonic()
    while boots(l1) < count:
        if not alive(l1):
            raise LabError(f"L2 ended while booting in {l1.name}: {complaint(l1)}")
        if time.monotonic() > begin + BOOT_SECONDS:
            raise LabError(f"L2 not up within {BOOT_SECONDS} s, see {l1.share}/l2.console.log")
        time.sleep(0.5)
    return time.monotonic() - begin


def agent_count(l1, name, expected):
    """The agent's own counter of that name, from the second serial port of the L2 in that L1.

    It is printed every ten seconds: wait a while for what is expected.
    """
    end = time.monotonic() + AGENT_LINE_SECONDS
    while True:
        with open(f"{l1.share}/l2.agent.log", encoding="ascii", errors="replace") as file:
            lines = [line for line in file.read().split("\n")[:-1] if line.startswith("agent: ")]
        pairs = dict(word.split("=", 1) for line in lines[-1:] for word in line.split() if "=" in word)
        value = int(pairs.get(name, -1))
        if value == expected or time.monotonic() > end:
            return value
        time.sleep(0.2)


def stop(l1):
    """End the L2 in that L1."""
    l1.sh("[ ! -f /run/l2.pid ] || { kill -9 $(cat /run/l2.pid) 2>/dev/null && "
          "while kill -0 $(cat /run/l2.pid) 2>/dev/null; do sleep 0.1; done; rm -f /run/l2.pid; }")


def dirty_log(l1):
    """How the L2 in that L1 migrates, by its QEMU's word: device or svq; "unknown" where that
    QEMU knows of one way only."""
    conn = qmp(l1)
    try:
        text = conn.cmd("human-monitor-command", command_line="info network")
    finally:
        conn.close()
    found = re.search(r"dirty-log=(\w+)", text)
    return found.group(1) if found else "unknown"


def device_status(l1):
    """What the QEMU of the L2 in that L1 tells of its virtio-net device (x-query-virtio-status)."""
    conn = qmp(l1)
    try:
        paths = [device["path"] for device in conn.cmd("x-query-virtio") if device["name"] == "virtio-net"]
        return conn.cmd("x-query-virtio-status", path=paths[0])
    finally:
        conn.close()


def traced(l1, event):
    """The lines of that event that the QEMU of the L2 in that L1 has traced."""
    try:
        with open(f"{l1.share}/l2.trace.log", encoding="ascii", errors="replace") as file:
            return [line for line in file if line.startswith(event + " ")]
    except FileNotFoundError:
        return []


def set_capabilities(conn, names):
    """Switch the migration capabilities of those names on, and all others off."""
    on = [c["capability"] for c in conn.cmd("query-migrate-capabilities") if c["state"]]
    conn.cmd("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": name in names} for name in dict.fromkeys([*on, *names])])


def wait_migrated(conn):
    """Until a migration at that QEMU, of either direction, is completed."""
    end = time.monotonic() + MIGRATION_SECONDS
    while (info := conn.cmd("query-migrate")).get("status") != "completed":
        if info.get("status") in ENDED:
            raise LabError(f"migration {info['status']}: {info.get('error-desc', 'no reason is given')}")
        if time.monotonic() > end:
            raise LabError(f"migration not completed within {MIGRATION_SECONDS} s: {info}")
        time.sleep(0.05)


class Migration:
    """L2 on its way from one L1 to another, step by step. Use as a context manager.

    capabilities are switched on at both ends, and return-path: without it a migration is "completed"
    when all is sent, whatever the destination makes of that. All others are off. parameters are set
    at the source, as QMP names them.
    to_be: how L2 will migrate from the destination. nic, machine: the destination's, as for start().
    stopped: the destination's QEMU is stopped before it can answer.
    """

    def __init__(self, src, dst, capabilities=(), to_be=None, nic=None, machine=Q35, stopped=False,
                 **parameters):
        self.src = src
        self.dst = dst
        self.way = dirty_log(src)
        start(dst, incoming=True, dirty_log=to_be, nic=nic, machine=machine)
        self.there = qmp(dst)
        self.here = qmp(src)
        # they keep what an earlier migration has set
        for conn in self.here, self.there:
            set_capabilities(conn, ("return-path", *capabilities))
        self.cmd("migrate-set-parameters", **{"max_bandwidth": BANDWIDTH, **parameters})
        uri = f"tcp:{dst.address}:{MIGRATION_PORT}"
        self.there.cmd("migrate-incoming", uri=uri)
        if stopped:
            dst.sh("kill -STOP $(cat /run/l2.pid)")
        self.begin = time.time()
        self.pages = len(traced(src, PAGES_EVENT))
        self.cmd("migrate", uri=uri)

    def cmd(self, command, /, **args):
        """Run a command of the source's QEMU."""
        return self.here.cmd(command, **args)

    def info(self):
        """What the source tells of the migration."""
        return self.cmd("query-migrate")

    def wait(self, *states, seconds=MIGRATION_SECONDS, reached=lambda info: True):
        """Wait until the migration is in one of those states, and reached(info); the info."""
        end = time.monotonic() + seconds
        while True:
            info = self.info()
            if info.get("status") in states and reached(info):
                return info
            if info.get("status") in ENDED:
                raise LabError(f"migration {info['status']}, not {' or '.join(states)}: "
                               f"{info.get('error-desc', complaint(self.src))}")
            if time.monotonic() > end:
                self.cmd("migrate_cancel")
                raise LabError(f"migration not {' or '.join(states)} within {seconds} s: {info}")
            time.sleep(0.05)

    def finish(self):
        """Wait for its good end; the source's QEMU ends. What it took."""
        info = self.wait("completed")
        end = time.monotonic() + MIGRATION_SECONDS
        while (status := self.there.cmd("query-status")["status"]) != "running":
            if time.monotonic() > end:
                raise LabError(f"L2 did not run on in {self.dst.name}, it is {status}: "
                               f"{complaint(self.dst)}")
            time.sleep(0.05)
        suspends = self.src.events("virtio_lm_suspend", since=self.begin)
        enables = self.dst.events("virtio_lm_queue_enabled", since=self.begin)
        unserved = (enables[-1][0] - suspends[-1][0]) * 1000 if suspends and enables else -1
        pages = [int(line.rsplit(" ", 1)[1]) for line in traced(self.src, PAGES_EVENT)[self.pages:]]
        stop(self.src)
        return Migrated(self.src.name, self.dst.name, self.way, info["total-time"],
                        info["downtime"], info["ram"]["transferred"],
                        info["ram"]["dirty-sync-count"], unserved, sum(pages) if pages else -1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.here.close()
        self.there.close()


def migrate(src, dst, to_be=None, nic=None, machine=Q35, **parameters):
    """Move the running L2 from one L1 to another. to_be: how it will migrate from there. nic, machine: as
    for start()."""
    with Migration(src, dst, to_be=to_be, nic=nic, machine=machine, **parameters) as migration:
        return migration.finish()
