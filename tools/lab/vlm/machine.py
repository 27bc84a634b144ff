# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines of L1 and L2: types, CPUs, accelerators. Documentation/lab.rst says why each part is needed."""
import os
import re
import subprocess
import tempfile
import time

PROBE_SECONDS = 10
# where QEMU finds the firmware that Debian has
FIRMWARE = ("-L", "/usr/share/qemu", "-L", "/usr/share/seabios")
# KVM runs nested on it. TCG does a string instruction byte by byte, so nothing may say that these
# are fast, or Linux copies and clears with them; and a fifth level of page tables is one more to walk
TCG_CPU = "max,+svm,-erms,-fsrm,-fsrs,-fzrm,-fsrc,-la57"
# L2 migrates between QEMUs of several versions: the newest machine that all of them have. Without
# vmport, which has Debian's send the state of a mouse that the lab's does not have
Q35 = ("-M", "pc-q35-10.0,vmport=off", "-bios", "qboot.rom", "-serial", "chardev:agent")
# no PCI: its devices are virtio-mmio's, which L2's kernel finds by ACPI
MICROVM = ("-M", "microvm", "-bios", "bios-microvm.bin",
           "-device", "isa-serial,chardev=agent,index=1,iobase=0x2f8,irq=3")
# its transports are legacy ones without that, which no vDPA device can serve
MODERN_MMIO = "-global virtio-mmio.force-legacy=false"


def tsc_khz():
    """How fast this machine's TSC is, and so TCG's; None where /proc/cpuinfo does not tell."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^bogomips\s*: ([\d.]+)$", file.read(), re.M)
    return round(float(found[1]) * 500) if found else None


def tcg_threads(vcpus):
    """How TCG best runs so many vCPUs of this host's L1s. A vCPU that waits for another one spins; where the host has
    no CPU for that one, it spins for as long as the host lets it."""
    return "multi" if vcpus <= len(os.sched_getaffinity(0)) else "single"


def l1_words(config):
    """QEMU's words for the machine of an L1."""
    threads = tcg_threads(config.l1s * config.cpus) if config.threads == "auto" else config.threads
    return ["-M", f"{config.machine},kernel-irqchip=split", "-bios", "qboot.rom",
            *(["-accel", "kvm", "-cpu", "host"] if config.kvm else
              ["-accel", f"tcg,thread={threads}", "-cpu", TCG_CPU])]


def l1_kernel(kvm):
    """The words that the kernel of an L1 has for that machine."""
    words = ("console=ttyS0 mitigations=off intel_iommu=on no_timer_check "
             # a clock is judged by another one, which reads late when the host is busy
             "tsc=nowatchdog "
             # a CPU that gets no time from a busy host does not hang: 120 s, twice the one and once the other
             "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120")
    if not kvm and (khz := tsc_khz()):
        # measured on a busy host, by a PIT that is late, it is a tenth of what it should be
        words += f" tsc_early_khz={khz}"
    return words


def nested_kvm():
    """The shell command by which an L1 gets its /dev/kvm."""
    return ("[ -c /dev/kvm ] || { modprobe kvm ignore_msrs=1 report_ignored_msrs=0; "
            "if grep -qw svm /proc/cpuinfo; then modprobe kvm_amd nested=0; else modprobe kvm_intel; fi; }")


def kvm_works(qemu, kernel):
    """Can L1s run under KVM here, with KVM for their L2s? By that QEMU, with the images of a kernel in that folder.

    /dev/kvm may exist, and even make VMs, where no kernel can boot on it. So: the CPU has
    the extension, nesting is on, and a guest gets as far as its first line.
    """
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = re.search(r"^flags\s*:.*\b(vmx|svm)\b", file.read(), re.M)
    if not flags or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    module = {"vmx": "kvm_intel", "svm": "kvm_amd"}[flags.group(1)]
    try:
        with open(f"/sys/module/{module}/parameters/nested", encoding="ascii") as file:
            if file.read().strip() not in ("Y", "1"):
                return False
    except FileNotFoundError:
        return False
    with tempfile.NamedTemporaryFile() as serial:
        probe = subprocess.Popen(
            [qemu, *FIRMWARE, "-M", "q35", "-bios", "qboot.rom", "-m", "256M",
             "-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none", "-vga", "none",
             "-serial", f"file:{serial.name}", "-kernel", f"{kernel}/vmlinux",
             "-append", "console=ttyS0 earlyprintk=ttyS0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + PROBE_SECONDS
            while time.monotonic() < end and probe.poll() is None:
                if b"Linux version" in open(serial.name, "rb").read():
                    return True
                time.sleep(0.1)
            return False
        finally:
            probe.kill()
            probe.wait()
