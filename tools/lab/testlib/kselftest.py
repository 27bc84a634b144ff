# SPDX-License-Identifier: GPL-2.0-or-later
"""The kselftests of tools/testing/selftests/vdpa in an L1, on each kind of vDPA parent: the
kernel's simulator, a function of ours, one whose doorbells can be mapped, and vp_vdpa."""
import contextlib
import os
import re
import subprocess

from vlm import net
from vlm.l1 import die_with_parent
from vlm.l2 import l2

from . import tap

NAME = "vdpa0"
DRIVER = "virtio_lm_vdpa"
# LM_CAPS without VIRTIO_LM_CAP_FAULT
CANNOT_TELL = 0x4d4c010d
RESULT = re.compile(r"\s*(not )?ok \d+ (?:- )?(\S.*?)\s*(?:# SKIP\s*(.*))?$")
# What driver and vhost-vdpa say to the requests that the tests know to be wrong, and the simulator of a
# ring that is unmapped while it runs
PROVOKED = (r"vhost-vdpa-\d+: can't find and alloc asid"
            r"|virtio_lm_vdpa \S+ (device_features \S+ there is no|max_vqp \d+:"
            r"|cannot add \S+ the function is already)"
            rf"|vdpa {NAME}: (vq \d+: (cannot be enabled|a size of \d+ while it is enabled"
            r"|no ring can go on from)|FEATURES_OK before|control virtqueue: chain \d+ cannot be served)"
            r"|(virtio_lm_serve|vringh_bad): \d+ callbacks suppressed"
            r"|Failed to ((access|check) avail idx|read head: idx|get (flags|used event idx)"
            r"|write \d+ used entries|update used index)|(Clearing|Setting) used flags|Updating avail event index")
# and what an IOMMU says of a device that logs a page for which there is no bit
NO_BIT = (r"DMAR: (DRHD: handling fault status|\[DMA (Read|Write) NO_PASID\] Request device)"
          r"|dmar_fault: \d+ callbacks suppressed")
PROPS = "iommu_platform=on,ats=on,vdpa=on"
STRANGER_PROPS = "iommu_platform=on,ats=on"

# What a function has where the log is tested. Features: MAC, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX,
# CTRL_VLAN, CTRL_MAC_ADDR, INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, so with indirect
# descriptors, which are not offered unless they are asked for. MTU: the longest frame that a tap and
# QEMU take.
LOG_FEATURES = sum(1 << bit for bit in (5, 15, 16, 17, 18, 19, 23, 28, 29, 32, 33))
LOG_MTU = 65521

# Offered on request: a control virtqueue, which has another size than the others, and packed rings.
# MAC, MRG_RXBUF, STATUS, CTRL_VQ, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_PACKED
ORDER_FEATURES = sum(1 << bit for bit in (5, 15, 16, 17, 29, 32, 33, 34))

# VHOST_GET_BACKEND_FEATURES, and VHOST_BACKEND_F_LOG_RANGES
GET_BACKEND_FEATURES = 0x8008af26
F_LOG_RANGES = 9

# What asks for a doorbell, and what else is in its fixture
DOORBELL_TESTS = ["vhost_vdpa", "vdpa_net -f running"]

# What is run on vp_vdpa, the latter two in the long form, and what is wrong there: it takes features that were
# not offered
STRANGER_TESTS = ["vhost_vdpa", *(["vmm_order", "vdpa_net"] if tap.long_form() else [])]
STRANGER_FAULTS = "device.features_not_offered",

# What the tests print of the work they have done, for the reader
FIGURES = re.compile(r"# \S+?:\d+:(\w+:(?:seed|fail_nth|fuzz)\b.*)")
# What a run can be told by the environment (Documentation/kselftest-vdpa.rst), and what of
# that makes it longer
LONGER = ("VDPA_ROUNDS", "VDPA_FUZZ_CALLS")
PASSED_ON = ("VDPA_SEED", "VDPA_FUZZ_THREADS") + LONGER

# Where vdpa and vhost_vdpa of a set with a dirty log are loaded, modprobe leaves it at that
SIMULATOR = f"""
modprobe -a vdpa vhost_iotlb vhost_vdpa
if [ "$1" ]; then
	insmod $1/vringh.ko
	insmod $1/vdpa_sim.ko ${{2-}}
	insmod $1/vdpa_sim_net.ko
else
	modprobe vdpa_sim_net
fi
vdpa dev add name {NAME} mgmtdev vdpasim_net mac 02:00:00:00:00:05 mtu 1500
"""


