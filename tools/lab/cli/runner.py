# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the tests, two at a time, or benchmarks, one at a time, and shows how it goes."""
import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

from . import options, report
from .steps import CACHE, RUN, SRC, say

# what a test took the last time is what it will take: the longest first
TIMES = f"{CACHE}/times.json"
# what the list says of a form
NOTES = {"both": "", "all": "--all: ", "long": "long form: ", "asked": "only if asked for: "}
# the user is told what runs that often
BEAT = 60


def known_times():
    """Of earlier runs on this machine, by the test's name."""
    try:
        with open(TIMES, encoding="ascii") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return {}


def keep_times(results):
    """For the next run. What was skipped as a whole has taken no time."""
    times = {**known_times(), **{result.name: round(result.seconds) for result in results
                                 if result.plan and not result.failed()}}
    with open(TIMES + ".new", "w", encoding="ascii") as file:
        json.dump(times, file)
    os.rename(TIMES + ".new", TIMES)


class Runner:
    """The tests that are to be run, and those that have been. end: by time.monotonic(), when all of them are to have
    ended; what would not is left, those of form=all first."""

    def __init__(self, tests, check, verbose, end=None):
        times = {} if check["long"] else known_times()
        self.expected = {test.name: times.get(test.name, test.cost) for test in tests}
        self.end = end
        self.waiting = sorted(tests, key=lambda test: (bool(end) and test.form != "both", -self.expected[test.name]))
        self.total = len(tests)
        self.verbose = verbose
        self.check = check
        # the fuzzer takes what the other two leave; a benchmark measures what another test takes from it
        self.jobs = 3 if any("qemu-fuzz" in test.needs for test in tests) else 2
        if any(test.group == "bench" for test in tests):
            self.jobs = 1
        self.running = {}
        self.results = []
        self.lock = threading.Condition()

    def next(self):
        """The test to start now, if there is one: the vCPUs of two debug kernels would wait for each other."""
        busy = {test.variant for test in self.running}
        for test in self.waiting:
            if test.variant == "debug" and "debug" in busy or not self.fits(test):
                continue
            self.waiting.remove(test)
            return test
        return None

    def fits(self, test):
        """Will it have ended in time, if it is as slow as those before it?"""
        if not self.end:
            return True
        # one that hangs to its deadline says nothing of the machine
        good = [result for result in self.results if not result.failed()]
        planned = sum(self.expected[result.name] for result in good)
        slow = max(1, sum(result.seconds for result in good) / planned) if planned else 1
        return time.monotonic() + slow * self.expected[test.name] < self.end

    def leave(self):
        """What there is no time for is counted as skipped; a test of `lab check` itself, as failed."""
        for test in self.waiting:
            result = report.Result(test.name)
            if test.form == "both":
                result.line("not ok 1 - has time to run: --minutes is too little")
                result.line("1..1")
            else:
                result.line("1..0 # SKIP there was no time left for it: --minutes")
            result.end(0, 0)
            self.results.append(result)
        self.waiting = []

    def run(self):
        """All of them. The results, in the order in which they ended."""
        beat = time.monotonic() + BEAT
        told = 0
        with self.lock:
            while self.waiting or self.running:
                while len(self.running) < self.jobs and (test := self.next()):
                    self.running[test] = time.monotonic()
                    threading.Thread(target=self.one, args=(test,), daemon=True).start()
                if not self.running:
                    self.leave()
                if self.running:
                    self.lock.wait(timeout=1)
                while told < len(self.results):
                    told += 1
                    self.tell(told, self.results[told - 1])
                if time.monotonic() > beat:
                    beat = time.monotonic() + BEAT
                    now = ", ".join(f"{test.name} {time.monotonic() - since:.0f} s"
                                    for test, since in self.running.items())
                    say(f"  {len(self.results)} of {self.total} done; running: {now}")
        return self.results

    def environment(self, test):
        """What a test is told. Most of it is in check.json."""
        return {"PYTHONPATH": f"{SRC}/tools/lab", "LAB_CHECK": f"{RUN}/check.json", "LAB_TEST": test.name,
                "LAB_VARIANT": test.variant,
                # for those in shell
                "LAB_QEMU": self.check["qemu_folder"], "LAB_UP": "\n".join(self.check["up"]),
                # where its kernel was fetched to; "" for the tree's own and the debug kernel
                "LAB_KERNEL_ROOT": self.check["kernels"].get(test.variant, {}).get("root", "")}

    def one(self, test):
        """Run a test, in a thread of its own. Whatever becomes of it, it has ended."""
        begin = time.monotonic()
        result = report.Result(test.name)
        status = "an error of the runner"
        try:
            status = self.listen(test, result)
        except OSError as err:
            result.promises.append(report.Promise(f"can be run and heard ({err})", False))
        result.end(status, time.monotonic() - begin)
        with open(f"{RUN}/{test.name}.json", "w", encoding="utf-8") as file:
            json.dump({"seconds": result.seconds, "good": not result.failed()}, file)
        with self.lock:
            self.results.append(result)
            del self.running[test]
            self.lock.notify()

    def listen(self, test, result):
        """Start it, and have the result know all that it says. Its exit status."""
        base = f"{RUN}/{test.name}"
        with open(base + ".tap", "w", encoding="utf-8") as tap, open(base + ".err", "w", encoding="utf-8") as err:
            proc = subprocess.Popen([test.path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err,
                                    text=True,
                                    errors="replace", env={**os.environ, **self.environment(test)})
            for line in proc.stdout:
                tap.write(line)
                tap.flush()
                promise = result.line(line.rstrip("\n"))
                if self.verbose or promise and not promise.good:
                    print(f"{test.name}: {line}", end="", flush=True)
            return proc.wait()

    def tell(self, number, result):
        """The user, that one has ended."""
        print(f"[{number}/{self.total}] {result.name}: {'FAILED' if result.failed() else 'ok'}, "
              f"{report.totals([result])}, {result.seconds:.0f} s", flush=True)
        for promise in result.failed():
            print(f"    not ok: {promise.what}", flush=True)
            for note in promise.notes[:10]:
                print(f"      {note}", flush=True)


def earlier(tests):
    """Of those, what has passed in this run before it was ended: its results. One that has failed is not
    forgotten because it is run again."""
    found = []
    for test in tests:
        base = f"{RUN}/{test.name}"
        if not os.path.exists(base + ".json"):
            # of a run that was ended
            if os.path.isdir(base):
                os.rename(base, f"{base}.{time.strftime('%Y%m%d-%H%M%S')}")
            continue
        with open(base + ".json", encoding="utf-8") as file:
            said = json.load(file)
        if not said["good"]:
            say(f"{test.name} has failed in this run before, see {base}.tap; remove {base}.* to have it counted "
                f"anew, or all of {RUN}")
            sys.exit(1)
        say(f"{test.name} has passed before: remove {RUN} to have it run again")
        result = report.Result(test.name)
        with open(base + ".tap", encoding="utf-8") as file:
            for line in file:
                result.line(line.rstrip("\n"))
        result.end(0, said["seconds"])
        found.append(result)
    return found


def every_kselftest(results):
    """What can be told of all of the tests together."""
    result = report.Result("every-kselftest")
    untried = report.never_tried(results)
    result.line(f"{'not ' if untried else ''}ok 1 - no kselftest is skipped with every parent")
    for title in untried:
        result.line(f"# {title}")
    result.line("1..1")
    result.end(int(bool(untried)), 0)
    return result


def run(tests, check, verbose, setup_seconds, whole, minutes=None):
    """Run tests. check: what they are told, a dict. whole: these are all that there are. minutes: within which all is
    to have ended, with the setup. The exit status."""
    begin = time.monotonic()
    end = begin - setup_seconds + 60 * minutes if minutes else None
    with open(f"{RUN}/check.json", "w", encoding="utf-8") as file:
        json.dump(check, file, indent=1)
    done = earlier(tests) if check["long"] else []
    left = [test for test in tests if test.name not in {result.name for result in done}]
    runner = Runner(left, check, verbose, end)
    say(f"running {len(left)} tests, {runner.jobs} at a time; the longest first")
    results = done + runner.run()
    if not check["long"]:
        keep_times(results)
    untried = {result.name for result in results if not result.plan}
    if whole and not any(test.group == "kselftest" and test.name in untried for test in tests):
        results.append(every_kselftest(results))
    report.write(results)
    for line in report.table(results) + report.skips(results) + report.failures(results):
        print(line)
    print(report.totals(results))
    times = ", ".join(f"{result.name} {result.seconds:.0f} s" for result in sorted(results, key=lambda r: -r.seconds))
    print(f"setup {setup_seconds:.0f} s, {times}; all of it {setup_seconds + time.monotonic() - begin:.0f} s")
    return 1 if any(result.failed() for result in results) else 0


def listing(tests):
    """Of the tests, for the reader."""
    lines = [f"{test.name:18} {test.group:10} {test.variant or '-':7} {test.cost:4} s  "
             f"{NOTES[test.form]}"
             f"{textwrap.shorten(test.promise, 120, placeholder=' ...')}" for test in tests]
    return "\n".join([f"{'test':18} {'group':10} {'kernel':7} {'about':>6}  promise", *lines])


def told(config, kernels, args, folder, folders):
    """What the tests are told: check.json. testlib.tap reads it."""
    return {"config": dataclasses.asdict(config), "kernels": kernels, "long": args.long, "qemu_folder": folder,
            "folders": folders, "up": up_words(args),
            "parameters": {option.name: getattr(args, option.name) for option in options.TESTS}}


def up_words(args):
    """The options for a `lab up` of a test's, inside this tree."""
    words = [f"--accel={args.accel}", f"--device-props={args.device_props}", f"--threads={args.threads}",
             f"--memory={args.memory}", f"--machine={args.machine}"]
    if args.qemu:
        words.append(f"--qemu={args.qemu}")
    if args.qemu_base:
        words.append(f"--qemu-base={args.qemu_base}")
    return words
