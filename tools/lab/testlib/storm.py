# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen to a function while a VMM uses its vDPA device."""
import select
import subprocess
import threading
import time

from vlm.config import PATIENCE
from vlm.l1 import LabError
from vlm.l2 import l2

from . import kselftest

# where what removes a vDPA device waits for the VMM to close it
WAITS_IN = "vhost_vdpa_remove"
PROPS = kselftest.PROPS + ",aer=on"


class Storm:
    """An L1, and what can happen to its function."""

    def __init__(self, l1):
        self.l1 = l1
        self.hold = f"{l1.config.tools}/kselftest/vdpa_hold"
        self.pci = l1.pci(0)
        self.driver = f"/sys/bus/pci/drivers/{kselftest.DRIVER}"
        # set by an event once the function, or L1's kernel, has been told of it
        self.begun = threading.Event()

    def recover(self):
        """The device is there, whatever is left of it; its node."""
        found = self.l1.sh("ls -d /sys/bus/vdpa/devices/vdpa0/vhost-vdpa-* 2>/dev/null || :").split()
        return "/dev/" + found[0].rsplit("/", 1)[1] if found else l2.take_over(self.l1)

    def take(self, *words):
        """Start a VMM that holds the device at a step."""
        vmm = self.l1.popen(["env", f"VDPA_DEV={self.recover()}", self.hold, *words], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # one that hangs says nothing
        line = vmm.stdout.readline().strip() if select.select([vmm.stdout], [], [], PATIENCE)[0] else ""
        if not line.startswith("held "):
            vmm.kill()
            raise LabError(f"vdpa_hold {' '.join(words)} does not hold the device within {PATIENCE} s: {line}")
        return vmm

    def let_go(self, vmm):
        """Have the VMM go on; what its calls have returned, where that was an error, how often it
        was told of a change of the configuration, if it was (told), and whether it came to its end
        in time."""
        try:
            text = vmm.communicate("\n", timeout=PATIENCE)[0].strip()
        except subprocess.TimeoutExpired:
            return {}, False
        words = dict(word.split("=") for word in text.split() if "=" in word)
        return ({k: v for k, v in words.items() if v != "0" and k not in ("bits", "used")},
                vmm.returncode == 0 and "close" in words)

    def sh(self, script):
        """Have L1's shell bring an event about."""
        shell = self.l1.popen(["sh", "-euc", f"echo begun; {script}"], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            if select.select([shell.stdout], [], [], PATIENCE)[0] and shell.stdout.readline() == "begun\n":
                self.begun.set()
            said = shell.communicate(timeout=PATIENCE)[0].strip()
        except subprocess.TimeoutExpired as err:
            shell.kill()
            raise LabError(f"`{script}` has not ended after {PATIENCE} s") from err
        if shell.returncode:
            raise LabError(f"`{script}` ended with {shell.returncode}: {said}")

    def waits(self):
        """Does a task of L1 wait for the VMM to close its device?"""
        return self.l1.run(["sh", "-c", f"grep -qsx {WAITS_IN} /proc/[0-9]*/wchan"]).returncode == 0

    def plug(self, there):
        """Unplug the function, or plug it again."""
        if not there:
            self.l1.qmp("device_del", id="vdpa0")
            self.begun.set()
        end = time.monotonic() + PATIENCE
        while True:
            gone = not self.l1.sh("ls -d /sys/bus/pci/devices/0000:00:10.0/0000:??:??.? 2>/dev/null || :").strip()
            if gone != there:
                break
            if time.monotonic() > end:
                raise LabError(f"the function is {'not there' if there else 'still there'} after {PATIENCE} s")
            time.sleep(0.2)

    def unbind(self):
        self.sh(f"echo {self.pci} >{self.driver}/unbind")

    def remove_device(self):
        self.sh("vdpa dev del vdpa0")

    def unload(self):
        self.sh(f"rmmod {kselftest.DRIVER}")

    def flr(self):
        self.sh(f"cd /sys/bus/pci/devices/{self.pci}; echo flr >reset_method; echo 1 >reset")

    def bus_reset(self):
        self.sh(f"cd /sys/bus/pci/devices/{self.pci}; echo bus >reset_method; echo 1 >reset")

    def recoveries(self):
        """How many errors the kernel has got over."""
        return int(self.l1.sh("dmesg | grep -c 'device recovery successful' || :"))

    def error(self, name):
        """Have the function report an error, and the kernel get over it."""
        before = self.recoveries()
        answer = self.l1.qmp("human-monitor-command", command_line=f"pcie_aer_inject_error vdpa0 {name}")
        if not answer.startswith("OK"):
            raise LabError(f"pcie_aer_inject_error: {answer}")
        self.begun.set()
        end = time.monotonic() + PATIENCE
        while self.recoveries() == before:
            if time.monotonic() > end:
                raise LabError(f"the kernel has not got over error {name} after {PATIENCE} s")
            time.sleep(0.2)

    def nonfatal_error(self):
        self.error("COMP_TIME")

    def fatal_error(self):
        self.error("DLP")

    def replug(self):
        self.plug(False)
        self.l1.plug(0)
        self.plug(True)

    def link_flaps(self):
        for _ in range(20):
            self.l1.set_link(0, False)
            self.begun.set()
            self.l1.set_link(0, True)


EVENTS = (
    ("its driver is unbound", Storm.unbind),
    ("the vDPA device is deleted", Storm.remove_device),
    ("the driver's module is unloaded", Storm.unload),
    ("a function level reset", Storm.flr),
    ("a reset of its bus", Storm.bus_reset),
    ("a non-fatal AER error", Storm.nonfatal_error),
    ("a fatal AER error", Storm.fatal_error),
    ("it is unplugged, and plugged again", Storm.replug),
    ("its link flaps", Storm.link_flaps),
)
# what the driver says of a function that forgets what it was told between two of its steps, and the
# kernel of the errors that are injected
FORGOTTEN = (r"device does not answer|vq \d+: (cannot be (enabled|reset)|device ignored its ring state)"
             r"|device does not take features|device refused to log"
             r"|device did not (suspend|resume|stop logging)")
PROVOKED = {
    Storm.flr: FORGOTTEN,
    Storm.bus_reset: FORGOTTEN,
    Storm.nonfatal_error: r"PCIe Bus Error|error status/mask=|\[\d+\] CmpltTO",
    Storm.fatal_error: rf"PCIe Bus Error|error status/mask=|\[\d+\] DLP|{FORGOTTEN}",
}
# which take the vDPA device away, and so wait until the VMM has closed it
REMOVES = Storm.unbind, Storm.remove_device, Storm.unload, Storm.replug
# after which a running device needs a reset by its driver, and is to say so
FORGETS = Storm.flr, Storm.bus_reset, Storm.fatal_error


class Event:
    """One of them, on its way while the VMM goes on. Use as a context manager: it is entered when the
    event has begun, and, if it removes the device, waits for the VMM, which waits then tells. At the end
    it waits for the event's end; errors are what that has to say then.

    Those that remove nothing come to their ends by themselves, and the VMM's calls may come before,
    after or amid what they do. ended() tells which of the two was the first to be done."""

    def __init__(self, event, storm):
        self.errors = []
        self.waits = False
        self.event = event
        self.storm = storm
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        """The body of the thread."""
        try:
            self.event(self.storm)
        except Exception as err:  # whatever it is, it is this case's failure
            self.errors.append(str(err))
        finally:
            self.storm.begun.set()

    def ended(self):
        """Is it over?"""
        return not self.thread.is_alive()

    def __enter__(self):
        self.storm.begun.clear()
        self.thread.start()
        end = time.monotonic() + PATIENCE
        if not self.storm.begun.wait(PATIENCE):
            raise LabError(f"what is to happen has not begun after {PATIENCE} s")
        while self.event in REMOVES and not self.waits and not self.ended():
            if time.monotonic() > end:
                raise LabError(f"what removes the device neither waits for the VMM nor ends after {PATIENCE} s")
            self.waits = self.storm.waits()
        return self

    def __exit__(self, *_):
        self.thread.join(2 * PATIENCE)
        if self.thread.is_alive():
            raise LabError(f"what happens is not at its end after {2 * PATIENCE} s")
