#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=85,128 variants=stock,debug form=both,all
"""The driver on a device that misbehaves (x-lm-*, tools/qemu/docs/system/devices/vdpa-net.rst):
each lifetime of it, from bind to unbind, ends in success or in a clean errno, no wait is without
end, the kernel reports nothing, and the same device, once it behaves, works.

`lab check --lives` says how many lifetimes. --seed is the first one's seed; each has the next, so that one
alone is repeated with its own seed and --lives 1."""
import collections
import errno
import os
import random
import select
import subprocess
import time

from testlib import kselftest, tap
from vlm.config import PATIENCE
from vlm.kernel_log import findings
from vlm.l1 import LabError, UP_LINE
from vlm.l2 import l2
from vlm.qmp import QMP

SEED = tap.parameter("seed", random.randrange(1 << 32))
DRIVER = "virtio_lm_vdpa"
# the driver's bound on each wait for the device
DEADLINE_MS = 50
# far beyond what all waits of one lifetime can take on a busy machine
WATCHDOG_SECONDS = 120
# a lifetime of the device as it should be comes once in so many; even, see misbehaviour()
HONEST_EVERY = 26
# the kernel's log is looked at, and emptied, once in so many
LOG_EVERY = 100

# what a request fails with when it is the device that is wrong; EAGAIN: it denies FEATURES_OK
# when the bus is about to ask for statistics (vdpa_fill_stats_rec())
CLEAN = {errno.EINVAL, errno.EIO, errno.ENODEV, errno.ETIMEDOUT, errno.ENOENT, errno.EPROTO,
         errno.EBUSY, errno.ERANGE, errno.EOPNOTSUPP, errno.EAGAIN}

# what the driver says of a device that is wrong, and the IOMMU of x-lm-dma-fault-every, which
# flips bit 46. Any other address is one that the device has used when it was not mapped any more
PROVOKED = (rf"{DRIVER} |vdpa vdpa_life: "
            r"|(virtio_lm_\w+|dmar_fault): \d+ callbacks suppressed"
            r"|DMAR: (DRHD: handling fault|\[DMA .* fault addr 0x40\w{10} )")

# each property: its value while it is off, and the others
OFF = {"num-queues": -1, "notify-off": -1, "caps": -1, "config-unsettled": False, "gone": False,
       "random": 0, "seed": 0, "ring-drift": 0, "reset-fail": False, "suspend-delay-ms": 0,
       "resume-fail": False, "dma-fault-every": 0, "irq-drop-every": 0, "irq-spurious-ms": 0,
       "drop-log-every": 0, "log-fault-after": 0,
       "ctrl-delay-ms": 0, "ctrl-error-every": 0}
