#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=560,100 variants=stock,newest needs=dkms form=long
"""The Debian packages of the driver and of the set with a dirty log, by Debian's own tools: in an L1, apt and DKMS
install the driver, and udev gives functions to it, but not those that the administrator has opted out; it is
upgraded, and removed without a trace. So is the set, beside it. (package-newest) The driver follows a new kernel.

`make deb` and all that needs no device run in a system of testlib/debian.py. DKMS compiles there, too: an L1
without KVM takes minutes for it. What it has built comes to L1 as a tarball of DKMS's, at the place where the
package's own postinst looks for one."""
import glob
import os
import re
import shutil
import time

from testlib import kselftest, tap
from testlib.debian import Root, install

SRC = "/virtio-lm/src"
DEBS = tap.folder("dkms")
PACKAGE, DKMS, DRIVER = "virtio-lm-vdpa-dkms", "virtio-lm-vdpa", kselftest.DRIVER
# that of the set, with a kernel's release behind it
LOG = "virtio-lm-log-modules"
# what the packages are made of, and what makes them
PARTS = ("debian", "dkms.conf", "drivers", "include", "Documentation/man", "tools/udev", "tools/linux", "patches",
         "Makefile")
SET = f"{SRC}/tools/linux/modules-log"
IN_SET = "updates/virtio-lm-log/virtio-lm-vdpa.ko"
# what a package may leave behind, and DKMS with it
TRACES = ("find /usr/src /usr/lib/udev /usr/share/doc /usr/share/man /var/lib/dkms /lib/modules/*/ "
          "/etc/depmod.d /usr/lib/depmod.d "
          "-path '*virtio[-_]lm*' -o -path '*/updates'")
# of a build where each instruction is emulated
SECONDS = 1800


def version_of(folder):
    """The version of the checkout in that folder."""
    with open(f"{folder}/dkms.conf", encoding="ascii") as file:
        return re.search(r'^PACKAGE_VERSION="(.*)"$', file.read(), re.M)[1]


def copy(folder):
    """A copy of the checkout, of what the packages are made of."""
    for part in PARTS:
        os.makedirs(os.path.dirname(f"{folder}/{part}"), exist_ok=True)
        (shutil.copytree if os.path.isdir(f"{SRC}/{part}") else shutil.copy)(f"{SRC}/{part}", f"{folder}/{part}")


def change(path, edit):
    """A file of that copy."""
    with open(path, encoding="utf-8") as file:
        old = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(edit(old))


def build(t, root, out):
    """The package of this checkout and one of a higher version: (version, path) of each."""
    root.sh(install(f"{DEBS}/*.deb"))
    this, other = version_of(SRC), f"{version_of(SRC)}.1"
    path = f"{out}/this/{PACKAGE}_{this}_all.deb"
    for folder in "this", "again":
        root.sh(f"""mkdir -p {out}/{folder}
            touch {out}/{folder}/another.deb {out}/{folder}/{PACKAGE}_0.9_all.deb
            make -C {SRC} deb DEB={out}/{folder}""")
    t.ok(os.path.exists(path), f"make deb builds {os.path.basename(path)}")
    t.equal(root.run(f"cmp {path} {out}/again/virtio*.deb").stdout, "", "and the same file again")
    t.equal(sorted(glob.glob("*.deb", root_dir=f"{out}/this")), ["another.deb", os.path.basename(path)],
            "an older one is gone from that folder, what else is there stays")
    t.equal(root.sh(f"dpkg-deb --fsys-tarfile {path} | tar -xO ./usr/share/man/man4/{DRIVER}.4.gz | gunzip | "
                    f"cat - {SRC}/Documentation/man/lab.1 | groff -man -ww -z 2>&1"), "",
            "groff has nothing to say of its manual page, and of the lab's")

    copy(f"{out}/src")
    tool = f"{out}/src/tools/linux/deb"
    change(f"{out}/src/dkms.conf", lambda text: text.replace(f'VERSION="{this}"', f'VERSION="{other}"'))
    refused = root.run(f"{tool} {out}/next")
    t.ok(refused.returncode and f"dkms.conf has the version {other}, debian/changelog {this}" in refused.stdout,
         "where dkms.conf and debian/changelog differ, nothing is built, and both versions are named")
    change(f"{out}/src/debian/changelog", lambda text: text.replace(f"({this})", f"({other})", 1) + "\n" + text)
    root.sh(f"{tool} {out}/next")
    return (this, path), (other, f"{out}/next/{PACKAGE}_{other}_all.deb")


