# SPDX-License-Identifier: GPL-2.0-or-later
"""The L2 guest: its QEMU in an L1, on /dev/vhost-vdpa-N; its migration to another L1."""
import dataclasses
import shlex
import time

from . import net
from .l1 import LabError
from .qmp import QMP, QMPError

MAC = "52:54:00:77:00:02"
QMP_PORT = 4444
CONSOLE_PORT = 4445
MIGRATION_PORT = 4446
BOOT_SECONDS = 240
# pages per second that the agent checks and dirties: all of its memory in 8 s
AGENT_PAGES = 2000
AGENT_LINE_SECONDS = 20
MIGRATION_SECONDS = 240
UP_LINE = "lab: l2 is up"


def take_over(l1, function=0, name="vdpa0", mac=MAC, words=()):
    """Give L1's function to the driver and make the vDPA device of it; its /dev node.

    Both ends of a migration get L2's MAC: it is L2's address that moves. words are what else
    `vdpa dev add` is to know.
    """
    driver = ["-d", l1.config.driver] if l1.config.driver else []
    words = ["/virtio-lm/src/tools/lab/l1-vdpa", *driver, l1.pci(function), name, *words]
    if mac:
        words += ["mac", mac]
    return l1.sh(shlex.join(words)).strip().splitlines()[-1]


@dataclasses.dataclass
class Migrated:
    """What one migration took, in milliseconds, by the source's own account."""
    source: str
    destination: str
    total_ms: int
    downtime_ms: int
    setup_ms: int
    ram_bytes: int
    dirty_sync_count: int

    def __str__(self):
        return (f"{self.source} -> {self.destination}: {self.total_ms / 1000:.1f} s in all, "
                f"downtime {self.downtime_ms} ms, {self.ram_bytes / 2**20:.0f} MiB sent in "
                f"{self.dirty_sync_count} passes")


def command_line(l1, node, incoming):
    """L1's QEMU for L2."""
    c = l1.config
    agent = f"{net.L0_DATA},{c.rate},{c.l2_memory // 4},{AGENT_PAGES}"
    args = [c.l2_qemu or c.qemu, "-L", "/usr/share/qemu", "-L", "/usr/share/seabios",
            "-name", "l2", "-M", "q35", "-bios", "qboot.rom", "-accel", "kvm", "-cpu", "host",
            "-smp", "1", "-m", f"{c.l2_memory}M", "-nodefaults", "-display", "none",
            "-vga", "none", "-no-reboot",
            "-chardev", f"socket,id=console,host={l1.address},port={CONSOLE_PORT},server=on,"
                        f"wait=off,logfile=/virtio-lm/run/l2.console.log,logappend=on",
            "-serial", "chardev:console",
            "-serial", "file:/virtio-lm/run/l2.agent.log",
            "-qmp", f"tcp:{l1.address}:{QMP_PORT},server=on,wait=off",
            "-kernel", c.l2_kernel or f"{c.kernel}/vmlinux",
            "-initrd", c.l2_initrd or f"{c.kernel}/l2.gz",
            "-append", f"console=ttyS0 panic=-1 mitigations=off quiet "
                       f"lab.address={net.L2_DATA} lab.agent={agent} {c.l2_append}".strip(),
            "-netdev", f"vhost-vdpa,id=n0,vhostdev={node}",
            "-device", "virtio-net-pci,netdev=n0,romfile="]
    if incoming:
        args += ["-incoming", "defer"]
    return args + shlex.split(c.l2_qemu_args)


def start(l1, node="/dev/vhost-vdpa-0", incoming=False):
    """Start L2 in an L1, or the empty shell of one that waits for a migration."""
    if alive(l1):
        raise LabError(f"{l1.name} runs an L2 already: stop it first")
    line = shlex.join(command_line(l1, node, incoming))
    # L2 lives on nested virtualization, which the L1 has if its CPU shows it
    l1.sh("modprobe kvm ignore_msrs=1 report_ignored_msrs=0; if grep -qw svm /proc/cpuinfo; then modprobe kvm_amd nested=0; else modprobe kvm_intel; fi; "
          "rm -f /virtio-lm/run/l2.*.log; ulimit -l unlimited; "
          f"setsid {line} </dev/null >/virtio-lm/run/l2.qemu.log 2>&1 & echo $! >/run/l2.pid",
          timeout=240)
    try:
        qmp(l1).close()
    except QMPError as err:
        raise LabError(f"L2's QEMU did not start in {l1.name}: {complaint(l1)}") from err


def qmp(l1, timeout=60):
    """QMP of the L2 in that L1."""
    return QMP((l1.address, QMP_PORT), timeout)


def complaint(l1):
    """The last line of L2's QEMU's own output."""
    with open(f"{l1.share}/l2.qemu.log", encoding="utf-8", errors="replace") as file:
        lines = file.read().strip().splitlines()
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
    except QMPError:
        if not alive(l1):
            return None
        raise
    try:
        return conn.cmd("query-status")["status"]
    finally:
        conn.close()


def wait_up(l1):
    """Wait until L2 has booted; the seconds it took from now."""
    begin = time.monotonic()
    log = f"{l1.share}/l2.console.log"
    while True:
        try:
            with open(log, encoding="utf-8", errors="replace") as file:
                if UP_LINE in file.read():
                    return time.monotonic() - begin
        except FileNotFoundError:
            pass
        if not alive(l1):
            raise LabError(f"L2 ended while booting in {l1.name}: {complaint(l1)}")
        if time.monotonic() > begin + BOOT_SECONDS:
            raise LabError(f"L2 not up within {BOOT_SECONDS} s, see {log}")
        time.sleep(0.5)


def agent_count(l1, name, expected):
    """The agent's own counter of that name, from the second serial port of the L2 in that L1.

    It is printed every two seconds: wait a while for what is expected.
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


def migrate(src, dst, node="/dev/vhost-vdpa-0", **parameters):
    """Move the running L2 from one L1 to another; the source's QEMU ends."""
    start(dst, node, incoming=True)
    there = qmp(dst)
    here = qmp(src)
    try:
        there.cmd("migrate-incoming", uri=f"tcp:{dst.address}:{MIGRATION_PORT}")
        if parameters:
            here.cmd("migrate-set-parameters", **parameters)
        here.cmd("migrate", uri=f"tcp:{dst.address}:{MIGRATION_PORT}")
        end = time.monotonic() + MIGRATION_SECONDS
        while True:
            info = here.cmd("query-migrate")
            if info.get("status") in ("completed", "failed", "cancelled"):
                break
            if time.monotonic() > end:
                here.cmd("migrate_cancel")
                raise LabError(f"migration not done within {MIGRATION_SECONDS} s, cancelled: {info}")
            time.sleep(0.1)
        if info["status"] != "completed":
            raise LabError(f"migration {info['status']}: {info.get('error-desc', complaint(src))}")
        while (status := there.cmd("query-status")["status"]) != "running":
            if time.monotonic() > end:
                raise LabError(f"L2 did not run on in {dst.name}, it is {status}: {complaint(dst)}")
            time.sleep(0.05)
    finally:
        here.close()
        there.close()
    stop(src)
    ram = info["ram"]
    return Migrated(src.name, dst.name, info["total-time"], info["downtime"],
                    info.get("setup-time", 0), ram["transferred"], ram["dirty-sync-count"])
