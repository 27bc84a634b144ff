#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=kselftest cost=207,207 variants=stock,newest form=both,all
"""The kselftests of tools/testing/selftests/vdpa on the stock kernel, on each kind of vDPA
parent."""
from testlib import kselftest, tap

with tap.Tap() as t, kselftest.make_lab() as lab:
    kselftest.run_all(t, lab)
    t.clean_logs(lab, kselftest.PROVOKED)