def build_sets(t, root, out, packages):
    """The package of the set, of the same versions: path of each."""
    (this, beside), (other, _) = packages
    release = release_of(root.path)
    made = tap.config().log_modules
    name = f"{LOG}-{release}"
    for folder in "this", "again":
        root.sh(f"touch {out}/{folder}/{name}_0.9_amd64.deb; {SRC}/tools/linux/deb-log {made} {out}/{folder}")
    path = f"{out}/this/{name}_{this}_amd64.deb"
    t.equal(root.run(f"cmp {path} {out}/again/{name}_*.deb").stdout, "", "the set's is the same file again, too")
    t.ok(os.path.exists(beside), "and stands beside the driver's")
    refused = root.run(f"{out}/src/tools/linux/deb-log {made} {out}/next")
    t.ok(refused.returncode and f"version {this} of dkms.conf, debian/changelog {other}" in refused.stdout,
         "no package is made of a set of another version, and both are named")
    root.sh(f"make -C {out}/src deb-log RELEASE={release} SOURCE=$(ls /usr/src/linux-source-*.tar.xz) "
            f"OUT={out}/set DEB={out}/next", timeout=SECONDS)
    return path, f"{out}/next/{name}_{other}_amd64.deb"


def state(system):
    """What DKMS has of the driver: version, kernel and state of each."""
    said = system.sh(f"dkms status {DKMS}", timeout=SECONDS)
    return sorted(re.findall(r"^\S+/(\S+), (\S+), \S+: (\w+)", said, re.M))


def module(root, release, name=DRIVER):
    """The file that modprobe takes for a module, the driver for one, on that kernel."""
    words = root.sh(f"modprobe --set-version {release} --show-depends {name}").split()
    return words[-1].partition(f"/{release}/")[2].removesuffix(".xz")


def release_of(folder):
    """The kernel that is installed there."""
    path, = glob.glob(f"{folder}/lib/modules/*/kernel")
    return path.split("/")[-2]


def remove(t, system):
    """And nothing is left."""
    system.sh(f"apt-get -q --yes purge {PACKAGE}", timeout=SECONDS)
    left = system.sh(TRACES, timeout=SECONDS), state(system)
    t.equal(left, ("", []), "when it is removed, nothing is left of it")


