#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=driver cost=109,149 variants=stock,debug form=both,all
"""Whatever happens to a function while a VMM has its vDPA device open, started, logging or
suspended: each of the VMM's calls comes back, what happens comes to its end, and the device works
afterwards. What removes the device waits for the VMM to close it first; what does not, goes on beside the
VMM's calls, and a note says which of them were done first."""
from testlib import tap
from testlib.storm import EVENTS, FORGETS, PROPS, PROVOKED, REMOVES, Event, Storm
from vlm.l2 import l2

STEPS = ("opened", "running", "logging", "suspended")

tap.need_log()
with tap.Tap() as t, tap.make_lab(devices=1, device_props=PROPS) as lab:
    storm = Storm(lab.l1s[0])
    l2.take_over(storm.l1)
    count = 0
    for n, (what, event) in enumerate(EVENTS):
        # on a debug kernel each of them takes five times as long
        for step in STEPS if tap.long_form() or not tap.DEBUG else [STEPS[n % len(STEPS)]]:
            name = f"{what} while it is {step}"
            vmm = storm.take(step)
            with Event(event, storm) as under_way:
                if event in REMOVES:
                    t.ok(under_way.waits and not under_way.ended(), f"{name}: it waits for the VMM")
                before = under_way.ended()
                errnos, ended = storm.let_go(vmm)
                t.ok(ended, f"{name}: each call of the VMM comes back")
                t.note(errnos or "all of them well")
                if event not in REMOVES:
                    t.note("it was over before the calls" if before else "it was over before the calls were"
                           if under_way.ended() else "the calls were over before it was")
            t.equal(under_way.errors, [], f"{name}: and it comes to its end")
            t.equal(storm.let_go(storm.take("logging", "send")), ({}, True), f"{name}: the device works afterwards")
            t.equal(storm.l1.complaints(PROVOKED.get(event)), [], f"{name}: the kernel has nothing else to say")
            count += 1
        if event in FORGETS or event == Storm.nonfatal_error:
            vmm = storm.take("running")
            event(storm)
            errnos, ended = storm.let_go(vmm)
            if event in FORGETS:
                t.equal(errnos.get("told"), "1", f"{what}: a VMM that waits is told that it needs a reset")
            else:
                t.equal((errnos, ended), ({}, True), f"{what}: a VMM that waits goes on")
            t.equal(storm.l1.complaints(PROVOKED[event]), [], f"{what}: the kernel has nothing else to say")
    t.figure("storm: events that befell a device in use", count, len(EVENTS) * len(STEPS))
    t.clean_logs(lab)
