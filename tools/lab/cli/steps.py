# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a setup: each one's output goes to the run's folder, and the user sees how it goes."""
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time

RUN = "/virtio-lm/run"
CACHE = "/virtio-lm/cache"
SRC = "/virtio-lm/src"
# a line for each step that has gone well: its seconds, a tab, what it is
TOOK = f"{RUN}/steps"
# the user is told how a step goes on that often, the first time soon
FIRST_BEAT = 10
BEAT = 60
# a program that says nothing for so long is stuck: a build, a download
SILENT_SECONDS = 3600


class StepError(Exception):
    """What could not be made, and what to do."""


def outside(text):
    """With this run's folder and the cache as they are named on the host."""
    text = text.replace(RUN, os.environ.get("LM_HOST_RUN", RUN)).replace("/virtio-lm/host/", "/")
    return text.replace(CACHE, os.environ.get("LM_HOST_CACHE", CACHE))


def say(text):
    """To the user."""
    print(outside(text), file=sys.stderr, flush=True)


def last_line(path):
    """Of a log."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 400))
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:90] for line in reversed(lines) if line.strip()), "")


def step(what, seconds, command, optional=False):
    """Run a command that takes about so many seconds. Returns whether it went well, which it has to, unless it
    is optional: True, or the exit status by which it says that something cannot be had."""
    log = f"{RUN}/{re.sub('[^A-Za-z0-9._]', '-', what)}.log"
    begin = time.monotonic()
    say(f"  {what} (about {seconds} s) ...")
    with open(log, "a", encoding="utf-8") as file:
        proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    said = last_line(log)
    beat = begin + FIRST_BEAT
    heard = begin
    while True:
        try:
            status = proc.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if (line := last_line(log)) != said:
            said, heard = line, now
            if now >= beat:
                say(f"  {what}: {now - begin:.0f} s, {line}")
                beat = now + BEAT
        elif now > heard + SILENT_SECONDS:
            proc.kill()
            say(f"  {what}: has said nothing for {SILENT_SECONDS} s, and is ended")
    took = f"{time.monotonic() - begin:.0f} s"
    if status == 0:
        with open(TOOK, "a", encoding="utf-8") as file:
            file.write(f"{time.monotonic() - begin:.0f}\t{what}\n")
        say(f"  {what}: done in {took}")
        return True
    if status == optional and optional is not True:
        say(f"  {what}: {last_line(log)}")
        return False
    say(f"  {what}: FAILED after {took}, the end of {log}:")
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file.read().splitlines()[-15:]:
            say(f"  | {line}")
    if optional is not True:
        raise StepError(f"could not {what}, see {log}")
    return False


def need_space(mib):
    """Refuse to start what cannot end."""
    free = shutil.disk_usage(CACHE).free >> 20
    if free < mib:
        raise StepError(f"{CACHE} has {free} MiB free, {mib} MiB are needed: free some, or set XDG_CACHE_HOME to "
                        "another disk")


class SetupLock:
    """Alone in the cache."""

    def __enter__(self):
        self.file = open(f"{CACHE}/setup.lock", "ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another setup is at work in {CACHE}, waiting for it")
            fcntl.flock(self.file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        self.file.close()
