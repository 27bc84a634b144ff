# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks: two legs are run in turn, and their ratio is the result.

The load of a machine and the placement of its guests change from minute to minute, and from one boot to
the next. So an absolute time is never a result. Both legs are run in each round, one right after the
other, and the next round has them in the other order. The result is the ratio of the two medians. Its
spread is the quartiles of the ratios that the rounds have by themselves.

A benchmark promises, by TAP, that what it has measured went well. What came out is never a promise:
a goal is printed beside the ratio, with "met" or by how much it is missed.

Nothing in here needs a guest: tests/bench.t tests it."""
import dataclasses
import json
import math
import os
import statistics
import typing

from vlm.l1 import LabError

# of one benchmark, in its folder
FILE = "bench.json"
MET = "met"


class BenchError(LabError):
    """Samples of which no ratio can be made, and why."""


def order(legs, rounds):
    """The sequence in which the legs are run: (round, leg), in every second round the other way around."""
    if rounds < 2:
        raise BenchError(f"{rounds} rounds: a spread needs 2 or more")
    return [(n, leg) for n in range(rounds) for leg in (legs if n % 2 == 0 else legs[::-1])]


class Goal(typing.NamedTuple):
    """What a ratio should be at least, or at most; or, if of_first, the first leg's median."""
    sense: str      # ">=" or "<="
    value: float
    of_first: bool = False

    def verdict(self, value):
        """Met, or by how much it is missed."""
        missed = self.value - value if self.sense == ">=" else value - self.value
        return MET if missed <= 0 else f"missed by {missed:.3g}"


def at_least(value):
    """That goal."""
    return Goal(">=", value)


def at_most(value):
    """That goal."""
    return Goal("<=", value)


def first_at_most(value):
    """That goal of the first leg's median, in the unit that it is measured in."""
    return Goal("<=", value, of_first=True)


@dataclasses.dataclass
class Comparison:
    """One figure of two legs: the first one's is divided by the second one's."""
    what: str
    unit: str
    legs: tuple
    goal: Goal = None
    # (round, leg, value), in the order in which they were measured
    samples: list = dataclasses.field(default_factory=list)

    def add(self, number, leg, value):
        """What was measured of a leg in that round."""
        if leg not in self.legs:
            raise BenchError(f"{self.what}: {leg} is none of its legs, which are {' and '.join(self.legs)}")
        if (number, leg) in [sample[:2] for sample in self.samples]:
            raise BenchError(f"{self.what}: round {number + 1} has {leg} already")
        if not math.isfinite(value) or value < 0:
            raise BenchError(f"{self.what}: round {number + 1}, {leg}: {value} {self.unit} is no measurement")
        self.samples.append((number, leg, value))

    def values(self, leg):
        """Those of one leg, by round."""
        return {number: value for number, at, value in self.samples if at == leg}

    def median(self, leg):
        """Of one leg, over whole rounds."""
        values = self.values(leg)
        return statistics.median([values[number] for number in self.rounds()])

    def rounds(self):
        """Those that both legs have. Half a round is left out: its other half was never run."""
        return sorted(set(self.values(self.legs[0])) & set(self.values(self.legs[1])))

    def whole(self):
        """Refuse what is too little for a ratio."""
        if len(self.rounds()) < 2:
            raise BenchError(f"{self.what}: {len(self.rounds())} whole rounds: a spread needs 2 or more")

    def ratios(self):
        """Of each round by itself."""
        first, second = (self.values(leg) for leg in self.legs)
        return [divide(self.what, first[number], second[number]) for number in self.rounds()]

    def ratio(self):
        """Of the medians."""
        self.whole()
        return divide(self.what, *(self.median(leg) for leg in self.legs))

    def judged(self):
        """The goal, as text, and whether it is met."""
        if not self.goal:
            return "-", ""
        value = self.median(self.legs[0]) if self.goal.of_first else self.ratio()
        unit = f" {self.unit}" if self.goal.of_first else ""
        verdict = self.goal.verdict(value)
        return f"{self.goal.sense} {self.goal.value:g}{unit}", verdict if verdict == MET else f"{verdict}{unit}"

    def quartiles(self):
        """The lower and the upper one of ratios()."""
        self.whole()
        lower, _, upper = statistics.quantiles(self.ratios(), n=4, method="inclusive")
        return lower, upper


def divide(what, first, second):
    """A ratio; of two zeros it is 1."""
    if second == 0 and first == 0:
        return 1.0
    if second == 0:
        raise BenchError(f"{what}: a ratio to 0: measure for longer, or something that happens more often")
    return first / second


@dataclasses.dataclass
class Picture:
    """Counts in steps of time, of one or more lines, with the phases of what happened meanwhile."""
    title: str
    unit: str
    step: float         # seconds
    lines: dict         # name: counts
    phases: list        # (from, to, name), in seconds


class Bench:
    """What one benchmark has measured, kept in a folder as it goes on. Use as a context manager."""

    def __init__(self, folder, what):
        self.path = f"{folder}/{FILE}"
        self.what = what
        self.comparisons = []
        self.pictures = []

    def compare(self, what, unit, legs, goal=None):
        """A new Comparison."""
        self.comparisons.append(Comparison(what, unit, tuple(legs), goal))
        return self.comparisons[-1]

    def save(self, complete=False):
        """All there is: a run that is ended leaves what it had."""
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump({"what": self.what, "complete": complete,
                       "comparisons": [dataclasses.asdict(comparison) for comparison in self.comparisons],
                       "pictures": [dataclasses.asdict(picture) for picture in self.pictures]}, file, indent=1)
        os.rename(self.path + ".new", self.path)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.save(complete=kind is None)


def load(path):
    """What a benchmark has kept: (its first sentence, whether it is complete, comparisons, pictures)."""
    with open(path, encoding="utf-8") as file:
        kept = json.load(file)
    comparisons = [Comparison(words["what"], words["unit"], tuple(words["legs"]),
                              words["goal"] and Goal(*words["goal"]),
                              [tuple(sample) for sample in words["samples"]]) for words in kept["comparisons"]]
    return kept["what"], kept["complete"], comparisons, [Picture(**words) for words in kept["pictures"]]