def results(t, what, lines, skipped=None, faults=()):
    """One TAP line for each result in the lines of a KTAP stream; how many failed, of how many that
    were tried. Those skipped are added to skipped, by the reason, if it is given. faults: the tests that may
    fail, as the parent is known to be wrong there."""
    count = bad = 0
    for number, line in enumerate(lines):
        found = RESULT.match(line)
        if not found:
            continue
        title = f"{what}: {found.group(2)}"
        if found.group(3) is not None:
            if skipped is None:
                t.skip(title, found.group(3))
            else:
                skipped.setdefault(found.group(3), []).append(title)
            continue
        count += 1
        if found.group(1) and found.group(2) in faults:
            t.skip(title, "the parent is known to be wrong there")
        elif not t.ok(not found.group(1), title):
            bad += 1
            t.note("\n".join(lines[max(0, number - 8):number]))
    return bad, count


def has_log(l1, node):
    """Does vhost-vdpa offer a dirty log for that device?"""
    text = l1.sh(f"""python3 -c "import fcntl, os, struct
fd = os.open('/dev/{node}', os.O_RDWR)
print(struct.unpack('Q', fcntl.ioctl(fd, {GET_BACKEND_FEATURES}, bytes(8)))[0] >> {F_LOG_RANGES} & 1)"
""")
    return text.strip() == "1"


