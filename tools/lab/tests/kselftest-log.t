#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The kselftests where vhost-vdpa has a dirty log, of the log and all others: a function of
ours, on the set of modules that tools/linux/modules-log builds in place of the kernel's."""
from vlm import kselftest, tap

UNLOAD = "rmmod virtio_lm_vdpa vhost_vdpa vdpa"

tap.need_log()
with tap.Tap() as t, tap.make_lab(devices=1, device_props=kselftest.PROPS) as lab:
    l1 = lab.l1s[0]
    kselftest.run_logging(t, lab, 0, "dirty log")
    l1.sh(UNLOAD)
    t.ok(True, "the modules can be unloaded again")
    t.clean_logs(lab, kselftest.PROVOKED)
