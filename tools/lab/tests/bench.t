#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=lab cost=3
"""The benchmarks' arithmetic and their report, by samples whose ratios are known: the order of the legs, ratios,
spreads and goals; a report that shows each of them, its conditions and every raw sample. And no benchmark is
run by `lab check` of itself, nor together with anything else."""
import csv
import html
import json
import os
import re
import xml.etree.ElementTree as ET

from cli import bench as report
from cli import runner, tests
from testlib import bench, plot, tap
from testlib.bench import at_least, at_most, first_at_most

LEGS = "ours", "<theirs>"
# rounds of both legs: ratios 1.0, 0.5, 1.1, 0.9, 1.2
SAMPLES = ((10, 10), (10, 20), (11, 10), (18, 20), (12, 10))
COSTS = (("setup: make the tree", "71 s"), ("an L1 is up after, median", "8.0 s"),
         ("memory of an L1's QEMU, at most", "513 MiB"))
FACTS = ("machine", "date", "accelerator", "kernel of L1 and L2", "QEMU of L1", "QEMU of L2", "commit",
         "load of the host, in the end")
SVG = "{http://www.w3.org/2000/svg}"


def refused(what, words, act):
    """Something that is no measurement is refused, and it is said why."""
    try:
        act()
        t.ok(False, f"{what}: refused")
    except bench.BenchError as err:
        t.ok(words in str(err), f"{what}: refused, and it is said why")
        t.note(err)


def fill(comparison):
    """Those samples, in the order in which a benchmark has them."""
    for number, leg in bench.order(LEGS, len(SAMPLES)):
        comparison.add(number, leg, SAMPLES[number][LEGS.index(leg)])
    return comparison


def statistics():
    """Ratios and spreads."""
    t.equal(bench.order("AB", 3), [(0, "A"), (0, "B"), (1, "B"), (1, "A"), (2, "A"), (2, "B")],
            "every second round has the legs in the other order")
    refused("one round", "2 or more", lambda: bench.order("AB", 1))
    c = fill(bench.Comparison("speed", "MiB/s", LEGS))
    t.equal([round(ratio, 3) for ratio in c.ratios()], [1.0, 0.5, 1.1, 0.9, 1.2], "each round has its ratio")
    # 11 of 10, 10, 11, 18, 12, by 10 of 10, 20, 10, 20, 10: not the median of the ratios, which is 1
    t.equal(round(c.ratio(), 3), 1.1, "the ratio is that of the medians")
    t.equal([round(q, 3) for q in c.quartiles()], [0.9, 1.1], "the spread is the quartiles of the rounds' ratios")
    c.add(5, LEGS[0], 1000)
    t.equal((round(c.ratio(), 3), len(c.ratios())), (1.1, 5), "half a round is left out")
    refused("the same once more", "round 1 has ours already", lambda: c.add(0, LEGS[0], 1))
    refused("a leg that there is not", "others is none of its legs", lambda: c.add(6, "others", 1))
    for value in float("nan"), float("inf"), -1:
        refused(f"a value of {value}", f"{value} MiB/s is no measurement", lambda: c.add(6, LEGS[0], value))
    empty = bench.Comparison("nothing", "ms", LEGS)
    refused("no rounds", "0 whole rounds", empty.ratio)
    zero = bench.Comparison("lost", "packets", LEGS)
    for number in range(2):
        zero.add(number, LEGS[0], 3)
        zero.add(number, LEGS[1], 0)
    refused("something divided by nothing", "a ratio to 0", zero.ratio)
    t.equal(bench.divide("lost", 0, 0), 1.0, "nothing is as much as nothing")
    goals = (at_least(0.97), 0.97), (at_least(0.97), 0.9), (at_most(0.5), 0.4), (at_most(0.5), 0.75)
    t.equal([goal.verdict(ratio) for goal, ratio in goals],
            ["met", "missed by 0.07", "met", "missed by 0.25"], "a goal is met, or by how much it is missed")
    # the first leg's median is 11
    t.equal([fill(bench.Comparison("wait", "ms", LEGS, goal)).judged()
             for goal in (first_at_most(10), first_at_most(11), at_most(1), None)],
            [("<= 10 ms", "missed by 1 ms"), ("<= 11 ms", "met"), ("<= 1", "missed by 0.1"), ("-", "")],
            "a goal is one of the ratio, or of what the first leg took")


def plots():
    """They show what there is."""
    c = fill(bench.Comparison("speed", "MiB/s", LEGS, at_least(0.97)))
    drawn = ET.fromstring(plot.ratios(c))
    t.equal(len(drawn.findall(f"{SVG}circle")), len(SAMPLES), "a plot of ratios has a dot for each round")
    dots = [float(dot.get("cx")) for dot in drawn.findall(f"{SVG}circle")]
    at = {line.get("class"): float(line.get("x1")) for line in drawn.findall(f"{SVG}line") if line.get("class")}
    box = drawn.find(f"{SVG}rect")
    at["lower"], at["upper"] = float(box.get("x")), float(box.get("x")) + float(box.get("width"))
    # by the dots of the ratios 0.5 and 1.2
    found = {name: round(0.5 + (x - dots[1]) / (dots[4] - dots[1]) * 0.7, 2) for name, x in at.items()}
    t.equal(found, {"goal": 0.97, "ratio": 1.1, "lower": 0.9, "upper": 1.1},
            "goal, ratio and quartiles are where they belong")
    drawn = ET.fromstring(plot.samples(c))
    dots = [float(dot.get("cy")) for dot in drawn.findall(f"{SVG}circle") if dot.get("r") == "3"]
    t.equal(len(dots), 2 * len(SAMPLES), "a plot of samples has a dot for each")
    # of the legs, one after the other; the second one's are 10, 20, 10, 20, 10
    t.equal([round(dot) for dot in dots[5:]], [63, 16, 63, 16, 63], "as high as they are")
    picture = bench.Picture("one", "packets", 0.1, {"to L2": [1, 2, 0], "from L2": [2, 2, 4]},
                            [(0, 0.1, "before"), (0.1, 0.3, "stopped & started")])
    drawn = ET.fromstring(plot.timeline(picture))
    t.equal(len(drawn.findall(f"{SVG}polyline")), 2, "a timeline has a line for each direction")
    t.equal(len(drawn.findall(f"{SVG}rect")), 2, "and each phase is marked")
    t.ok("stopped & started" in [text.text for text in drawn.findall(f"{SVG}text")], "with its name")
    return picture


