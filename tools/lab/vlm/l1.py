# SPDX-License-Identifier: GPL-2.0-or-later
"""An L1 guest: its QEMU in L0, commands in it over ssh, its kernel log."""
import contextlib
import ctypes
import datetime
import os
import re
import shlex
import signal
import subprocess
import time

from . import machine, net
from .config import PATIENCE
from .kernel_log import findings
from .qmp import QMP

ROOT_PORT = 16
SSH_KEYS = "/virtio-lm/cache/ssh"
UP_LINE = "lab: {} is up"

# An event in the log of a QEMU with -msg timestamp=on: as 10.2 writes it, and as 10.0 does
TRACED = re.compile(r"(?:(?P<date>\S+Z) |\d+@(?P<seconds>[\d.]+):)(?P<name>\w+) (?P<rest>.*\n)")


class LabError(Exception):
    """What went wrong and what to do, in one line."""


def die_with_parent():
    """For children: end when the lab does, whatever ends it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class L1:
    """One L1: l1a, l1b, ... by index."""

    def __init__(self, config, index, run):
        self.config = config
        self.name = "l1" + "abcdefgh"[index]
        self.index = index
        self.address = f"{net.MANAGER}{11 + index}"
        self.mgr_mac = f"52:54:00:78:00:{11 + index:02x}"
        self.mgr_tap = f"{self.name}m"
        self.run_dir = run
        self.serial_log = f"{run}/{self.name}.serial.log"
        self.share = f"{run}/{self.name}"
        self.sockets = f"/run/lab-{os.getpid()}"
        self.proc = None
        self.started = None
        self.log = f"{run}/{self.name}.qemu.log"
        self.trace_log = f"{run}/{self.name}.trace.log"
        self.ready_seconds = None
        self.lines_seen = 0

    def data_tap(self, function):
        """The tap behind the vdpa function of that number."""
        return f"{self.name}d{function}"

    def mac(self, function):
        """The MAC of the vdpa function of that number."""
        return f"56:4a:b7:4f:{self.index:02x}:{function:02x}"

    def props(self, function):
        """The properties of the vdpa function of that number: sets are apart by ;, the last
        one is for all that follow."""
        sets = self.config.device_props.split(";")
        return sets[min(function, len(sets) - 1)]

    def pci(self, function):
        """The PCI address, in L1, of the vdpa function of that number.

        Firmware numbers the buses as it likes: what is known is the root port. Of a physical function
        and its virtual one, it is the virtual one.
        """
        port = f"/sys/bus/pci/devices/0000:00:{ROOT_PORT + function:02x}.0"
        return self.sh(f"cd {port} && ls -d 0000:??:??.? | tail -n 1").strip()

    def one_cpu(self, function):
        """Have the interrupts of a vdpa function on the first CPU: which one gets them is the kernel's choice,
        and depends on what others have."""
        self.sh(f"for irq in /sys/bus/pci/devices/{self.pci(function)}/msi_irqs/*; do "
                "echo 1 >/proc/irq/${irq##*/}/smp_affinity; done")

    def command_line(self):
        """L0's QEMU for this L1; Documentation/lab.rst says why each part is needed."""
        c = self.config
        append = (f"{machine.l1_kernel(c.kvm)} panic=-1 loglevel=5 "
                  # tests count lines of it, which must not wrap around
                  "log_buf_len=1M "
                  f"lab.name={self.name} lab.address={self.address} lab.mac={self.mgr_mac} "
                  f"lab.kernel={c.kernel}")
        args = [c.qemu, *machine.FIRMWARE, *machine.l1_words(c), "-name", self.name,
                "-smp", str(c.cpus), "-m", f"{c.memory}M", "-nodefaults",
                "-display", "none", "-vga", "none", "-no-reboot",
                "-chardev", f"socket,id=serial,path={self.sockets}/{self.name}.console,server=on,"
                            f"wait=off,logfile={self.serial_log}",
                "-serial", "chardev:serial",
                "-qmp", f"unix:{self.sockets}/{self.name}.qmp,server=on,wait=off",
                "-kernel", f"{c.kernel}/vmlinux", "-initrd", f"{c.kernel}/l1.gz",
                "-append", f"{append} {c.append}".strip(),
                "-msg", "timestamp=on", "-D", self.trace_log, "-trace", "virtio_lm_*",
                "-device", c.iommu]
        for tag, path, readonly in self.shares():
            args += ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,"
                                f"readonly={readonly},multidevs=remap"]
        args += ["-netdev", f"tap,id=mgr,ifname={self.mgr_tap},script=no,downscript=no,vhost=off",
                 "-device", f"virtio-net-pci,netdev=mgr,mac={self.mgr_mac},romfile="]
        for n in range(c.devices):
            # x-speed: of a faster port Linux wants to see the link come up after a reset, and QEMU
            # does not show it where ACPI does the plugging (pcie_cap_slot_plug_cb() in hw/pci/pcie.c)
            args += ["-device", f"pcie-root-port,id=rp{n + 1},bus=pcie.0,slot={n + 1},"
                                f"chassis={n + 1},addr={ROOT_PORT + n:#x},x-speed=5",
                     "-netdev", f"tap,id=data{n},ifname={self.data_tap(n)},script=no,"
                                f"downscript=no,vhost=off"
                                + (f",queues={c.queues}" if c.queues > 1 else ""),
                     "-device", self.function(n)]
        return args + shlex.split(c.qemu_args)

    def shares(self):
        """What it has of L0 over 9p: tag, folder, whether it is read-only."""
        return ("root", "/", "on"), ("lm", "/virtio-lm", "on"), ("run", self.share, "off")

    def function(self, n):
        """QEMU's -device for the vdpa function of that number."""
        return (f"virtio-net-pci,id=vdpa{n},netdev=data{n},mac={self.mac(n)},"
                f"bus=rp{n + 1},addr=0x0,romfile=,{self.props(n)}")

    def plug(self, n):
        """Plug the vdpa function of that number, which was unplugged."""
        # as text: QMP's own device_add wants to have each property in its type
        answer = self.qmp("human-monitor-command", command_line=f"device_add {self.function(n)}")
        if answer:
            raise LabError(f"{self.name}: device_add: {answer.strip()}")

    def start(self):
        """Begin to boot; wait_ready() waits."""
        os.makedirs(self.sockets, exist_ok=True)
        os.makedirs(self.share, exist_ok=True)
        net.tap(self.mgr_tap, "br1")
        for n in range(self.config.devices):
            net.tap(self.data_tap(n), "br0", self.config.queues)
        self.launch()

    def launch(self, *more):
        """Start its QEMU, with more arguments."""
        args = self.command_line() + list(more)
        # of the last one, which nobody is to take for this one's
        if os.path.exists(self.serial_log):
            os.remove(self.serial_log)
        with open(self.log, "w", encoding="utf-8") as file:
            file.write(shlex.join(args) + "\n")
            file.flush()
            self.started = time.monotonic()
            self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                         preexec_fn=die_with_parent)

    def alive(self):
        """Does its QEMU run?"""
        return self.proc is not None and self.proc.poll() is None

    def peak_mib(self):
        """The most memory that its QEMU has had, with L1's own in it; None of one that has ended."""
        if not self.alive():
            return None
        with open(f"/proc/{self.proc.pid}/status", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^VmHWM:\s*(\d+) kB$", file.read(), re.M)
        # one that has just ended has none
        return int(found[1]) >> 10 if found else None

    def wait_ready(self):
        """Wait until commands can be run in it."""
        line = UP_LINE.format(self.name)
        end = self.started + PATIENCE
        while True:
            # what a kernel says before it ends is there when it has ended
            alive = self.alive()
            if line in (shown := self.serial()):
                break
            # the line may be on its way yet
            if failed := re.search(r"lab: FAILED: (.*)\n", shown):
                raise LabError(f"{self.name}: {failed[1].strip()}")
            if not alive:
                raise LabError(f"{self.name}: QEMU ended while booting, see {self.log} "
                               f"and {self.serial_log}: {self.last_words()}")
            if time.monotonic() > end:
                raise LabError(f"{self.name}: not up within {PATIENCE} s, see {self.serial_log}")
            time.sleep(0.1)
        while not self.answers():
            if time.monotonic() > end or not self.alive():
                raise LabError(f"{self.name}: sshd does not answer, see {self.serial_log}")
            time.sleep(0.3)
        self.ready_seconds = time.monotonic() - self.started

    def answers(self):
        """Does it run commands? The first one takes long where the machine is slow: keys are
        agreed upon."""
        try:
            return self.run(["true"], timeout=60).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def qmp(self, command, /, **args):
        """Run a QMP command of its QEMU."""
        conn = QMP(f"{self.sockets}/{self.name}.qmp")
        try:
            return conn.cmd(command, **args)
        finally:
            conn.close()

    def events(self, *names, since=0.0):
        """What its vdpa functions have traced of those names: (time in seconds, by the clock
        of all L1s; name; the rest), oldest first."""
        with open(self.trace_log, encoding="ascii", errors="replace") as file:
            lines = [event for line in file if (event := TRACED.match(line)) and event["name"] in names]
        found = [(float(event["seconds"]) if event["seconds"] else
                  datetime.datetime.fromisoformat(event["date"]).timestamp(), event["name"], event["rest"])
                 for event in lines]
        return [event for event in found if event[0] >= since]

    def logging(self, function=0):
        """Does that vdpa function of its log?"""
        return self.qmp("qom-get", path=f"/machine/peripheral/vdpa{function}", property="lm-logging")

    def misbehave(self, function, **properties):
        """Set x-lm- properties of a vdpa function (vdpa-net.rst in tools/qemu/docs), which are named
        without that prefix, with _ for -."""
        for name, value in properties.items():
            self.qmp("qom-set", path=f"/machine/peripheral/vdpa{function}",
                     property=f"x-lm-{name.replace('_', '-')}", value=value)

    def set_link(self, function, up):
        """The link of a vdpa function."""
        self.qmp("set_link", name=f"vdpa{function}", up=up)

    def serial(self):
        """All that its console has shown."""
        try:
            with open(self.serial_log, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def last_words(self):
        """The last line of QEMU's own output."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        return lines[-1][:200]

    def ssh(self, *options):
        """The ssh command that reaches it; all sessions share one connection."""
        return ["ssh", "-F", "none", "-i", f"{SSH_KEYS}/user", "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={SSH_KEYS}/known_hosts", "-o", "HostKeyAlias=l1",
                "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
                "-o", "LogLevel=ERROR", "-o", "ControlMaster=auto", "-o", "ControlPersist=yes",
                "-o", f"ControlPath={self.sockets}/{self.name}.ssh", *options,
                f"root@{self.address}", "--"]

    def popen(self, argv, **kwargs):
        """Start a command in it."""
        return subprocess.Popen(self.ssh() + [shlex.join(argv)], preexec_fn=die_with_parent,
                                **kwargs)

    def run(self, argv, timeout=PATIENCE, **kwargs):
        """Run a command in it; like subprocess.run."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        if "stdout" not in kwargs:
            kwargs.setdefault("capture_output", True)
        kwargs.setdefault("text", True)
        return subprocess.run(self.ssh() + [shlex.join(argv)], timeout=timeout, check=False,
                              **kwargs)

    def sh(self, script, timeout=PATIENCE):
        """Run a shell script in it; its output, or LabError with its complaint."""
        try:
            done = self.run(["sh", "-euc", script], timeout=timeout)
        except subprocess.TimeoutExpired as err:
            raise LabError(f"{self.name} did not answer within {timeout} s (a busy machine?)") from err
        if done.returncode:
            raise LabError(f"{self.name}: `{script}` ended with {done.returncode}: "
                           f"{(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def complaints(self, provoked=None):
        """The findings in its kernel log since the last time, as collect_dmesg() has them: so
        each test can be allowed other complaints. Only for a log that does not wrap around."""
        lines = self.sh("dmesg --raw").splitlines()
        return self.new_findings(lines, provoked)

    def new_findings(self, lines, provoked):
        """The findings in what is new in a kernel log."""
        up = UP_LINE.format(self.name)
        new = ([up] if self.lines_seen else []) + lines[self.lines_seen:]
        self.lines_seen = len(lines)
        return findings(new, up, provoked)

    def collect_dmesg(self, provoked=None):
        """Keep its kernel log in the run's folder; returns the findings in it, but for what
        matches the regular expression provoked: complaints that a test has asked for."""
        path = f"{self.run_dir}/{self.name}.dmesg"
        lines = []
        if self.alive() and self.ready_seconds is not None:
            try:
                done = self.run(["dmesg", "--raw"], timeout=60)
                if done.returncode == 0:
                    lines = done.stdout.splitlines()
            except subprocess.TimeoutExpired:
                pass
        if not lines:
            # it is gone or stuck: the console has all from level warning up
            lines = [f"<4>{line}" for line in self.serial().splitlines() if line.startswith("[")]
            self.lines_seen = 0
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return self.new_findings(lines, provoked)

    def stop(self):
        """Power off, at once: all its disks are memory."""
        # or the next L1 of that name would be looked for at the end of this one's connection
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(self.ssh("-O", "exit"), timeout=10, check=False, capture_output=True)
        if self.proc:
            self.proc.kill()
            self.proc.wait()
            self.proc = None
