#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=121,121 variants=stock,newest form=all
# The set of vDPA modules with a dirty log: the driver in it builds without a word from compiler
# (W=1) and sparse (C=1), each patch leaves what can be built, it is installed before the kernel's
# own and removed again, and neither another version's source nor somebody's folder is taken for ours.
# LAB_KERNEL_ROOT: where tools/lab/linux-kernel has put another kernel than the tree's.
# shellcheck disable=SC2319 # ok takes the status of a condition, too
[ "${LM_COMPILE-}" ] ||
	exec python3 -m testlib.compiled "$0" tools/linux/modules-log patches/linux-6.12 patches/linux-7.x drivers include \
		dkms.conf
tool=/virtio-lm/src/tools/linux/modules-log
out=/virtio-lm/run/$LAB_TEST
# of a run that was ended
rm -rf "$out" "$out.part" "$out.root" "$out.next" "$out.mine"
. "$(dirname "$0")/tap.sh"

# as Debian's headers have it
export DEBIAN_KERNEL_USE_CCACHE=1 CCACHE=ccache

# refused WHAT PATTERN...: the last command has failed, and said all of that in $out.said
refused()
{
	status=$?
	what=$1
	shift
	for pattern; do
		grep -q -e "$pattern" "$out.said" || status=0
	done
	[ "$status" != 0 ]
	ok $? "$what"
	[ "$status" != 0 ] || sed 's/^/# /' "$out.said"
}

# where vdpa comes from, for modprobe
vdpa()
{
	modprobe --dirname "$INSTALL_MOD_PATH" --set-version "$release" --show-depends "${1-vdpa}" | tail -n 1
}

root=${LAB_KERNEL_ROOT:-}
set -- "$root"/lib/modules/*/build
release=${1%/build}
release=${release##*/}
set -- "$root"/usr/src/linux-source-*.tar.xz
source=$1

# build TOOL OUTPUT: the set for that kernel
build()
{
	INSTALL_MOD_PATH=$root "$1" build -k "$release" ${root:+-s "$source"} "$2"
}

# KBUILD_CHECKSRC in the environment is not enough where kbuild takes it back: see driver.t
check=KBUILD_CHECKSRC=1
sparse_reads "$root" || check=KBUILD_CHECKSRC=0
KBUILD_EXTRA_WARN=1 MAKEFLAGS="-- $check" build "$tool" "$out" >"$out.log" 2>&1
ok $? "the set builds"
! grep 'with fuzz' "$out.log"
ok $? "each patch applies without fuzz"
if sparse_reads "$root"; then
	grep -q '^  CHECK .*log.c' "$out.log"
	ok $? "sparse has looked at the driver's log"
else
	skip "sparse has looked at the driver's log" "this sparse does not know the language of these headers"
fi
# vdpa_dev_match() is the kernel's own; it calls what takes a lock with guard(), which sparse cannot follow
grep -E '(warning|error):' "$out.log" | grep -v "/include/linux/device.h:.* context imbalance in 'vdpa_dev_match'" |
	sed 's/^/# /' >"$out.warnings"
[ ! -s "$out.warnings" ]
ok $? "neither compiler nor sparse has anything to say"
cat "$out.warnings"

# a checkout with one patch more each time; with the last one it is the set above
part=$out.part
series=linux-6.12
case $release in 7.*) series=linux-7.x ;; esac
mkdir -p "$part/tools" "$part/patches/$series"
cp -r /virtio-lm/src/drivers /virtio-lm/src/include /virtio-lm/src/dkms.conf "$part"
cp -r /virtio-lm/src/tools/linux "$part/tools"
set -- /virtio-lm/src/patches/$series/*.patch
while [ $# -gt 1 ]; do
	cp "$1" "$part/patches/$series"
	MAKEFLAGS=-j2 build "$part/tools/linux/modules-log" "$part/set" >"$out.said" 2>&1 &&
		! grep -q 'warning:' "$out.said"
	ok $? "the set builds after ${1##*/}, without a warning"
	shift
