# SPDX-License-Identifier: GPL-2.0-or-later
"""L1s whose kernel reports what a stock one lets pass (tools/linux/debug.config)."""
import contextlib
import re
import time

# How many times slower than a stock kernel this one is
SLOW = 4
DEBUGFS = "/sys/kernel/debug"
# without its look for leaks all else takes half the time
NO_KMEMLEAK = "kmemleak=off"


# of all allocations, those with that function in their stack trace
FAIL = """
cd /sys/kernel/debug/fail_page_alloc
set -- $(grep '\\[{module}\\]$' /proc/kallsyms | sort |
	awk '$3 == "{function}" {{ from = $1; next }} from {{ print from, $1; exit }}')
echo 0x$1 >require-start
echo 0x$2 >require-end
echo N >ignore-gfp-wait
echo 0 >min-order
echo 0 >verbose
echo -1 >times
echo 100 >probability
"""


@contextlib.contextmanager
def no_memory(l1, module, function):
    """That function of a module, and what it calls, gets no page meanwhile."""
    l1.sh(FAIL.format(module=module, function=function))
    try:
        yield
    finally:
        l1.sh(f"echo 0 >{DEBUGFS}/fail_page_alloc/probability")


def findings(l1):
    """What the checks have found that is not in the kernel's log, and those that are off by now:
    lockdep and that of DMA mappings end when they have reported something, or lack memory."""
    found = []
    if NO_KMEMLEAK not in l1.config.append:
        # kmemleak wants two scans to find the same, the first when it is 5 s old (MSECS_MIN_AGE)
        time.sleep(6)
        found = l1.sh(f"cd {DEBUGFS}; for n in 1 2 3; do echo scan >kmemleak; done; cat kmemleak",
                      timeout=600).splitlines()
    for path, pattern in (("/proc/lockdep_stats", r"debug_locks:\s+1\b"),
                          (f"{DEBUGFS}/dma-api/disabled", r"^N"),
                          (f"{DEBUGFS}/dma-api/error_count", r"^0\b")):
        text = l1.sh(f"cat {path}")
        if not re.search(pattern, text):
            found.append(f"{path} has not {pattern}: {text}")
    return found
