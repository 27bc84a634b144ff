# SPDX-License-Identifier: GPL-2.0-or-later
"""Pings of L0's, each of which has to be answered, however late."""
import re
import subprocess

# for all of them
SECONDS = 120


def ping(address, count, interval, *words):
    """Send so many, a number of seconds apart. Which of them had no answer, and what ping(8) said."""
    # With -c alone ping ends soon after the last one. With -w it waits for so many answers, and sends more meanwhile
    done = subprocess.run(["ping", "-n", "-c", str(count), "-w", str(SECONDS), "-i", str(interval), *words, address],
                          text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    answered = {int(n) for n in re.findall(r"^\d+ bytes from .* icmp_seq=(\d+) ", done.stdout, re.M)}
    return sorted(set(range(1, count + 1)) - answered), done.stdout