done

# as much of a kernel's modules as there has to be
export INSTALL_MOD_PATH="$out.root"
kernel=$INSTALL_MOD_PATH/lib/modules/$release
mkdir -p "$kernel/kernel/drivers"
cp "$root/lib/modules/$release"/modules.builtin* "$root/lib/modules/$release/modules.order" "$kernel"
cp -r "$root/lib/modules/$release/kernel/drivers/vdpa" "$root/lib/modules/$release/kernel/drivers/vhost" "$kernel/kernel/drivers"
depmod -b "$INSTALL_MOD_PATH" "$release" 2>/dev/null
# another driver of the same name, where DKMS puts one: depmod would choose whichever it comes upon last
mkdir -p "$kernel/updates/dkms"
cp "$out/virtio_lm_vdpa.ko" "$kernel/updates/dkms"
depmod -b "$INSTALL_MOD_PATH" "$release" 2>/dev/null
before=$(vdpa)
"$tool" install "$out" >"$out.said" 2>&1
ok $? "it is installed"
vdpa | grep -q /updates/virtio-lm-log/vdpa.ko
ok $? "and comes before the kernel's own"
vdpa virtio_lm_vdpa | grep -q /updates/virtio-lm-log/virtio-lm-vdpa.ko
ok $? "and before another driver of the same name, which was there first"
# and one that comes later
cp "$out/virtio_lm_vdpa.ko" "$kernel/updates"
depmod -b "$INSTALL_MOD_PATH" -C "$INSTALL_MOD_PATH/etc/depmod.d" "$release" 2>/dev/null
vdpa virtio_lm_vdpa | grep -q /updates/virtio-lm-log/virtio-lm-vdpa.ko
ok $? "and before one that is installed afterwards"
"$tool" remove -k "$release" >"$out.said" 2>&1
ok $? "it is removed"
[ "$(vdpa)" = "$before" ] && [ ! -e "$kernel/updates/virtio-lm-log" ]
ok $? "and the kernel's own are there again"
vdpa virtio_lm_vdpa | grep -q /updates/
ok $? "and so is the other driver"
[ -z "$(ls "$INSTALL_MOD_PATH/etc/depmod.d")" ]
ok $? "and depmod has nothing left to prefer"
"$tool" remove -k "$release" >"$out.said" 2>&1
refused "what is not installed is not removed" "nothing installed"

# a source of the next version
version=$(sed -n 's/^#define UTS_RELEASE "\([0-9]*\.[0-9]*\.[0-9]*\).*/\1/p' \
	"$root/lib/modules/$release"/build/include/generated/utsrelease.h)
[ -n "$version" ] || version=$(echo "$release" | sed 's/^\([0-9]*\.[0-9]*\.[0-9]*\).*/\1/')
next=${version%.*}.$((${version##*.} + 1))
mkdir "$out.next"
tar -C "$out.next" --strip-components=1 -xf "$source" --wildcards \
	'*/Makefile' '*/drivers/vdpa/*' '*/drivers/vhost/*' '*/drivers/virtio/*' '*/include/linux/vdpa.h' \
	'*/include/uapi/linux/vhost*' '*/Documentation/userspace-api/*' '*/MAINTAINERS'
sed -i "s/^SUBLEVEL = .*/SUBLEVEL = ${next##*.}/" "$out.next/Makefile"
INSTALL_MOD_PATH=$root "$tool" build -k "$release" -s "$out.next" "$out.other" >"$out.said" 2>&1
refused "another version's source is refused, and both versions are named" "Linux $next" "Linux $version"

mkdir "$out.mine"
echo precious >"$out.mine/src"
build "$tool" "$out.mine" >"$out.said" 2>&1
refused "a folder that is not its own is left alone" "neither empty nor"
[ "$(cat "$out.mine/src")" = precious ]
ok $? "and so is what is in it"

rm -r "$out" "$out.next" "$out.part" "$out.root"
finish