def a_report(picture):
    """All of it, of two benchmarks, one of which has not come to its end."""
    folder = f"{tap.run_dir()}/report"
    for name in "bench-one", "bench-two":
        os.makedirs(f"{folder}/{name}")
    with open(f"{folder}/check.json", "w", encoding="utf-8") as file:
        json.dump(tap.CHECK, file)
    with open(f"{folder}/bench-one/lab.json", "w", encoding="utf-8") as file:
        json.dump({"config": {"kvm": False}}, file)
    with open(f"{folder}/bench-one/costs", "w", encoding="ascii") as file:
        file.write("7.04 512 513\n9.04 400\n")
    with open(f"{folder}/steps", "w", encoding="utf-8") as file:
        file.write("71\tmake the tree\n")
    with bench.Bench(f"{folder}/bench-one", "One & all.") as one:
        fill(one.compare("speed <now>", "MiB/s", LEGS, at_least(1.15)))
        one.compare("never measured", "ms", LEGS)
        one.pictures.append(picture)
    try:
        with bench.Bench(f"{folder}/bench-two", "Two.") as two:
            fill(two.compare("other", "ms", LEGS))
            raise InterruptedError
    except InterruptedError:
        pass
    lines = report.write(folder)
    t.note("\n".join(lines))
    t.equal([line.split() for line in lines if line.startswith("speed")],
            ["speed <now> 1.100 0.900..1.100 5 >= 1.15 missed by 0.05".split()],
            "the table has ratio, spread and goal")
    t.ok(any(line.startswith("never measured") and "0 whole rounds" in line for line in lines),
         "and says why there is no ratio")
    t.ok(any("bench-two did not come to its end" in line for line in lines), "and which figures are not all")
    with open(f"{folder}/bench.html", encoding="utf-8") as file:
        page = file.read()
    for words in "speed <now>", "<theirs>", "One & all.", "missed by 0.05", "0.900..1.100":
        escaped = html.escape(words)
        t.ok(escaped in page and (words == escaped or words not in page), f"the page has {words}")
    for what, value in COSTS:
        t.ok(f"<td>{html.escape(what)}</td><td>{value}</td>" in page
             and f"{what} {value}".split() in [line.split() for line in lines],
             f"page and table have what the lab takes: {what}")
    t.ok(any(re.match(r"disk: all of the cache +[1-9]\d* MiB$", line) for line in lines), "and how much of the disk")
    t.equal(len(re.findall("<svg", page)), 5, "and a picture, and two plots for each comparison that was measured")
    for fact in FACTS:
        t.ok(re.search(f"<td>{fact}</td><td>[^<]+</td>", page), f"and tells of the {fact}")
    t.ok("<td>accelerator</td><td>TCG</td>" in page, "the accelerator is what the lab has found")
    with open(f"{folder}/bench.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    t.equal(len(rows), 1 + 4 * len(SAMPLES), "each sample is in the CSV")
    t.equal(rows[3], ["bench-one", "speed <now>", "MiB/s", "2", "<theirs>", "20"],
            "with its round, in the order of measuring")
    with open(f"{folder}/bench.json", encoding="utf-8") as file:
        one = json.load(file)["benchmarks"]["bench-one"]
    t.equal(one["comparisons"][0]["samples"][2], [1, "<theirs>", 20], "and in the JSON")


def runs():
    """Which tests are run."""
    known = tests.find()
    benchmarks = {name for name, test in known.items() if test.group == "bench"}
    t.ok(benchmarks, f"there are benchmarks: {' '.join(sorted(benchmarks))}")
    t.equal({known[name].form for name in benchmarks}, {"asked", "long"}, "none is run unasked")

    def chosen(groups=None, every=False, long=False):
        return {test.name for test in tests.choose([], groups, None, every, long)}

    for form in {}, {"every": True}, {"long": True}:
        t.equal(benchmarks & chosen(**form), set(), f"lab check {''.join(form)} has none of them")
    t.equal(chosen(["bench"], long=True), benchmarks, "lab bench has all of them")
    t.equal(chosen(["bench"]), {name for name in benchmarks if known[name].form == "asked"}, "lab bench --quick some")
    some = [known[name] for name in benchmarks] + [known["bench"]]
    t.equal(runner.Runner(some, {"long": True}, False).jobs, 1, "and one at a time, whatever else is asked for")
    t.equal(runner.Runner([known["bench"]], {"long": True}, False).jobs, 2, "of other tests there are two")


with tap.Tap() as t:
    statistics()
    a_report(plots())
    runs()
