#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=37,37 variants=stock,newest
# The driver builds without a word from compiler (W=1) and sparse (C=1), and against a kernel that
# it is not for it does not begin to, and says why. LAB_KERNEL_ROOT: where tools/lab/linux-kernel has put
# another kernel than the tree's.
# shellcheck disable=SC2319 # ok takes the status of a condition, too
[ "${LM_COMPILE-}" ] || exec python3 -m testlib.compiled "$0" tools/lab/driver drivers include Makefile
. "$(dirname "$0")/tap.sh"
out=/virtio-lm/run/$LAB_TEST
log=$out.log

root=${LAB_KERNEL_ROOT:-}
# not C=1: Debian's 7.3 lacks the script that looks whether there is a sparse, and kbuild then takes C=1 back
check=KBUILD_CHECKSRC=1
sparse_reads "$root" || check=KBUILD_CHECKSRC=0
/virtio-lm/src/tools/lab/driver "$out" ${root:+"$root"} "$check" >"$log" 2>&1
ok $? "the driver builds out of tree against the distribution's headers"
if sparse_reads "$root"; then
	# it has run where kbuild says so
	grep -q '^  CHECK ' "$log"
	ok $? "sparse has looked at it"
else
	skip "sparse has looked at it" "this sparse does not know the language of these headers"
fi
grep -i -E 'warning|error' "$log" | sed 's/^/# /' >"$out.warnings"
[ ! -s "$out.warnings" ]
ok $? "neither compiler nor sparse has anything to say"
cat "$out.warnings"
modinfo -F license "$out/virtio_lm_vdpa.ko" | grep -qx GPL
ok $? "the module is GPL"
modinfo -F alias "$out/virtio_lm_vdpa.ko" | grep -q 'pci:v00001AF4.*sd00004C4D'
ok $? "the module is matched to functions of the device, by their subsystem id"

# refused WHAT REASON MAKE-ARGUMENT...: a build that says this in one line, and compiles nothing
refused()
{
	what=$1 reason=$2
	shift 2
	! make "$@" M="$out.refused" modules >"$out.said" 2>&1 &&
		[ "$(grep -c '\*\*\* virtio_lm_vdpa: ' "$out.said")" = 1 ] &&
		grep -q -e "$reason" "$out.said" && ! grep -q '^  CC ' "$out.said"
	status=$?
	ok $status "$what"
	[ $status = 0 ] || sed 's/^/# /' "$out.said"
}

set -- "$root"/lib/modules/*/build
headers=$(realpath "$1")
rm -rf "$out.refused" "$out.old"
cp -r /virtio-lm/src/drivers/vdpa/virtio_lm "$out.refused"
refused "a kernel without an option that it needs is refused, by the option's name" \
	'without CONFIG_VIRTIO_PCI_LIB\.' -C "$headers" CONFIG_VIRTIO_PCI_LIB=
refused "a kernel without several of them is, too" \
	'without CONFIG_VDPA CONFIG_IOMMU_API\.' -C "$headers" CONFIG_VDPA= CONFIG_IOMMU_API=
# these headers, but with the bus as it was before
common=$(dirname "$(sed -n 's/^include //p' "$headers/Makefile")")
mkdir "$out.old"
cp -rs "$common" "$out.old/common"
cp -rs "$headers" "$out.old/build"
rm "$out.old/common/include/linux/vdpa.h" "$out.old/build/Makefile"
grep -v dev_set_attr "$common/include/linux/vdpa.h" >"$out.old/common/include/linux/vdpa.h"
sed -e "s,^include .*,include $out.old/common/Makefile," -e "s,^KBUILD_OUTPUT=.*,KBUILD_OUTPUT=$out.old/build," \
	"$headers/Makefile" >"$out.old/build/Makefile"
refused "a kernel whose vDPA bus is too old is refused, and the first that is not is named" \
	'too old, Linux 6.12 or newer' -C "$out.old/build"
make -C "$headers" M="$out.refused" clean >"$out.said" 2>&1
ok $? "what was built can be removed whatever the kernel is"
rm -rf "$out.refused" "$out.old"
# as a user does it, in a checkout of their own
rm -rf "$out.user"
mkdir "$out.user"
(cd /virtio-lm/src && cp -r Makefile dkms.conf drivers include "$out.user/")
make -C "$out.user" modules modules_install KDIR="$headers" INSTALL_MOD_PATH="$out.user/root" DEPMOD=true >"$out.said" 2>&1
status=$?
[ $status = 0 ] && [ -n "$(find "$out.user/root/lib/modules" -name 'virtio_lm_vdpa.ko*')" ]
status=$?
ok $status "make modules and make modules_install build the module, and put it where modprobe looks"
[ $status = 0 ] || sed 's/^/# /' "$out.said"
rm -rf "$out.user"
! make -C /virtio-lm/src modules KDIR=/nowhere >"$out.said" 2>&1 &&
	grep -q '^modules: no kernel headers at /nowhere: install linux-headers-' "$out.said"
ok $? "where there are no headers, make modules says what to install"

finish
