# SPDX-License-Identifier: GPL-2.0-or-later
"""The L2 guest: its QEMU in an L1, on /dev/vhost-vdpa-N."""
import contextlib
import re
import shlex
import socket
import time

from . import net
from .l1 import LabError
from .machine import FIRMWARE, Q35, nested_kvm
from .qmp import QMP, QMPError
from .traffic import agent_mib

MAC = "52:54:00:77:00:02"
# what users have: without any of our patches
DEBIAN_QEMU = "/usr/bin/qemu-system-x86_64"
QMP_PORT = 4444
CONSOLE_PORT = 4445
BOOT_SECONDS = 240
ALIVE_SECONDS = 5
QMP_SECONDS = 240
# then it is looked whether there is a QEMU at all
FIRST_QMP_SECONDS = 20
CONSOLE_SECONDS = 240
AGENT_LINE_SECONDS = 240
UP_LINE = "lab: l2 is up"
NODE = "/dev/vhost-vdpa-0"


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


def netdev(node, dirty_log, more="", pairs=1):
    """QEMU's words for L2's NIC: its virtqueues are the vDPA device's, and QEMU has the rest, the MAC,
    too, which it gives the device. more: properties of it. pairs: of queues."""
    way = "" if dirty_log == "auto" else f",x-dirty-log={dirty_log}"
    if pairs > 1:
        way += f",queues={pairs}"
        more += ",mq=on"
    return ["-netdev", f"vhost-vdpa,id=n0,vhostdev={node}{way}",
            "-device", f"virtio-net-pci,netdev=n0,mac={MAC},romfile={more}"]


def mmio(node):
    """The same, for a NIC of virtio-mmio."""
    return [*netdev(node, "auto")[:2], "-device", f"virtio-net-device,netdev=n0,mac={MAC}"]


def generic_device(node):
    """QEMU's words for an L2 whose NIC is all of the vDPA device: QEMU does not know what it is."""
    return ["-device", f"vhost-vdpa-device-pci,vhostdev={node}"]


def command_line(l1, nic, incoming, machine):
    """L1's QEMU for L2."""
    c = l1.config
    agent = f"{net.L0_DATA},{c.rate},{agent_mib(c)},{c.pages}"
    args = [c.l2_qemu, *FIRMWARE, "-name", "l2", "-accel", "kvm", "-cpu", "host",
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
    l1.sh(f"{nested_kvm()}; "
          "rm -f /virtio-lm/run/l2.*.log; ulimit -l unlimited; "
          f"setsid {line} </dev/null >/virtio-lm/run/l2.qemu.log 2>&1 & echo $! >/run/l2.pid",
          timeout=240)
    end = time.monotonic() + QMP_SECONDS
    while True:
        try:
            qmp(l1, FIRST_QMP_SECONDS).close()
            return
        except QMPError as err:
            if time.monotonic() < end and alive(l1):
                continue
            # it may take a while to end, and the next one is not to find it there
            stop(l1)
            raise LabError(f"L2's QEMU did not start in {l1.name}: {complaint(l1)}") from err


def console(l1, line):
    """Give the shell on the console of the L2 in that L1 a line. What it answers is in the L2's log."""
    with socket.create_connection((l1.address, CONSOLE_PORT), timeout=CONSOLE_SECONDS) as conn:
        conn.sendall(line.encode() + b"\n")
        # QEMU takes what has come before the end of the connection
        conn.shutdown(socket.SHUT_WR)
        while conn.recv(4096):
            pass


def shown(l1):
    """What the console of the L2 in that L1, or of the last one there, has shown; "" where there was none."""
    try:
        with open(f"{l1.share}/l2.console.log", encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def boots(*l1s):
    """How often L2 has booted in those L1s, in which it was one after the other. The line that tells may begin in
    one L1's log and end in the next one's."""
    return "".join(map(shown, l1s)).count(UP_LINE)


def qmp(l1, timeout=QMP_SECONDS):
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
    begin = looked = time.monotonic()
    while boots(l1) < count:
        now = time.monotonic()
        if now > begin + BOOT_SECONDS:
            raise LabError(f"L2 not up within {BOOT_SECONDS} s. {stuck(l1)}; see {l1.share}/l2.console.log")
        # a command in L1 takes time that L2 does not have then
        if now > looked + ALIVE_SECONDS:
            if not alive(l1):
                raise LabError(f"L2 ended while booting in {l1.name}: {complaint(l1)}")
            looked = time.monotonic()
        time.sleep(0.2)
    return time.monotonic() - begin


def stuck(l1):
    """What can be told of an L2 in that L1 that does not get on: twice where its CPU is, its interrupts, and
    the end of its console."""
    def monitor(line):
        return conn.cmd("human-monitor-command", command_line=line)

    try:
        with contextlib.closing(qmp(l1)) as conn:
            cpu = []
            for _ in range(2):
                cpu += re.findall(r"\b(?:[ER]IP|[ER]FL|HLT)=\w+", monitor("info registers"))
                time.sleep(1)
            timer = re.findall(r"^(?:LVTT|Timer|ISR|IRR)\b.*", monitor("info lapic"), re.M)
            status = conn.cmd("query-status")["status"]
    except QMPError as err:
        return f"its QEMU does not answer: {err}"
    return f"{status}, {' '.join(cpu)}, {', '.join(timer)}, last on its console: {shown(l1)[-200:]!r}"


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
    return dirty_log_of(text)


def dirty_log_of(text):
    """The same, of what its monitor says to `info network`."""
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
