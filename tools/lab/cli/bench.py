# SPDX-License-Identifier: GPL-2.0-or-later
"""lab bench: what the benchmarks have measured, as a table, a page of HTML, CSV and JSON in the run's folder."""
import csv
import dataclasses
import datetime
import glob
import html
import json
import os
import platform
import re
import statistics
import subprocess

from testlib import bench, plot

from .steps import CACHE

HEAD = ("what", "ratio", "quartiles", "rounds", "goal", "")
COLUMNS = "{:84} {:>7} {:>15} {:>6} {:>8}  {}"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font-family: sans-serif; max-width: 60em; margin: 1em auto }}
table {{ border-collapse: collapse }}
td, th {{ padding: 0.2em 0.6em; text-align: left; border-bottom: 1px solid #ddd }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""
METHOD = ("Both legs of a comparison are run in each round, one after the other, and in every second round in the "
          "other order. A ratio is the median of the first leg divided by the median of the second. Its spread "
          "is the quartiles of the rounds' own ratios. In the first plot of a comparison there is a dot for each "
          "round, the quartiles are shaded, and the ratio is the upright line. The second plot has each "
          "measurement, in the order in which they were made.")


def first_line(*command):
    """What a program says first."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.partition("\n")[0].strip()


def conditions(folder):
    """What the figures of that run depend on: (name, value)."""
    with open(f"{folder}/check.json", encoding="utf-8") as file:
        check = json.load(file)
    config = check["config"]
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name\s*: (.*)$", file.read(), re.M)
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"^MemTotal: *(\d+)", file.read(), re.M)[1]) >> 20
    with open(f"{config['kernel']}/version", encoding="ascii") as file:
        kernel = file.read().strip()
    with open("/proc/loadavg", encoding="ascii") as file:
        load = file.read().split()[0]
    return [("machine", f"{found[1] if found else platform.machine()}, {os.cpu_count()} CPUs, {memory} GiB"),
            ("host's kernel", platform.release()),
            ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
            ("load of the host, in the end", load),
            ("accelerator", accelerator(folder)),
            ("kernel of L1 and L2", kernel),
            ("QEMU of L1", first_line(config["qemu"], "--version")),
            ("QEMU of L2", first_line(config["l2_qemu"], "--version")),
            ("commit", os.environ.get("LM_COMMIT") or "none: this is no git checkout"),
            ("form", "full" if check["long"] else "quick")]


def accelerator(folder):
    """What the L1s have run on, as their labs have found out."""
    found = set()
    for path in glob.glob(f"{folder}/*/lab.json"):
        with open(path, encoding="utf-8") as file:
            found.add("KVM" if json.load(file)["config"]["kvm"] else "TCG")
    return " and ".join(sorted(found)) or "none: no L1 has started"


def costs(folder):
    """What the lab itself takes: (what, how much). There is a line for each stage of the setup that was run: a cache
    that has it all spares most of them."""
    rows, labs = [], []
    if os.path.exists(f"{folder}/steps"):
        with open(f"{folder}/steps", encoding="utf-8") as file:
            took = [line.rstrip("\n").split("\t") for line in file]
        rows += [(f"setup: {what}", f"{seconds} s") for seconds, what in took]
    # what each lab has left, as vlm/lab.py writes it
    for path in sorted(glob.glob(f"{folder}/*/costs")):
        with open(path, encoding="ascii") as file:
            labs += [[float(word) for word in line.split()] for line in file]
    if labs:
        rows.append(("an L1 is up after, median", f"{statistics.median(ready for ready, *_ in labs):.1f} s"))
        rows.append(("memory of an L1's QEMU, at most", f"{max(max(peaks) for _, *peaks in labs):.0f} MiB"))
    sizes = subprocess.run(["du", "-sxm", *sorted(glob.glob(f"{CACHE}/*"))], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, text=True, check=False).stdout.splitlines()
    sizes = sorted((line.split("\t") for line in sizes), key=lambda size: -int(size[0]))
    rows += [(f"disk: {os.path.basename(path)}", f"{mib} MiB") for mib, path in sizes if int(mib)]
    return [*rows, ("disk: all of the cache", f"{sum(int(mib) for mib, _ in sizes)} MiB")]


def row(comparison):
    """Of the table. One that has no ratio says why."""
    try:
        ratio, (lower, upper) = comparison.ratio(), comparison.quartiles()
    except bench.BenchError as err:
        return None, (comparison.what, "none", "", "", "", str(err).removeprefix(f"{comparison.what}: "))
    return ratio, (comparison.what, f"{ratio:.3f}", f"{lower:.3f}..{upper:.3f}", len(comparison.rounds()),
                   *comparison.judged())


def found(folder):
    """What each benchmark has kept in the run's folder: (name, what load() has)."""
    return [(os.path.basename(os.path.dirname(path)), *bench.load(path))
            for path in sorted(glob.glob(f"{folder}/*/{bench.FILE}"))]


def table(kept):
    """For the terminal."""
    lines = [COLUMNS.format(*HEAD).rstrip()]
    for name, _, complete, comparisons, _ in kept:
        if not complete:
            lines.append(f"{name} did not come to its end: its figures are those until then")
        lines += [COLUMNS.format(*map(str, row(comparison)[1])).rstrip() for comparison in comparisons]
    return lines


def cells(tag, words):
    """A row of a table of HTML."""
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(word))}</{tag}>" for word in words) + "</tr>"


