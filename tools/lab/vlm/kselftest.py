# SPDX-License-Identifier: GPL-2.0-or-later
"""The kselftests of tools/testing/selftests/vdpa in an L1, on each kind of vDPA parent: the
kernel's simulator, a function of ours, and one whose doorbells can be mapped."""
import contextlib
import re
import subprocess

from . import l2, tap
from .l1 import die_with_parent

NAME = "vdpa0"
DRIVER = "virtio_lm_vdpa"
RESULT = re.compile(r"\s*(not )?ok \d+ (?:- )?(\S.*?)\s*(?:# SKIP\s*(.*))?$")
# What driver and vhost-vdpa say to the requests that the tests know to be wrong
PROVOKED = (r"vhost-vdpa-\d+: can't find and alloc asid"
            r"|virtio_lm_vdpa \S+ (device_features \S+ there is no|max_vqp \d+:"
            r"|cannot add \S+ the function is already)")
PROPS = "iommu_platform=on,ats=on,vdpa=on"

# without a folder of modules, the kernel has the simulator among its own
SIMULATOR = f"""
modprobe -a vdpa vhost_iotlb vhost_vdpa
if [ -n "$1" ]; then
	for module in vringh vdpa_sim vdpa_sim_net; do insmod $1/$module.ko; done
else
	modprobe vdpa_sim_net
fi
vdpa dev add name {NAME} mgmtdev vdpasim_net mac 02:00:00:00:00:05 mtu 1500
"""


def results(t, what, lines):
    """One TAP line for each result in the lines of a KTAP stream; how many failed, of how many."""
    count = bad = 0
    for number, line in enumerate(lines):
        found = RESULT.match(line)
        if not found:
            continue
        count += 1
        title = f"{what}: {found.group(2)}"
        if found.group(3) is not None:
            t.skip(title, found.group(3))
        elif not t.ok(not found.group(1), title):
            bad += 1
            t.note("\n".join(lines[max(0, number - 8):number]))
    return bad, count


def run(t, l1, what, require, slow, only=()):
    """Run every binary, or those in only, against the device NAME."""
    node = l1.sh(f"ls /sys/bus/vdpa/devices/{NAME} | grep ^vhost-vdpa-").strip()
    env = ["env", f"VDPA_DEV=/dev/{node}", f"VDPA_TIMEOUT_SCALE={4 * slow}",
           f"VDPA_REQUIRE={require}"]
    folder = f"{l1.config.tools}/kselftest"
    settings = open(f"{folder}/settings", encoding="ascii").read()
    timeout = int(re.search(r"timeout=(\d+)", settings).group(1))
    for name in only or open(f"{folder}/list", encoding="ascii").read().split():
        log = f"{l1.run_dir}/{what.replace(' ', '-')}.{name}.log"
        try:
            with open(log, "w", encoding="utf-8") as file:
                status = l1.run(["sh", "-c", f"cd {folder} && exec {' '.join(env)} ./{name}"],
                                timeout=timeout, stdout=file, stderr=subprocess.STDOUT).returncode
        except subprocess.TimeoutExpired:
            t.ok(False, f"{what}: {name} ends within {timeout} s")
            continue
        with open(log, encoding="utf-8", errors="replace") as file:
            bad, _ = results(t, f"{what}: {name}", file.read().splitlines())
        # a binary that crashes, or that skips all, has not tested anything
        if not bad:
            t.equal(status, 0, f"{what}: {name} as a whole")


def make_lab(**changes):
    """A lab with one L1 and what run_all() needs in it."""
    return tap.make_lab(devices=2, device_props=f"{PROPS};{PROPS},page-per-vq=on",
                        vdpa_modules="stock", **changes)


@contextlib.contextmanager
def wire_peer(lab, function):
    """A peer on the wire of a function of the first L1, which can take its link down."""
    l1 = lab.l1s[0]
    hook = f"python3 -m vlm --run {lab.run_dir} link {l1.name} {function}"
    with open(f"{lab.run_dir}/wire_peer.{function}.log", "w", encoding="utf-8") as log:
        peer = subprocess.Popen([f"{lab.config.tools}/kselftest/wire_peer", "-i",
                                 l1.data_tap(function), "--link-hook", hook],
                                stdout=log, stderr=log, preexec_fn=die_with_parent)
        try:
            yield peer
        finally:
            peer.kill()
            peer.wait()


def run_function(t, lab, function, what, require, slow=1, words=(), only=()):
    """Run them, or only some, on a function of ours with a peer on its wire. words: for
    `vdpa dev add`."""
    l1 = lab.l1s[0]
    with wire_peer(lab, function) as peer:
        l2.take_over(l1, function, NAME, None, words)
        run(t, l1, what, require, slow, only)
        t.equal(peer.poll(), None, f"{what}: the peer on the wire is alive to the end")
    l1.sh(f"vdpa dev del {NAME}")


def run_all(t, lab, slow=1):
    """Run them on all kinds of parents. slow: how many times slower than usual the kernel is."""
    l1 = lab.l1s[0]
    l1.sh(f"set -- '{lab.config.simulator}'\n{SIMULATOR}", timeout=60 * slow)
    run(t, l1, "vdpa_sim_net", "", slow)
    l1.sh(f"vdpa dev del {NAME}; rmmod vdpa_sim_net vdpa_sim", timeout=60 * slow)

    for function, what, require in ((0, "virtio_lm", "peer,link"),
                                    (1, "virtio_lm page-per-vq", "peer,link,doorbell")):
        run_function(t, lab, function, what, require, slow)
