#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 goes there and back again and again under traffic, and is intact each time."""
import os

from vlm import soak, tap

ROUNDS = int(os.environ["LM_ROUNDS"] or 20)

with tap.Tap() as t, tap.make_lab(l1s=2, l2_memory=128) as lab:
    result = soak.Soak(lab)
    result.run(ROUNDS)
    t.note(result)
    t.equal(result.failure, "", "L2 is intact each time")
    t.figure("soak: rounds of migrations, there and back", len(result.moves) // 2, ROUNDS)
    t.figure("soak: page checks", result.counts["pages_checked"])
    t.figure("soak: packets in sequence", result.packets())
    t.clean_logs(lab)
