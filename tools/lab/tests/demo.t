#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=migration cost=126 variants=stock form=all
"""`make demo` shows a migration on the device's log and one by shadow virtqueues, side by side. Its report
has a number for each of its lines and both ways, and the numbers say that all is well: each page right,
nothing of L2's lost, and to L2 nothing but one run of packets for each stop of its device. It names a picture of
each, with the packets of both directions and the phases of the migration. One that fails says why, and where its logs
are."""
import os
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET

from cli import demo
from testlib import tap
from vlm.traffic import agent_mib, device_stops

SECONDS = 1200
NO_KERNEL = "/virtio-lm/src/README.md"
WIDTH = 24
WAYS = "device", "svq"
SVG = "{http://www.w3.org/2000/svg}"
# what each way has of it
MIGRATE = "migrate"
PHASES = ["source: suspend to reset", "last pass, stream", "destination: start"]
RESTART = "restart by shadow virtqueues"
LOST = "to L2: lost, late, doubled, corrupt"
NOTHING_LOST = "from L2: lost, late, doubled, corrupt"
# each line of the report, and what its numbers have to look like
LINES = {
    "total time": r"(\d+\.\d) s",
    "downtime, by QEMU's account": r"(\d+) ms",
    "  last suspend to last ring enable": r"(\d+) ms",
    "  longest gap in packets to L2": r"(\d+) ms",
    "  longest gap in packets from L2": r"(\d+) ms",
    LOST: r"(\d+), (\d+), (\d+), (\d+) of (\d+)",
    "  lost in runs, outside of the move": r"(\d+), (\d+)",
    NOTHING_LOST: r"(\d+), (\d+), (\d+), (\d+) of (\d+)",
    "slowest answer": r"(\d+) ms",
    "sent": r"(\d+) MiB in (\d+) passes",
    "pages the device dirtied": r"(\d+)|not told",
    "L2's pages checked, bad": r"(\d+), (\d+)",
    "packets held in L2, bad, late": r"(\d+), (\d+), (\d+)",
}


def make_demo(*words):
    """Run it, with more options: its exit status and all that it shows."""
    done = subprocess.run(["make", "-C", "/virtio-lm/src", "demo", f"OPTIONS={shlex.join([*tap.CHECK['up'], *words])}"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=SECONDS, check=False)
    return done.returncode, done.stdout


def logs_of(shown):
    """The folders of logs that it names, which are there."""
    return [path for path in re.findall(r"^logs: (\S+)$", shown, re.M) if os.path.isdir(path)]


def numbers(shown, what):
    """What the line of that name has for both ways: the numbers as text, or None where it is not like that."""
    lines = [line[40:] for line in shown.splitlines() if line[2:40].rstrip() == what]
    if len(lines) != 1:
        return [None, None]
    found = [re.fullmatch(LINES[what], column.strip()) for column in (lines[0][:WIDTH], lines[0][WIDTH:])]
    return [match and match.groups() for match in found]


def drawn(t, shown, name, way):
    """There is a picture of a migration."""
    found = re.search(rf"^  picture of it, {name} +(\S.*)$", shown, re.M)
    if not t.ok(found and os.path.exists(found[1]), f"{name}: there is a picture of it"):
        return
    svg = ET.parse(found[1]).getroot()
    words = [text.text for text in svg.iter(f"{SVG}text")]
    want = [MIGRATE] + [RESTART] * (way == "svq") + PHASES
    # and the time to the first packet, unless that is less than a step
    t.equal([text for text in words if text in want + [RESTART]], want, f"{name}: with the phases")
    lines = [[point.split(",")[1] for point in line.get("points").split()] for line in svg.iter(f"{SVG}polyline")]
    t.equal([len(set(line)) > 1 for line in lines], [True, True], f"{name}: and how many packets went each way")


tap.need_log()
with tap.Tap() as t:
    status, shown = make_demo("--l2-kernel", NO_KERNEL)
    t.ok(status != 0, "a demonstration that fails ends with an error")
    t.ok(re.search(r"^virtio-lm: L2's QEMU did not start in l1a: \S", shown, re.M), "and says why")
    if not t.equal(len(logs_of(shown)), 1, "and where its logs are"):
        t.note(shown)

    status, shown = make_demo()
    t.note(shown)
    t.equal(status, 0, "make demo ends well")
    t.ok(any(line.split() == " ".join(demo.NAMES[way] for way in WAYS).split() for line in shown.splitlines()),
         "a column for each way")
    t.ok("NOT as it should be" not in shown and re.search(r"^  kernel logs +clean$", shown, re.M),
         "the kernels have nothing to report")
    rows = {what: numbers(shown, what) for what in LINES}
    for what, both in rows.items():
        t.ok(None not in both, f"{what}: for both")
    t.equal([what for what, _ in demo.ROWS if what not in LINES], [], "that is all of its lines")
    t.equal(len(logs_of(shown)), 1, "it names the folder of its logs")
    with open("/virtio-lm/src/README.md", encoding="utf-8") as file:
        readme = file.read().partition("```\nAn L2 guest")[2].partition("```")[0]
    first, last = (text.index("total time") for text in (readme, shown))
    labels = [[line[2:40].rstrip() for line in text.splitlines() if line.startswith("  ")]
              for text in (readme[first - 2:], shown[last - 2:])]
    t.equal(labels[0], labels[1], "README shows a report with the same lines")
    if t.failed:
        raise AssertionError("the report is not what it was")

    for n, way in enumerate(WAYS):
        name = demo.NAMES[way]
        has = {what: both[n] for what, both in rows.items()}
        lost, *others, sent = (int(number) for number in has[LOST])
        runs, elsewhere = (int(number) for number in has["  lost in runs, outside of the move"])
        t.ok(lost < sent and others == [0, 0, 0], f"{name}: to L2: packets go, none late, doubled or damaged")
        t.at_most(runs, device_stops(way), f"{name}: runs of lost packets")
        t.equal((elsewhere, lost > 0), (0, runs > 0), f"{name}: in the move, and nowhere else")
        *bad, sent = (int(number) for number in has[NOTHING_LOST])
        t.ok(sent > 0 and bad == [0, 0, 0, 0], f"{name}: from L2: packets go, none lost, late, doubled or damaged")
        checked, bad = (int(number) for number in has["L2's pages checked, bad"])
        t.ok(checked >= agent_mib(tap.config(l1s=2)) << 8, f"{name}: every page was checked: {checked}")
        t.equal(bad, 0, f"{name}: and was right")
        held, bad, late = (int(number) for number in has["packets held in L2, bad, late"])
        t.ok(held > 0 and bad == late == 0, f"{name}: and so were the packets that it held")
        mib, passes = (int(number) for number in has["sent"])
        t.ok(mib > 0 and passes > 0, f"{name}: L2's memory was sent")
        t.equal(has["pages the device dirtied"] != (None,) and has["pages the device dirtied"] != ("0",),
                way == "device", f"{name}: the device has logged pages, if that is how")
        t.ok(int(has["downtime, by QEMU's account"][0]) <= 1000 * float(has["total time"][0]),
             f"{name}: the downtime is a part of all of the time")
        drawn(t, shown, name, way)