def section(name, what, complete, comparisons, pictures):
    """Of the page: one benchmark."""
    parts = [f"<h2>{html.escape(name)}</h2><p>{html.escape(what)}</p>"]
    if not complete:
        parts.append("<p><b>It did not come to its end: these are its figures until then.</b></p>")
    parts += [f"<h3>{html.escape(picture.title)}</h3>{plot.timeline(picture)}" for picture in pictures]
    rows = [(comparison, *row(comparison)) for comparison in comparisons]
    parts += ["<table>", cells("th", HEAD), *(cells("td", words) for _, _, words in rows), "</table>"]
    for comparison, ratio, _ in rows:
        if ratio is None:
            continue
        medians = [f"{leg} ({comparison.median(leg):.4g} {comparison.unit})" for leg in comparison.legs]
        parts.append(f"<h3>{html.escape(comparison.what)}</h3><p>{html.escape(' divided by '.join(medians))}</p>")
        parts += [plot.ratios(comparison), plot.samples(comparison)]
    return "\n".join(parts)


def page(facts, kept, taken):
    """The report."""
    body = ["<table>", *(cells("td", fact) for fact in facts), "</table>", f"<p>{METHOD}</p>",
            *(section(*words) for words in kept),
            "<h2>The lab itself</h2>", "<table>", *(cells("td", cost) for cost in taken), "</table>"]
    return PAGE.format(title="virtio-lm: benchmarks", body="\n".join(body))


def write(folder):
    """All of it, in the run's folder. The lines for the terminal."""
    facts, kept, taken = conditions(folder), found(folder), costs(folder)
    with open(f"{folder}/bench.html", "w", encoding="utf-8") as file:
        file.write(page(facts, kept, taken))
    figures = {name: {"complete": complete, "comparisons": [
        dict(dataclasses.asdict(comparison), ratio=row(comparison)[0]) for comparison in comparisons]}
        for name, _, complete, comparisons, _ in kept}
    with open(f"{folder}/bench.json", "w", encoding="utf-8") as file:
        json.dump({"conditions": dict(facts), "benchmarks": figures, "lab": dict(taken)}, file, indent=1)
    with open(f"{folder}/bench.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("benchmark", "what", "unit", "round", "leg", "value"))
        for name, _, _, comparisons, _ in kept:
            rows.writerows((name, c.what, c.unit, number + 1, leg, value)
                           for c in comparisons for number, leg, value in c.samples)
    return [*table(kept), "", *(f"{what:64} {value:>10}" for what, value in taken)]