HOSTILE = {
    "num-queues": (0, 1, 2, 3, 1024, 1025, 65535),
    # inside the LM block, behind it, beyond the BAR
    "notify-off": (1023, 1024, 1030, 2048, 4096, 5119, 5120, 16384, 65535),
    # gone, of another kind, of another version, and without each of the capabilities
    "caps": (0, 0xffffffff, 0x12340107, 0x4d4c0207, 0x4d4c0106, 0x4d4c0105, 0x4d4c0103),
    "config-unsettled": (True,),
    "gone": (True,),
    "random": (2, 10, 50, 200, 1000),
    # both indices by 64 is a state as good as any, but not for a packed ring of 32
    "ring-drift": (1, 0x10000, 0x400040, 0x7fffffff),
    "reset-fail": (True,),
    "suspend-delay-ms": (-1, 1, DEADLINE_MS // 2, 2 * DEADLINE_MS),
    "resume-fail": (True,),
    "dma-fault-every": (1, 2, 7),
    "irq-drop-every": (1, 2, 3),
    "irq-spurious-ms": (1, 5),
    "drop-log-every": (1, 3),
    "log-fault-after": (1, 20),
    "ctrl-delay-ms": (-1, 1, 2 * DEADLINE_MS),
    "ctrl-error-every": (1, 2),
}
# what has gone wrong once: the lifetime's seed, how the device misbehaves, and whether late
FOUND = (
    # a position behind the end of a packed ring was passed on to the VMM
    (65, {"ring-drift": 0x400040}, True),
    (169, {"ring-drift": 0x400040}, True),
    # a device that hid DRIVER_OK from vhost-vdpa left it with interrupts of a file that was closed
    *((seed, {"random": 500, "seed": seed}, True) for seed in range(40)),
    # a DRIVER_OK that was refused for a queue that the device did not take left it with those, too
    *((seed, {"ring-drift": 0x400040}, False) for seed in range(4)),
    # interrupts were freed while a CPU, which its host did not run just then, was about to handle
    # them: one time in two thousand, if the host was busy
    *((seed, {"irq-spurious-ms": 1}, True)
      for seed in range(5000 if tap.long_form() and not tap.DEBUG else 20)),
)
EACH = [(name, value) for name, values in HOSTILE.items() for value in values]
# what the driver reads before the device is started, and never again
EARLY = ("num-queues", "notify-off")
# each of them alone, from the beginning and late; a debug kernel takes several times as long for a
# lifetime, and has the most of them in the long form
LIVES = tap.parameter("lives", 10000 if tap.DEBUG and tap.long_form() else 50 if tap.DEBUG else 4 * len(EACH))


class Lives:
    """The lifetimes of one function: vdpa_lifetime in L1, and the function's properties."""

    def __init__(self, l1, function):
        self.l1 = l1
        self.path = f"/machine/peripheral/vdpa{function}"
        self.proc = l1.popen([f"{l1.config.tools}/kselftest/vdpa_lifetime", l1.pci(function)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.qmp = QMP(f"{l1.sockets}/{l1.name}.qmp")

    def close(self):
        """The driver is not bound, the properties are off."""
        self.qmp.close()
        self.proc.stdin.close()
        self.proc.wait(PATIENCE)

    def set(self, props):
        """Properties of the function. The seed comes last: it is what starts the others anew."""
        for name, value in sorted(props.items(), key=lambda item: item[0] == "seed"):
            self.qmp.cmd("qom-set", path=self.path, property=f"x-lm-{name}", value=value)

    def say(self, line):
        """One line to vdpa_lifetime, one back."""
        self.proc.stdin.write(line + "\n")
        self.proc.stdin.flush()
        if not select.select([self.proc.stdout], [], [], WATCHDOG_SECONDS)[0]:
            where = self.l1.run(["sh", "-c", "cat /proc/$(pidof vdpa_lifetime)/stack"]).stdout
            raise LabError(f"{line}: nothing has happened for {WATCHDOG_SECONDS} s: {where}")
        answer = self.proc.stdout.readline().split()
        if not answer:
            raise LabError(f"{line}: vdpa_lifetime has ended")
        return answer

    def live(self, seed, props, late):
        """One lifetime; the error and name of the first step that failed.
        late: the device behaves until it is started."""
        if not late:
            self.set(props)
        answer = self.say(f"{seed} late" if late else str(seed))
        if answer[1] == "up":
            self.set(props)
            answer = self.say("go")
        self.set({name: OFF[name] for name in props})
        return int(answer[2]), " ".join(answer[3:])


def misbehaviour(seed):
    """The properties of the lifetime with that seed, and whether they are set late: every other
    seed has one alone, each in its turn, the others have several."""
    rng = random.Random(seed)
    if seed % HONEST_EVERY == 0:
        return {}, False
    if seed % 2:
        turn, index = divmod(seed // 2, len(EACH))
        props = dict([EACH[index]])
        late = turn % 2 == 1 and EACH[index][0] not in EARLY
    else:
        props = {name: rng.choice(HOSTILE[name])
                 for name in rng.sample(sorted(HOSTILE), rng.choice((2, 2, 3)))}
        late = rng.random() < 0.6
    if "random" in props:
        props["seed"] = seed & 0xffffffff
    return props, late


class Complaints:
    """What L1's kernel says that nobody has asked for. Its log is followed, as it wraps around."""

    def __init__(self, l1):
        self.l1 = l1
        self.marks = 0
        self.path = f"{l1.run_dir}/{l1.name}.lives.dmesg"
        self.file = open(self.path, "w+", encoding="utf-8", errors="replace")
        self.proc = l1.popen(["dmesg", "--raw", "--follow"], stdout=self.file)
        self.reader = open(self.path, encoding="utf-8", errors="replace")

    def new(self):
        """All of them since the last time, up to now."""
        self.marks += 1
        mark = f"hostile: mark {self.marks}"
        self.l1.sh(f"echo '<6>{mark}' >/dev/kmsg")
        up = UP_LINE.format(self.l1.name)
        lines = [up]
        end = time.monotonic() + WATCHDOG_SECONDS
        while mark not in lines[-1]:
            line = self.reader.readline()
            if line.endswith("\n"):
                lines.append(line.strip())
            elif time.monotonic() > end:
                raise LabError(f"the kernel's log does not get to where {mark} is")
            else:
                self.reader.seek(self.reader.tell() - len(line.encode()))
                time.sleep(0.05)
        return findings(lines, up, PROVOKED)

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.file.close()
        self.reader.close()


def run_lives(t, l1):
    """All lifetimes, and what they came to."""
    lives = Lives(l1, 0)
    ended = collections.Counter()
    unclean, dishonest, found = [], [], []
    done = tap.Progress(lives=0, seed=SEED, good=0)
    first, before = done["seed"], done["lives"]
    t.note(f"--seed {first} --lives {LIVES}")
    complaints = Complaints(l1)
    complaints.new()
    start = time.monotonic()
    plan = [*FOUND, *((seed, *misbehaviour(seed)) for seed in range(first, first + LIVES))]
    for number, (seed, props, late) in enumerate(plan[before:], before + 1):
        try:
            err, step = lives.live(seed, props, late)
        except LabError:
            t.note(f"--seed {seed} --lives 1: {props}, {'late' if late else ''}")
            raise
        ended[f"{step}: {errno.errorcode.get(err, err)}" if err else ""] += 1
        if err and not props:
            dishonest.append(f"{seed}: {step} {os.strerror(err)}")
        if err and err not in CLEAN:
            unclean.append(f"{seed}: {step} {os.strerror(err)} with {props}")
        if number % LOG_EVERY == 0:
            found += [f"up to seed {seed}: {line}" for line in complaints.new()]
            if not (found or unclean or dishonest):
                done.save(lives=number, good=done["good"] + ended.pop("", 0))
    t.note(f"{(time.monotonic() - start) / max(1, len(plan) - before):.3f} s each")
    found += complaints.new()
    complaints.close()
    lives.close()

    for what, count in ended.most_common():
        if what:
            t.note(f"{count} ended with {what}")
    good = done["good"] + ended[""]
    t.equal(unclean, [], "what fails on a hostile device fails with a clean errno")
    t.equal(dishonest, [], "in between, the device as it should be works each time")
    t.equal(found, [], "the kernel has nothing to report of all that")
    t.ok(LIVES < 50 or 0 < good < len(plan), "some lifetimes fail, and some do not")
    if tap.DEBUG:
        t.figure("hostile: lifetimes of a device that misbehaves", len(plan), 10000)
    t.note(f"hostile: {len(plan)} lifetimes, {good} ended in success, "
           f"{len(plan) - good - len(unclean)} in a clean errno, seed {first}")


def give(l1, function):
    """Bind the driver to the function."""
    l1.run(["sh", "-c", f"""
        dev=/sys/bus/pci/devices/{l1.pci(function)}
        echo {DRIVER} >$dev/driver_override
        [ ! -e $dev/driver ] || echo {l1.pci(function)} >$dev/driver/unbind
        echo {l1.pci(function)} >/sys/bus/pci/drivers/{DRIVER}/bind"""])


changes = {"devices": 2, "queues": 2, "device_props":
           f"{kselftest.PROPS},packed=on,mq=on;{kselftest.PROPS},x-lm-truncate=on"}

with tap.Tap() as t, tap.make_lab(**changes) as lab:
    l1 = lab.l1s[0]
    l2.take_over(l1)
    deadline = f"/sys/module/{DRIVER}/parameters/deadline_ms"
    usual = l1.sh(f"cat {deadline}; vdpa dev del vdpa0; echo {DEADLINE_MS} >{deadline}").strip()

    give(l1, 1)
    t.ok(f"{l1.pci(1)}: no room for a live-migration block" in l1.sh("dmesg"),
         "a function whose BAR ends before the block is refused, and the driver says why")

    l1.sh(f"echo {l1.pci(0)} >/sys/bus/pci/drivers/{DRIVER}/unbind")
    if tap.DEBUG:
        # as long as it is enabled by somebody else, too, the kernel does not look for its INTx at each
        # bind and unbind: evaluations of ACPI's _PRT, which would be two fifths of a lifetime
        l1.sh(f"echo 1 >/sys/bus/pci/devices/{l1.pci(0)}/enable")
    run_lives(t, l1)

    l1.sh(f"echo {usual} >{deadline}")
    if not tap.DEBUG:
        kselftest.run_function(t, lab, 0, "after all that", "peer,link", only=["vdpa_net"])
    t.clean_logs(lab, PROVOKED)
