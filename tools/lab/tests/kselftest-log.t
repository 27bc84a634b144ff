#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The kselftests where vhost-vdpa has a dirty log, of the log and all others: a function of
ours, on the set of modules that tools/linux/modules-log builds in place of the kernel's."""
from vlm import kselftest, net, tap

UNLOAD = "rmmod virtio_lm_vdpa vhost_vdpa vdpa"
# MAC, MRG_RXBUF, STATUS, INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM: with indirect
# descriptors, which are not offered unless they are asked for
FEATURES = sum(1 << bit for bit in (5, 15, 16, 28, 29, 32, 33))
# the longest frame that a tap and QEMU take
MTU = 65521

tap.need_log()
with tap.Tap() as t, tap.make_lab(devices=1, device_props=kselftest.PROPS) as lab:
    l1 = lab.l1s[0]
    net.ip("link", "set", l1.data_tap(0), "mtu", str(MTU))
    kselftest.run_function(t, lab, 0, "dirty log", "peer,link,log,indirect",
                           words=["device_features", hex(FEATURES)])
    l1.sh(UNLOAD)
    t.ok(True, "the modules can be unloaded again")
    t.clean_logs(lab, kselftest.PROVOKED)
