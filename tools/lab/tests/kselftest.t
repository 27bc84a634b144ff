#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The kselftests of tools/testing/selftests/vdpa, on each kind of vDPA parent: the kernel's
simulator, a function of ours, and one whose doorbells can be mapped."""
import re
import subprocess

from vlm import l2, tap
from vlm.l1 import die_with_parent

NAME = "vdpa0"
RESULT = re.compile(r"(not )?ok \d+ (?:- )?(\S.*?)\s*(?:# SKIP\s*(.*))?$")

SIMULATOR = f"""
modprobe -a vdpa vhost_iotlb vhost_vdpa
for module in vringh vdpa_sim vdpa_sim_net; do insmod $1/$module.ko; done
vdpa dev add name {NAME} mgmtdev vdpasim_net mac 02:00:00:00:00:05 mtu 1500
"""


def run(t, l1, what, require):
    """Run every binary against the device NAME; one TAP line for each of its tests."""
    node = l1.sh(f"ls /sys/bus/vdpa/devices/{NAME} | grep ^vhost-vdpa-").strip()
    env = ["env", f"VDPA_DEV=/dev/{node}", "VDPA_TIMEOUT_SCALE=4", f"VDPA_REQUIRE={require}"]
    folder = f"{l1.config.tools}/kselftest"
    settings = open(f"{folder}/settings", encoding="ascii").read()
    timeout = int(re.search(r"timeout=(\d+)", settings).group(1))
    for name in open(f"{folder}/list", encoding="ascii").read().split():
        log = f"{l1.run_dir}/{what.replace(' ', '-')}.{name}.log"
        try:
            with open(log, "w", encoding="utf-8") as file:
                status = l1.run(["sh", "-c", f"cd {folder} && exec {' '.join(env)} ./{name}"],
                                timeout=timeout, stdout=file, stderr=subprocess.STDOUT).returncode
        except subprocess.TimeoutExpired:
            t.ok(False, f"{what}: {name} ends within {timeout} s")
            continue
        lines = open(log, encoding="utf-8", errors="replace").read().splitlines()
        bad = 0
        for number, line in enumerate(lines):
            found = RESULT.match(line)
            if not found:
                continue
            title = f"{what}: {name}: {found.group(2)}"
            if found.group(3) is not None:
                t.skip(title, found.group(3))
            elif not t.ok(not found.group(1), title):
                bad += 1
                t.note("\n".join(lines[max(0, number - 8):number]))
        # a binary that crashes, or that skips all, has not tested anything
        if not bad:
            t.equal(status, 0, f"{what}: {name} as a whole")


# What driver and vhost-vdpa say to the requests that the tests know to be wrong
PROVOKED = (r"vhost-vdpa-\d+: can't find and alloc asid"
            r"|virtio_lm_vdpa \S+ (device_features \S+ there is no|max_vqp \d+:"
            r"|cannot add \S+ the function is already)")
PROPS = "iommu_platform=on,ats=on,vdpa=on"

with tap.Tap() as t, tap.make_lab(devices=2, device_props=f"{PROPS};{PROPS},page-per-vq=on") as lab:
    l1 = lab.l1s[0]
    l1.sh(f"set -- {lab.config.simulator}\n{SIMULATOR}")
    run(t, l1, "vdpa_sim_net", "")
    l1.sh(f"vdpa dev del {NAME}; rmmod vdpa_sim_net vdpa_sim")

    for function, what, require in ((0, "virtio_lm", "peer,link"),
                                    (1, "virtio_lm page-per-vq", "peer,link,doorbell")):
        hook = f"python3 -m vlm --run {lab.run_dir} link {l1.name} {function}"
        with open(f"{lab.run_dir}/wire_peer.{function}.log", "w", encoding="utf-8") as log:
            peer = subprocess.Popen([f"{lab.config.tools}/kselftest/wire_peer", "-i",
                                     l1.data_tap(function), "--link-hook", hook],
                                    stdout=log, stderr=log, preexec_fn=die_with_parent)
            l2.take_over(l1, function, NAME, None)
            run(t, l1, what, require)
            t.equal(peer.poll(), None, f"{what}: the peer on the wire is alive to the end")
            peer.kill()
            peer.wait()
        l1.sh(f"vdpa dev del {NAME}")
    t.clean_logs(lab, PROVOKED)
