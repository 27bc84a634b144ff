#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=kselftest cost=272,272 variants=stock,newest form=all,both
"""The kselftests where vhost-vdpa has a dirty log, of the log and all others, on the set of
modules that tools/linux/modules-log builds in place of the kernel's: a function of ours, and the
simulator, which has more than one address space."""
import os
import re

from testlib import kselftest, tap
from vlm.l2 import l2

LONG_ROUNDS = 10000
LOG_TESTS = ["vdpa_log", "vdpa_log_oracle"]
UNLOAD = "rmmod virtio_lm_vdpa vhost_vdpa vdpa"

tap.need_log()
with tap.Tap() as t, tap.make_lab(devices=1, device_props=kselftest.PROPS) as lab:
    l1 = lab.l1s[0]
    figures = kselftest.run_logging(t, lab, 0, "dirty log")
    # on the addresses of the process, which is its default, and on physical ones, as others are: all of
    # the tests in the long form
    for parameter, only in ("use_va=1", ()), ("use_va=0", () if tap.long_form() else LOG_TESTS):
        figures += kselftest.run_simulator(t, l1, f"{lab.config.log_modules}/sim",
                                           f"dirty log of vdpa_sim_net {parameter}", "log,log_asid,wire",
                                           parameter, only=only)
    if tap.long_form() and not os.environ.get("VDPA_ROUNDS"):
        os.environ["VDPA_ROUNDS"] = str(LONG_ROUNDS)
        figures = kselftest.run_logging(t, lab, 0, "dirty log, long", only=["vdpa_log_oracle"])
    rounds = [int(n) for n in re.findall(r"(\d+) rounds", " ".join(figures))]
    # five kinds of traffic, and a few rounds more of its controls
    t.figure("rounds of the log's oracle, over all kinds of traffic", sum(rounds), 5 * LONG_ROUNDS)

    l1.sh(f"echo {l1.pci(0)} >/sys/bus/pci/drivers/{kselftest.DRIVER}/unbind")
    l1.misbehave(0, caps=kselftest.CANNOT_TELL)
    node = l2.take_over(l1)
    told = l1.run(["env", f"VDPA_DEV={node}", f"{lab.config.tools}/kselftest/vdpa_hold", "logging"]).stderr.strip()
    t.equal(told, "vdpa_hold: log: Operation not supported", "a device that cannot tell what it has missed has no log")
    l1.sh(UNLOAD)
    t.ok(True, "the modules can be unloaded again")
    t.clean_logs(lab, f"{kselftest.PROVOKED}|{kselftest.NO_BIT}")