def count_tests(program):
    """How many tests a binary has."""
    listed = subprocess.run([program, "-l"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False).stdout
    # a heading, and a rule between the fixtures; a fixture's tests are beside its variants, each with each
    tests = variants = total = 0
    for line in listed.splitlines()[1:] + ["---"]:
        if line.startswith("---"):
            total += tests * max(variants, 1)
            tests = variants = 0
        else:
            variants += bool(line[21:46].strip())
            tests += bool(line[47:].strip())
    return total


def choose(t, l1, node, what, folder, require):
    """The binaries to run: all, but for those of the dirty log where there is none and none is required."""
    names = open(f"{folder}/list", encoding="ascii").read().split()
    t.ok(names, f"{what}: there are kselftests to run")
    if "log" in require.split(",") or has_log(l1, node):
        return names
    logs = [name for name in names if name.startswith("vdpa_log")]
    count = sum(count_tests(f"{folder}/{name}") for name in logs)
    t.note(f"{what}: vhost-vdpa offers no dirty log: the {count} tests of {' and '.join(logs)} are left out")
    return [name for name in names if name not in logs]


def run(t, l1, what, require, slow, only=(), faults=()):
    """Run every binary, or those in only, against the device NAME; what they have printed of the
    work they have done. faults: as for results()."""
    figures = []
    skipped = {}
    node = l1.sh(f"ls /sys/bus/vdpa/devices/{NAME} | grep ^vhost-vdpa-").strip()
    env = ["env", f"VDPA_DEV=/dev/{node}", f"VDPA_TIMEOUT_SCALE={4 * slow}",
           f"VDPA_REQUIRE={require}"]
    env += [f"{name}={os.environ[name]}" for name in PASSED_ON if os.environ.get(name)]
    folder = f"{l1.config.tools}/kselftest"
    settings = open(f"{folder}/settings", encoding="ascii").read()
    timeout = slow * int(re.search(r"timeout=(\d+)", settings).group(1))
    if any(os.environ.get(name) for name in LONGER):
        timeout *= 12
    for name in only or choose(t, l1, node, what, folder, require):
        log = f"{l1.run_dir}/{what}.{name}.log".replace(" ", "-")
        try:
            with open(log, "w", encoding="utf-8") as file:
                status = l1.run(["sh", "-c", f"cd {folder} && exec {' '.join(env)} ./{name}"],
                                timeout=timeout, stdout=file, stderr=subprocess.STDOUT).returncode
        except subprocess.TimeoutExpired:
            t.ok(False, f"{what}: {name} ends within {timeout} s")
            continue
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        bad, count = results(t, f"{what}: {name}", lines, skipped, faults)
        for figure in filter(None, map(FIGURES.match, lines)):
            t.note(figure.group(1))
            figures.append(figure.group(1))
        # a binary that crashes, or that skips all or selects none, has not tested anything
        if not bad:
            found = any(f" {fault}" in line for fault in faults for line in lines if line.startswith("not ok"))
            t.equal((status, count > 0), (int(found), True), f"{what}: {name} as a whole")
    for why, titles in skipped.items():
        t.skip(f"{what}: {len(titles)} tests", why)
        t.note("\n".join(titles))
    return figures


def refuses_unknown_requirements(t, l1, what):
    """A name in VDPA_REQUIRE that is none fails every test, and the names there are are told."""
    node = l1.sh(f"ls /sys/bus/vdpa/devices/{NAME} | grep ^vhost-vdpa-").strip()
    done = l1.run(["env", f"VDPA_DEV=/dev/{node}", "VDPA_REQUIRE=wire,start_kick",
                   f"{l1.config.tools}/kselftest/vhost_vdpa", "-t", "identity"])
    t.ok(done.returncode == 1 and re.search('no capability "start_kick".*: .*start_kicks', done.stdout),
         f"{what}: an unknown name in VDPA_REQUIRE is refused, and the known ones are named")


def tries_what_is_required(t, l1, what):
    """What no parent tells of itself is tried where VDPA_REQUIRE asks for it, whoever the parent is."""
    node = l1.sh(f"ls /sys/bus/vdpa/devices/{NAME} | grep ^vhost-vdpa-").strip()
    said = l1.run(["env", f"VDPA_DEV=/dev/{node}", "VDPA_REQUIRE=start_kicks",
                   f"{l1.config.tools}/kselftest/vdpa_net", "-t", "resume_is_a_kick"]).stdout
    t.ok("lacks" not in said and any(map(RESULT.match, said.splitlines())),
         f"{what}: start_kicks is tried where it is required")


def make_lab(**changes):
    """A lab with one L1 and what run_all() needs in it."""
    return tap.make_lab(devices=3, device_props=f"{PROPS},packed=on;{PROPS},page-per-vq=on;{STRANGER_PROPS}",
                        vdpa_modules="stock", **changes)


@contextlib.contextmanager
def wire_peer(lab, function):
    """A peer on the wire of a function of the first L1, which can take its link down."""
    l1 = lab.l1s[0]
    hook = f"python3 -m testlib.link {lab.run_dir} {l1.name} {function}"
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
    `vdpa dev add`. Returns their figures."""
    l1 = lab.l1s[0]
    with wire_peer(lab, function) as peer:
        l2.take_over(l1, function, NAME, "", words)
        figures = run(t, l1, what, require, slow, only)
        t.equal(peer.poll(), None, f"{what}: the peer on the wire is alive to the end")
    l1.sh(f"vdpa dev del {NAME}")
    return figures


def run_logging(t, lab, function, what, *require, slow=1, only=()):
    """Run them on a function of ours where vhost-vdpa has a dirty log."""
    net.ip("link", "set", lab.l1s[0].data_tap(function), "mtu", str(LOG_MTU))
    return run_function(t, lab, function, what,
                        ",".join(("wire", "peer", "link", "log", "indirect", "ctrl") + require),
                        slow, ["device_features", hex(LOG_FEATURES)], only)


def run_simulator(t, l1, folder, what, require="", parameter="", slow=1, only=()):
    """Run them on the simulator that was built in that folder, with that parameter of its module,
    or on the kernel's own if that folder is empty. Returns their figures."""
    l1.sh(f"set -- '{folder}' {parameter}\n{SIMULATOR}")
    figures = run(t, l1, what, require, slow, only)
    if not require:
        refuses_unknown_requirements(t, l1, what)
        tries_what_is_required(t, l1, what)
    l1.sh(f"vdpa dev del {NAME}; rmmod vdpa_sim_net vdpa_sim vringh")
    return figures


def run_stranger(t, lab, function):
    """Run them on a function of any kind, by vp_vdpa. A second device of the same function would overwrite what
    it deletes the first one by: nothing is created or deleted there."""
    l1 = lab.l1s[0]
    if not l1.config.simulator:
        t.skip("vp_vdpa", "it is built for the lab's own kernels alone")
        return
    with wire_peer(lab, function) as peer:
        l1.sh(f"modprobe vhost_vdpa; /virtio-lm/src/tools/lab/l1-vdpa -d {l1.config.simulator}/vp_vdpa.ko "
              f"{l1.pci(function)} {NAME}")
        run(t, l1, "vp_vdpa", "wire,peer,link", 1, STRANGER_TESTS, STRANGER_FAULTS)
        t.equal(peer.poll(), None, "vp_vdpa: the peer on the wire is alive to the end")
    l1.sh(f"vdpa dev del {NAME}")


def run_control_queue(t, lab):
    """The orders of VMMs on a function of ours that offers a control virtqueue and packed rings."""
    run_function(t, lab, 0, "virtio_lm control virtqueue", "wire,peer,link,packed",
                 words=["device_features", hex(ORDER_FEATURES)], only=["vmm_order"])


def run_all(t, lab):
    """Run them on all kinds of parents. On the function whose doorbells can be mapped, only what could
    tell: all of them in the long form, and on the debug kernel."""
    run_simulator(t, lab.l1s[0], lab.config.simulator, "vdpa_sim_net")
    run_function(t, lab, 0, "virtio_lm", "wire,peer,link,ctrl")
    run_control_queue(t, lab)
    run_function(t, lab, 1, "virtio_lm page-per-vq", "wire,peer,link,doorbell",
                 only=() if tap.long_form() else DOORBELL_TESTS)
    run_stranger(t, lab, 2)
