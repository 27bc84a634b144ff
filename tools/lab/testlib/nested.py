# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of a nested guest share: two L1s, an L2 in the first one on its vDPA device, and
traffic."""
import os
import re
import time

from vlm.config import PATIENCE, Config
from vlm.l1 import LabError
from vlm.l2 import l2
from vlm.migration import BANDWIDTH, Migration, set_capabilities
from vlm.qmp import QMPError
from vlm.traffic import Traffic, account, wrong

from . import debug, tap
from .faults import SLOW
from .kselftest import DRIVER

# Packets and pages per second. Each packet is several exits to L1's kernel, and, while it is logged, each page is one:
# with those of Config, which the long form has, the traffic of two tests is all that two CPUs can do
RATE, PAGES = 30, 250
# what leaves L1s several times slower than usual time for anything else
DEBUG_RATE, DEBUG_PAGES = 10, 64
# LM_CAPS of a device without a control mailbox, and of one that is as it is
NO_MAILBOX, ALL_CAPS = 0x4d4c0107, -1
# of an L2 that started anew while its traffic went on: packets were lost, and nothing else
BAD_BUT_LOST = ("pages_bad", "out_corrupt", "in_corrupt", "out_duplicate", "in_duplicate")
# what L2 is asked about its link
LINK_ASKED = "echo carrier=$(cat /sys/class/net/eth0/carrier)."


def make_lab(**changes):
    """The L1s."""
    tap.need_log()
    if tap.DEBUG:
        # L2 has the stock kernel
        stock = tap.config().kernel
        changes = {"l2_kernel": f"{stock}/vmlinux", "l2_initrd": f"{stock}/l2.gz", "l2_memory": 96,
                   "append": f"{tap.KERNEL['append']} {debug.NO_KMEMLEAK}", "memory": 1536,
                   "rate": DEBUG_RATE, "pages": DEBUG_PAGES, **changes}
    elif not tap.long_form():
        # unless the user has asked for others
        less = {"rate": RATE, "pages": PAGES}
        asked = tap.config()
        changes = {**{name: less[name] for name in less if getattr(asked, name) == getattr(Config, name)}, **changes}
    return tap.make_lab(**{"l1s": 2, "l2_memory": 128, **changes})


def boot(t, lab):
    """L2 in the first L1; its traffic."""
    here = lab.l1s[0]
    for l1 in lab.l1s:
        t.equal(l2.take_over(l1), l2.node, f"{l1.name}: the driver takes the function over")
        pieces = int(l1.sh("cat /sys/module/vhost_vdpa/parameters/max_iotlb_entries"))
        t.at_most(lab.config.l2_memory << 8, pieces, f"{l1.name}: and L2's memory is mapped in however many pieces")
    l2.start(here)
    t.equal(l2.dirty_log(here), "device", "L2's QEMU says that it migrates by the device's log")
    t.note(f"L2 up after {l2.wait_up(here):.1f} s")
    t.equal(l2.device_status(here)["vhost-dev"]["dirty-log"], "device",
            "and so it says by QMP, once L2 uses the device")
    traffic = Traffic(lab)
    traffic.wait_both_ways()
    traffic.wait_pass(held=False)
    return traffic


def move_until(src, dst, count, what, **options):
    """A migration, in which memory is copied slowly until count() has grown: on a busy host L2 may not run at all
    while it is copied fast. what: the things that are counted. options: Migration's. What it took."""
    with Migration(src, dst, max_bandwidth=SLOW, **options) as migration:
        before = count()
        end = time.monotonic() + PATIENCE
        while count() == before:
            migration.wait("active")
            if time.monotonic() > end:
                raise LabError(f"{src.name}: no more {what} within {PATIENCE} s")
            time.sleep(0.2)
        migration.cmd("migrate-set-parameters", max_bandwidth=BANDWIDTH)
        return migration.finish()


def other_device(l1, caps, words=()):
    """The L1's vDPA device is made anew, of a function with that LM_CAPS. words: for `vdpa dev add`."""
    l1.sh(f"vdpa dev del vdpa0; rmmod {DRIVER}")
    l1.misbehave(0, caps=caps)
    l2.take_over(l1, words=words)


def sees_link(l1, expected):
    """L2 sees a link where one is expected, and none where none is. It is asked on its console until it does."""
    answer = re.compile(r"carrier=([01])\.")
    end = time.monotonic() + PATIENCE
    text = ""
    asked = 0
    with open(l2.log(l1, "console"), encoding="utf-8", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while time.monotonic() < end:
            text += file.read()
            answers = answer.findall(text)
            if len(answers) == asked:
                if answers and (answers[-1] == "1") == expected:
                    return True
                l2.console(l1, LINK_ASKED)
                asked += 1
            time.sleep(0.5)
    return False


def well(t, what, traffic):
    """Packets go both ways from now, and nothing is wrong with any."""
    traffic.wait_both_ways()
    t.equal(wrong(traffic.counts(), traffic.bad), "", f"{what}: packets go both ways, and all is well")


def well_anew(t, lab, what):
    """The same of an L2 that has started anew, by a stream of its own; and of its memory."""
    traffic = Traffic(lab, "-".join(what.replace(",", "").split()))
    traffic.wait_both_ways()
    traffic.wait_pass(held=False)
    t.equal(wrong(traffic.counts(), BAD_BUT_LOST), "", f"{what}: packets go both ways, and all is well")
    traffic.finish()


def refused(t, what, l1, why, capabilities=()):
    """A migration, with those capabilities, that L2's QEMU does not begin, and says why. L2 goes on."""
    conn = l2.qmp(l1)
    try:
        set_capabilities(conn, capabilities)
        conn.cmd("migrate", uri=f"tcp:{l1.address}:{l2.migration_port}")
        said = f"it has begun: {conn.cmd('query-migrate')}"
    except QMPError as err:
        said = str(err)
    t.ok(why in said, f"{what}: a migration is refused, and L2's QEMU says why")
    t.note(said)
    set_capabilities(conn, ())
    conn.close()
    t.equal(l2.running(l1), "running", f"{what}: L2 runs on")


def end(t, lab, traffic, provoked=None):
    """All that L2 holds is looked at once more, and accounted for (traffic.account()); the
    kernels have nothing to report, except for what matches provoked."""
    here = next(l1 for l1 in lab.l1s if l2.alive(l1))
    traffic.wait_pass()
    # the agent's own account, over its serial port and not over the network
    counts = account(t, traffic)
    received = counts["out_received"]
    t.equal(l2.agent_count(here, "received", received), received, "L2's own counter is what its packets have said")
    l2.stop(here)
    t.clean_logs(lab, provoked)
