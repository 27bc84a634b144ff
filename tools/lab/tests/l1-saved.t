#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=24 variants=stock form=all
"""An L1 is saved to a file and restored while its device logs, or is suspended, and then sleeps
(suspend-to-idle): bits and indices are what they were, and the device goes on.

QEMU saves no guest that has mounted a folder of the host, nor would such a guest's root wake up, so
this L1 has all that it needs in its initramfs."""
import os
import re
import shutil
import socket
import subprocess
import time

from testlib import kselftest, tap
from vlm import net
from vlm.config import PATIENCE
from vlm.kernel_log import ALLOWED
from vlm.l1 import LabError

# what the refusal to sleep deep says
REFUSED = re.compile(r"virtio_lm_vdpa \S+ (vDPA device in use|PM: (failed to suspend|.* returns -16))"
                     r"|PM: Some devices failed to suspend")
ROOT = "/virtio-lm/run/l1-saved/root"
IMAGE = "/virtio-lm/run/l1-saved/image"
# what the set of modules needs of the kernel's own
NEEDED = ("irqbypass", "vhost_iotlb", "vhost", "virtio_pci_modern_dev")
SET = ("vdpa", "vhost_vdpa", "virtio_lm_vdpa")
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /set/*; do insmod $module; done
cd /sys/bus/pci/devices/0000:00:10.0/0000:??:??.?
pci=$(cat uevent | grep PCI_SLOT_NAME=); pci=${pci#*=}
echo virtio_lm_vdpa >driver_override
echo $pci >driver/unbind
echo $pci >/sys/bus/pci/drivers_probe
vdpa dev add name vdpa0 mgmtdev pci/$pci
ulimit -l unlimited
for word in $(cat /proc/cmdline); do
	case $word in lab.step=*) step=${word#*=} ;; esac
done
echo "lab: starting" >/dev/console
mkfifo /go
exec 3<>/go
VDPA_DEV=/dev/vhost-vdpa-0 vdpa_hold $step send <&3 >/dev/ttyS0 2>&1 &
hold=$!
stty -F /dev/ttyS0 -echo
read -r key </dev/ttyS0
echo deep >/sys/power/mem_sleep
echo mem >/sys/power/state
deep=$?
echo enabled >/sys/class/tty/ttyS0/power/wakeup
echo freeze >/sys/power/state
echo "lab: slept with $deep $? $(cat /sys/power/suspend_stats/success)" >/dev/console
echo >&3
wait $hold
echo "lab: ended with $?" >/dev/console
sleep 1000
"""


def output(*command, **kwargs):
    """What a command of the tree prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **kwargs).stdout


def make_image(config):
    """The initramfs: that of a usual L1, whose init and modules are replaced."""
    os.makedirs(f"{ROOT}/set")
    subprocess.run(f"gzip -dc {config.kernel}/l1.gz | cpio -idm --quiet", shell=True, check=True, cwd=ROOT)
    with open(f"{ROOT}/init", "w", encoding="ascii") as file:
        file.write(INIT)
    release = open(f"{config.kernel}/version", encoding="ascii").read().strip()
    paths = []
    for name in NEEDED:
        lines = output("modprobe", "--show-depends", "--set-version", release, name, text=True).split("\n")
        paths += [line.split()[1] for line in lines if line.startswith("insmod")]
    for n, path in enumerate(dict.fromkeys(paths)):
        name = os.path.basename(path).removesuffix(".xz")
        with open(f"{ROOT}/set/{n:02}-{name}", "wb") as file:
            file.write(output("xz", "-dc", path) if path.endswith(".xz") else open(path, "rb").read())
    for n, name in enumerate(SET):
        shutil.copy(f"{config.log_modules}/{name}.ko", f"{ROOT}/set/{50 + n}-{name}.ko")
    for binary in shutil.which("vdpa"), f"{config.tools}/kselftest/vdpa_hold":
        shutil.copy(binary, f"{ROOT}/bin")
        for line in output("ldd", binary, text=True).splitlines():
            for path in [word for word in line.split() if word.startswith("/")]:
                os.makedirs(ROOT + os.path.dirname(path), exist_ok=True)
                shutil.copy(path, ROOT + path)
    subprocess.run(f"find . | cpio -o -H newc --quiet >{IMAGE}", shell=True, check=True, cwd=ROOT)


def wait_line(l1, start):
    """The line on L1's console that begins so, as a list of its words."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        # nothing that is still being written
        for line in l1.serial().split("\n")[:-1]:
            if line.startswith(start):
                return line.split()
            if line.startswith("lab: ended"):
                raise LabError(f"no line '{start}' on L1's console, but: {line}")
        if not l1.alive():
            raise LabError(f"{l1.name}: QEMU ended: {l1.last_words()}")
        time.sleep(0.2)
    raise LabError(f"no line '{start}' on L1's console within {PATIENCE} s, see {l1.serial_log}")


def save(l1, path):
    """Save L1 to a file, and end it."""
    l1.qmp("migrate", uri=f"file:{path}")
    end = time.monotonic() + PATIENCE
    while (info := l1.qmp("query-migrate")).get("status") != "completed":
        if info.get("status") == "failed" or time.monotonic() > end:
            raise LabError(f"{l1.name} is not saved: {info}")
        time.sleep(0.2)
    l1.stop()


def restore(l1, path):
    """Start it again from there."""
    l1.launch("-incoming", f"file:{path}")
    end = time.monotonic() + PATIENCE
    while (status := l1.qmp("query-status")["status"]) != "running":
        if time.monotonic() > end or not l1.alive():
            raise LabError(f"{l1.name} is not restored: {status}, {l1.last_words()}")
        time.sleep(0.2)


def press_return(l1):
    """On its console."""
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(f"{l1.sockets}/{l1.name}.console")
        console.sendall(b"\n")
        time.sleep(0.5)


def wake_up(l1):
    """It is about to sleep, and a key wakes it."""
    end = time.monotonic() + PATIENCE
    while "lab: slept" not in l1.serial():
        if time.monotonic() > end:
            raise LabError(f"{l1.name} does not wake up within {PATIENCE} s, see {l1.serial_log}")
        time.sleep(1)
        press_return(l1)


def complaints(l1):
    """What its kernel has printed on the console since our init has begun: warnings and worse."""
    lines = l1.serial().split("\n")
    begin = next((n for n, line in enumerate(lines) if line.startswith("lab: starting")), 0)
    return [line for line in lines[begin:]
            if line.startswith("[") and not REFUSED.search(line) and not ALLOWED.search(line)]


def values(words):
    """name=value in a line's words."""
    return dict(word.split("=") for word in words if "=" in word)


tap.need_log()
net.create()
with tap.Tap() as t:
    for step in "logging", "suspended":
        lab = tap.make_lab(device_props=kselftest.PROPS, append=f"lab.step={step} no_console_suspend",
                           qemu_args=f"-initrd {IMAGE}")
        l1 = lab.l1s[0]
        if not os.path.exists(IMAGE):
            make_image(lab.config)
            l1.start()
        else:
            os.makedirs(l1.sockets, exist_ok=True)
            l1.started = time.monotonic()
            l1.launch()
        before = values(wait_line(l1, f"held {step}"))
        t.ok(int(before["bits"]) > 0, f"{step}: the device has logged: {before['bits']} pages")
        t.equal(complaints(l1), [], f"{step}: L1's kernel has nothing to complain about")
        file = f"{lab.run_dir}/{step}.saved"
        save(l1, file)
        t.ok(True, f"{step}: L1 is saved, {os.path.getsize(file) >> 20} MiB")
        restore(l1, file)
        press_return(l1)
        wake_up(l1)
        deep, idle, count = wait_line(l1, "lab: slept")[-3:]
        t.ok(deep == "1" and "vDPA device in use (status 0x0f)" in l1.serial(),
             f"{step}: the driver refuses a sleep so deep that the device loses its power")
        t.equal((idle, count), ("0", "1"), f"{step}: to idle it may, and wakes up again")
        words = wait_line(l1, "then")
        after = values(words[:words.index("new")])
        t.equal({k: after[k] for k in before}, before, f"{step}: bits and indices are what they were")
        new = values(words[words.index("new"):])
        t.ok(int(new["bits"]) > 0, f"{step}: the device logs what it writes: {new['bits']} pages")
        t.equal(int(new["used"]), int(before["used"]) + 8, f"{step}: and serves its queue where it was")
        errnos = {k: v for k, v in values(words).items() if v != "0" and k not in ("bits", "used")}
        t.equal(errnos, {}, f"{step}: and does all that it is told")
        t.equal(complaints(l1), [], f"{step}: and L1's kernel has nothing to complain about, still")
        l1.stop()
        os.remove(file)