def beside_the_set(t, root, packages, sets):
    """The set with a dirty log was there before the package."""
    release = release_of(root.path)
    name = f"{LOG}-{release}"

    def refused(words, why, what):
        done = root.run(words)
        if not t.ok(done.returncode and why in done.stdout, what):
            t.note(done.stdout)
    root.sh(f"{SET} install {tap.config().log_modules}")
    refused(install(sets[0]), "installed by hand", "the set's package does not replace what was installed by hand")
    root.sh(f"{SET} remove -k {release}")
    for (version, path), set_path in zip(packages, sets):
        root.sh(install(set_path))
        # depmod of the other package's would hide that this one's has not run
        t.equal(module(root, release, "vdpa"), "updates/virtio-lm-log/vdpa.ko", "modprobe takes the set's vdpa")
        root.sh(install(path))
        t.equal(state(root), [(version, release, "installed")],
                f"beside the set with a dirty log, {version} is installed")
        t.equal(module(root, release), IN_SET, "modprobe takes the set's driver")
        t.equal(root.sh(f"modinfo -k {release} -F version {DRIVER}").strip(), version, "which has that version")
        root.sh(f"dkms mktarball {DKMS}/{version} -k {release} --archive {path}.dkms.tar.gz")
    root.sh(f"apt-get -q --yes remove {name}")
    root.sh(install(set_path))
    t.equal(module(root, release), IN_SET, "modprobe takes the set's driver where the other package was first")
    # its description
    said = root.sh(f"dpkg-query -f '${{Description}}' -W {name}")
    told = dict(re.findall(r"^ +(\S+)\.ko +of (\S+)$", said, re.M))

    def taken():
        return {file: module(root, release, file) for file in told}
    files = glob.glob(f"{root.path}/lib/modules/{release}/updates/virtio-lm-log/*")
    t.equal(taken(), {os.path.basename(file)[:-3]: file.partition(f"/{release}/")[2] for file in files},
            "modprobe takes each module of the set, and its package names each")
    refused(f"dpkg --no-act --remove linux-image-{release}", f"\n {name} depends on linux-image-{release}",
            "its kernel is not removed without it")
    refused(f"{SET} remove -k {release}", f"{name} has installed the set", "modules-log leaves it to dpkg")
    root.sh(f"apt-get -q --yes remove {name}")
    t.equal(taken(), told, "when it is removed, modprobe takes what its package says that it stood in for")
    remove(t, root)
    root.sh(install(sets[0]))
    root.sh(f"dpkg --purge --force-depends linux-image-{release} && dpkg --purge {name}")
    t.equal(root.sh(f"{TRACES}; find /lib/modules/{release} -name 'modules.*'"), "",
            "nor is anything left of the set where its kernel went first")


def new_kernel(t, root, packages):
    """The headers of another kernel come, and the kernel goes: what their packages run then."""
    version, path = packages[0]
    there = os.environ["LAB_KERNEL_ROOT"]
    old, new = release_of(root.path), release_of(there)
    root.sh(install(path))
    t.equal(state(root), [(version, old, "installed")], f"DKMS installs it for {old}")
    root.lay(f"{there}/lib/modules/{new}", f"{root.path}/lib/modules/{new}")
    # a relative link to where they would be installed
    root.sh(f"ln -sfn {there}/lib/modules/{new}/build /lib/modules/{new}/build")
    root.sh(f"run-parts --exit-on-error --arg={new} /etc/kernel/header_postinst.d")
    t.equal(state(root), [(version, old, "installed"), (version, new, "installed")],
            f"and for {new}, when its headers come")
    t.ok(root.sh(f"modinfo -k {new} -F vermagic {DRIVER}").startswith(f"{new} "), "it is one for that kernel")
    root.sh(f"run-parts --exit-on-error --arg={new} /etc/kernel/prerm.d")
    t.ok((version, new, "installed") not in state(root), "and goes with it")
    remove(t, root)


class Functions:
    """The functions of an L1, by number."""

    def __init__(self, l1):
        self.l1 = l1
        self.pci = [l1.pci(n) for n in range(l1.config.devices)]

    def drivers(self):
        """Who has them."""
        return self.l1.sh("udevadm settle\n" + "\n".join(
            f"basename $(readlink /sys/bus/pci/devices/{pci}/driver || echo none)" for pci in self.pci)).split()

    def trigger(self, n):
        """Have udev look at one again, as it does at boot."""
        self.l1.sh(f"udevadm control --reload; udevadm trigger --settle -c add /sys/bus/pci/devices/{self.pci[n]}")

    def give_back(self, n):
        """One to virtio-pci, as the manual page has it."""
        self.l1.sh(f"""dev=/sys/bus/pci/devices/{self.pci[n]}
            udevadm control --reload
            echo >$dev/driver_override
            echo {self.pci[n]} >$dev/driver/unbind
            echo {self.pci[n]} >/sys/bus/pci/drivers/virtio-pci/bind""")

    def interface(self, n):
        """The network interface of one that virtio-pci has."""
        return self.l1.sh(f"ls /sys/bus/pci/devices/{self.pci[n]}/virtio*/net").strip()


