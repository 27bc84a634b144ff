# SPDX-License-Identifier: GPL-2.0-or-later
"""What of an L1's kernel log is a finding."""
import re

# Kernel messages that are no finding: the driver is out of tree and not signed.
# A clock interrupt that took long, or came late, is a word about the host's load, where vCPUs are threads.
ALLOWED = re.compile(r"loading out-of-tree module taints kernel"
                     r"|module verification failed: signature and/or required key missing"
                     r"|hrtimer: interrupt took \d+ ns"
                     r"|sched: DL replenish lagged too much"
                     # since 7.x it has a word for what nested_kvm() of machine.py asks of it
                     r"|kvm: Running KVM with ignore_msrs=1 and report_ignored_msrs=0 is not a")
# A splat is a finding at whatever level it is printed.
SPLAT = re.compile(r"\b(WARNING|BUG|KASAN|UBSAN|Oops|INFO: task .* blocked|general protection|"
                   r"Call Trace|kernel panic|Kernel panic)\b")
# So is a device that uses memory which it was not given, unless a test has made it do so.
DMA_FAULT = re.compile(r"\bDMAR:.*(fault|Fault)\b")


def findings(lines, up_line, provoked=None):
    """Lines of a raw kernel log that a healthy L1 does not print.

    Before up_line the kernel comments on the emulated machine (firmware tables, missing
    CPU features): there only splats count. After it every line of level warning and up does.
    """
    up = False
    found = []
    for line in lines:
        up = up or up_line in line
        level = re.match(r"<(\d+)>", line)
        serious = level is not None and int(level.group(1)) & 7 <= 4
        if ALLOWED.search(line):
            continue
        if provoked and re.search(provoked, line) and not SPLAT.search(line):
            continue
        if SPLAT.search(line) or DMA_FAULT.search(line) or (up and serious):
            found.append(line)
    return found
