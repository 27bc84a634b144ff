# SPDX-License-Identifier: GPL-2.0-or-later
"""L1s whose kernel reports what a stock one lets pass (tools/linux/debug.config)."""
import os
import re
import time

# How many times slower than a stock kernel this one is
SLOW = 4
DEBUGFS = "/sys/kernel/debug"
# every report and not the first alone, in a log that does not wrap around
APPEND = "kasan_multi_shot log_buf_len=8M"


def kernel(leaks=True):
    """What a lab's configuration has to have. The driver and the dirty log are in this kernel's
    tree. Without its look for leaks all else takes half the time."""
    return {"kernel": os.environ["LM_DEBUG_KERNEL"], "driver": "", "vdpa_modules": "stock",
            "append": APPEND if leaks else f"{APPEND} kmemleak=off"}


def leaks(l1):
    """The memory that nothing in the kernel points to any more, by kmemleak."""
    # it wants two scans to find the same, the first when it is 5 s old (MSECS_MIN_AGE)
    time.sleep(6)
    return l1.sh(f"cd {DEBUGFS}; for n in 1 2 3; do echo scan >kmemleak; done; cat kmemleak",
                 timeout=600).splitlines()


def ended(l1):
    """The checks that are off by now: lockdep and that of DMA mappings end when they have reported
    something, or lack memory."""
    found = []
    for path, pattern in (("/proc/lockdep_stats", r"debug_locks:\s+1\b"),
                          (f"{DEBUGFS}/dma-api/disabled", r"^N"),
                          (f"{DEBUGFS}/dma-api/error_count", r"^0\b")):
        text = l1.sh(f"cat {path}")
        if not re.search(pattern, text):
            found.append(f"{path} has not {pattern}: {text}")
    return found