def set_in_l1(t, l1, functions, deb):
    """The set comes to a machine whose functions the driver of the other package has, and goes."""
    name = os.path.basename(deb).split("_")[0]
    shutil.copy(deb, l1.share)
    said = l1.sh(f"{install('/virtio-lm/run/' + os.path.basename(deb))} 2>&1", timeout=SECONDS)
    t.ok("stay what they are until they are unloaded" in said, "that other modules are loaded is said")

    def reload():
        """Is it the set's vDPA core, after that; and who has the functions?"""
        l1.sh(f"modprobe -r {DRIVER}; [ ! -e /sys/module/vdpa ]; modprobe {DRIVER}")
        core = l1.sh("grep ' __vdpa_alloc_device' /proc/kallsyms")
        return " __vdpa_alloc_device_log" in core, functions.drivers()
    t.equal(reload(), (True, [DRIVER] * 4), "the set is loaded next, and its driver has all functions")
    l1.sh(f"modprobe vhost_vdpa; vdpa dev add name vdpa0 mgmtdev pci/{functions.pci[0]}; udevadm settle")
    t.ok(kselftest.has_log(l1, "vhost-vdpa-0"), "and offers its log to a VMM")
    l1.sh("vdpa dev del vdpa0; modprobe -r vhost_vdpa")
    l1.sh(f"apt-get -q --yes purge {name}", timeout=SECONDS)
    t.equal(reload(), (False, [DRIVER] * 4), "after its purge the kernel's own are loaded, and DKMS's driver")


