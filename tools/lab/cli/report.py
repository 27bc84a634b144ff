# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests have said: TAP in, totals, a table, JUnit XML and JSON out."""
import collections
import dataclasses
import json
import re
import xml.etree.ElementTree as ET

from .steps import RUN

LINE = re.compile(r"(?P<bad>not )?ok(?=\s|$)\s*\d*\s*-?\s*(?P<what>.*?)\s*(?:#\s*(?i:SKIP)\b\s*(?P<skip>.*))?$")
PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*SKIP\b\s*(.*))?$", re.I)
FIGURE = re.compile(r"# figure: (.*?) \| (.*?) \| (.*)$")


@dataclasses.dataclass
class Promise:
    """One line of TAP."""
    what: str
    good: bool
    # why it was not tried; None where it was
    skipped: str = None
    notes: list = dataclasses.field(default_factory=list)


class Result:
    """What one test has said, line by line."""

    def __init__(self, name):
        self.name = name
        self.promises = []
        self.figures = []
        self.plan = None
        self.seconds = 0.0

    def line(self, text):
        """The next line. Returns the Promise that it is, if it is one."""
        if found := PLAN.match(text):
            if self.plan is not None:
                self.promises.append(Promise("has one plan", False))
            elif found[1] == "0" and (self.promises or not found[2]):
                self.promises.append(Promise("promises something, or is skipped as a whole with a reason", False))
            elif found[1] == "0":
                self.promises.append(Promise("the whole test", True, found[2]))
            self.plan = int(found[1])
        elif found := LINE.match(text):
            self.promises.append(Promise(found["what"], not found["bad"], found["skip"]))
            return self.promises[-1]
        elif found := FIGURE.match(text):
            self.figures.append(found.groups())
        elif text.startswith("#") and self.promises:
            self.promises[-1].notes.append(text[1:].strip())
        return None

    def end(self, status, seconds):
        """It has ended so. A test that dies, or that says less than it has planned, has failed, whatever it said."""
        self.seconds = seconds
        said = len(self.promises) if self.plan else self.plan
        if self.plan is None:
            self.promises.append(Promise(f"goes through to its end (it ended with {status}, and has no plan)", False))
        elif said != self.plan:
            self.promises.append(Promise(f"says all that it has planned ({said} of {self.plan})", False))
        elif status and not self.failed():
            self.promises.append(Promise(f"ends well (it ended with {status})", False))

    def failed(self):
        """The promises that were not kept."""
        return [promise for promise in self.promises if not promise.good]

    def skipped(self):
        """Those that were not tried."""
        return [promise for promise in self.promises if promise.good and promise.skipped is not None]

    def passed(self):
        """How many were kept."""
        return len(self.promises) - len(self.failed()) - len(self.skipped())


def totals(results):
    """One line."""
    passed = sum(result.passed() for result in results)
    failed = sum(len(result.failed()) for result in results)
    skipped = sum(len(result.skipped()) for result in results)
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def skips(results):
    """Why something was not tried, and how often."""
    why = collections.Counter(promise.skipped for result in results for promise in result.skipped())
    return [f"  {count:4} skipped: {reason}" for reason, count in why.most_common()]


def kselftest(title):
    """Which one a title is of, whatever the parent: the binary, without its options, and the test."""
    binary, test = title.split(": ")[-2:] if ": " in title else ("", title)
    return f"{binary.split(' -')[0]}: {test}"


def never_tried(results):
    """The kselftests that were skipped with each parent, on each kernel: they promise nothing."""
    tried = {kselftest(promise.what) for result in results for promise in result.promises
             if promise.skipped is None}
    skipped = set()
    for promise in [promise for result in results for promise in result.skipped()]:
        # as kselftest.run() of testlib says it: how many, and which
        if found := re.match(r"(.*: )\d+ tests$", promise.what):
            skipped |= {kselftest(title) for title in promise.notes if title.startswith(found[1])}
    return sorted(skipped - tried)


def failures(results):
    """All that has failed once more: the end is what is read first."""
    lines = []
    for result, promise in [(result, promise) for result in results for promise in result.failed()]:
        lines.append(f"  not ok: {result.name}: {promise.what}")
        lines += [f"    {note}" for note in promise.notes[:10]]
    return lines


def table(results):
    """What was counted."""
    rows = [figure for result in results for figure in result.figures]
    if not rows:
        return []
    head = ("what was counted", "count", "at least")
    return ["", *(f"{what:72} {count:>12} {least:>12}" for what, count, least in (head, *rows)), ""]


def write(results):
    """In the run's folder, for programs."""
    suites = ET.Element("testsuites")
    for result in results:
        suite = ET.SubElement(suites, "testsuite", name=result.name, tests=str(len(result.promises)),
                              failures=str(len(result.failed())), skipped=str(len(result.skipped())),
                              time=f"{result.seconds:.1f}")
        for promise in result.promises:
            case = ET.SubElement(suite, "testcase", classname=result.name, name=printable(promise.what))
            if not promise.good:
                failure = ET.SubElement(case, "failure", message=printable(promise.what))
                failure.text = printable("\n".join(promise.notes))
            elif promise.skipped is not None:
                ET.SubElement(case, "skipped", message=printable(promise.skipped))
    ET.ElementTree(suites).write(f"{RUN}/junit.xml", encoding="utf-8", xml_declaration=True)
    with open(f"{RUN}/results.json", "w", encoding="utf-8") as file:
        json.dump([{"test": result.name, "seconds": round(result.seconds, 1), "figures": result.figures,
                    "promises": [dataclasses.asdict(promise) for promise in result.promises]} for result in results],
                  file, indent=1)


def printable(text):
    """Without what XML cannot have."""
    return "".join(c if c in "\t\n" or c >= " " else "?" for c in text)