def in_l1(t, lab, packages, set_path):
    """A machine with four functions: one for the driver, one that a rule of the administrator's opts out, one that
    driverctl keeps for virtio-pci, and one whose interface is up."""
    l1 = lab.l1s[0]
    (version, path), (newer, next_path) = packages
    release = l1.sh("uname -r").strip()
    functions = Functions(l1)
    # depmod reads all modules of a kernel, which takes an L1 a minute each time: hide most of them
    l1.sh(f"""cd /lib/modules/{release}/kernel
        for folder in fs net sound drivers/*; do
            case $folder in */vdpa | */vhost | */virtio) continue ;; esac
            mount -t tmpfs hidden $folder
        done
        /usr/lib/systemd/systemd-udevd --daemon""")
    l1.sh(install(f"{DEBS}/dkms_*.deb", f"{DEBS}/driverctl_*.deb"), timeout=SECONDS)
    local = "/etc/udev/rules.d/60-virtio-lm-local.rules"
    l1.sh(f"""echo 'SUBSYSTEM=="pci", KERNEL=="{functions.pci[1]}", ENV{{VIRTIO_LM_VDPA}}="0"' >{local}
        driverctl set-override {functions.pci[2]} virtio-pci
        # as after a boot, until driverctl's service has set it
        echo >/sys/bus/pci/devices/{functions.pci[2]}/driver_override
        udevadm settle
        ip link set {functions.interface(3)} up""")
    t.equal(functions.drivers(), ["virtio-pci"] * 4, "without the package, virtio-pci has all functions")

    def apt(number, deb):
        shutil.copy(deb, l1.share)
        shutil.copy(f"{deb}.dkms.tar.gz", f"{l1.share}/dkms.tar.gz")
        l1.sh(f"""mkdir -p /usr/share/{PACKAGE}
            cp /virtio-lm/run/dkms.tar.gz /usr/share/{PACKAGE}/{DKMS}-{number}.dkms.tar.gz""")
        begin = time.monotonic()
        said = l1.sh(f"{install('/virtio-lm/run/' + os.path.basename(deb))} 2>&1", timeout=SECONDS)
        t.equal(state(l1), [(number, release, "installed")], f"apt and DKMS install {number}")
        t.note(f"in {time.monotonic() - begin:.0f} s")
        return said

    said = apt(version, path)
    t.equal(functions.drivers(), [DRIVER] + ["virtio-pci"] * 3,
            "the driver has the function that is for it, and none of those that are not")
    t.ok(f"{functions.pci[3]} stays with virtio-pci" in said, "that one stays whose interface is up is said")
    listed = re.findall(r"^pci/(\S+):", l1.sh("vdpa mgmtdev show"), re.M)
    t.equal(listed, functions.pci[:1], "vdpa mgmtdev show lists it")
    t.ok(l1.run(["vdpa", "dev", "add", "name", "vdpa0", "mgmtdev", f"pci/{functions.pci[0]}"]).returncode == 0,
         "a vDPA device is made of it")
    l1.sh("vdpa dev del vdpa0")
    l1.sh(f"ip link set {functions.interface(3)} down")
    functions.trigger(3)
    l1.sh(f"rm {local}")
    functions.trigger(1)
    t.equal(functions.drivers(), [DRIVER, DRIVER, "virtio-pci", DRIVER],
            "an interface that is down and an opt-out that is taken back are given to it")
    l1.sh(f"driverctl set-override {functions.pci[2]} {DRIVER}")
    t.equal(functions.drivers(), [DRIVER] * 4, "driverctl gives it one, too")

    l1.qmp("device_del", id="vdpa0")
    l1.sh(f"while [ -e /sys/bus/pci/devices/{functions.pci[0]} ]; do sleep 0.2; done")
    l1.plug(0)
    l1.sh(f"while [ ! -e /sys/bus/pci/devices/{functions.pci[0]}/driver ]; do sleep 0.2; done")
    t.equal(functions.drivers(), [DRIVER] * 4, "one that is plugged in is given to it")
    functions.give_back(0)
    t.equal(functions.drivers()[0], DRIVER, "one that virtio-pci gets while the rule is in force is taken again")
    mask = "/etc/udev/rules.d/70-virtio-lm.rules"
    l1.sh(f"ln -s /dev/null {mask}")
    functions.give_back(0)
    functions.trigger(0)
    t.equal(functions.drivers(), ["virtio-pci"] + [DRIVER] * 3, "a masked rule takes none")
    l1.sh(f"rm {mask}")

    apt(newer, next_path)
    t.equal(l1.sh("ls /usr/src | grep virtio-lm").split(), [f"{DKMS}-{newer}"], "no old source is left")
    loaded = f"/sys/module/{DRIVER}/version"
    t.equal(l1.sh(f"cat {loaded}; modinfo -F version {DRIVER}").split(), [version, newer],
            "the module that is loaded is the old one, that on the disk the new one")
    t.equal(functions.drivers(), [DRIVER] * 4, "the upgrade gives the driver what it does not have yet")
    l1.sh(f"modprobe -r {DRIVER}; modprobe {DRIVER}")
    t.equal((l1.sh(f"cat {loaded}").strip(), functions.drivers()), (newer, [DRIVER] * 4),
            "when it is loaded anew it is the new one, and has its functions again")
    set_in_l1(t, l1, functions, set_path)
    remove(t, l1)
    t.ok(l1.run(["modinfo", DRIVER]).returncode, "nor is there a module")
    functions.give_back(0)
    functions.trigger(0)
    t.equal(functions.drivers(), ["virtio-pci"] + [DRIVER] * 3, "one is given back, and udev leaves it there")
    l1.sh("echo Y >/sys/module/module/parameters/sig_enforce")
    done = l1.run(["sh", "-c", f"{install('/virtio-lm/run/' + os.path.basename(set_path))} 2>&1"], timeout=SECONDS)
    t.ok(done.returncode and "loads signed modules alone" in done.stdout and not l1.sh(TRACES, timeout=SECONDS),
         "where only signed modules can be loaded, the set's package is refused, and says why")


if tap.VARIANT != "newest":
    tap.need_log()
with tap.Tap() as t:
    work = f"{tap.run_dir()}/build"
    shutil.rmtree(work, ignore_errors=True)
    root = Root(tap.NAME)
    packages = build(t, root, work)
    if tap.VARIANT == "newest":
        new_kernel(t, root, packages)
    else:
        sets = build_sets(t, root, work, packages)
        beside_the_set(t, root, packages, sets)
        with tap.make_lab(devices=4, device_props=kselftest.PROPS, vdpa_modules="stock", memory=2048) as lab:
            in_l1(t, lab, packages, sets[1])
            t.clean_logs(lab)
