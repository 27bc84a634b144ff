#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# vng.sh [OPTION OF vng]...: have virtme-ng boot a kernel on virtio-lm's QEMU, with one vdpa=on function, and run
# virtio-lm's kselftests on that. The exit status is 0 if all have passed.
# "With virtme-ng" in Documentation/lab.rst says what it needs. The environment may say:
#   KERNEL      what `vng --run` is told: a release, an image, or a kernel tree that was built. Without it: the
#               running kernel's release
#   DRIVER      its virtio_lm_vdpa.ko, where `modprobe` does not find one
#   KSELFTESTS  the folder of the programs. Without it, as QEMU: what `make setup` has built
#   TESTS       which of them; without it: vhost_vdpa
#   VDPA_REQUIRE    more capabilities that they are not to skip (Documentation/kselftest-vdpa.rst)
#   QEMU        the program
set -eu

me=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/vng.sh
TESTS=${TESTS:-vhost_vdpa}

# in the guest, which has the files of the machine
if [ "${1:-}" = --in-guest ]; then
	# vhost-vdpa pins what the tests map
	# shellcheck disable=SC3045 # dash and bash have it
	ulimit -l unlimited
	# takes the function from virtio-pci, and makes the vDPA device
	function=$(cd /sys/bus/pci/devices/0000:00:10.0 && ls -d 0000:??:??.?)
	node=$("${me%/examples/*}/tools/lab/l1-vdpa" ${DRIVER:+-d "$DRIVER"} "$function" vdpa0)
	cd "$KSELFTESTS"
	# the other side of the wire
	for nic in /sys/bus/pci/devices/0000:00:11.0/virtio*/net/*; do
		ip link set "${nic##*/}" up
		./wire_peer -i "${nic##*/}" &
	done
	bad=0
	for test in $TESTS; do
		VDPA_DEV=$node VDPA_REQUIRE=wire,peer$VDPA_REQUIRE VDPA_TIMEOUT_SCALE=4 "./$test" || bad=1
	done
	exit "$bad"
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtio-lm
QEMU=${QEMU:-$cache/qemu/$(cat "$cache/qemu/base")/bin/qemu-system-x86_64}
# of several, what was used last
# shellcheck disable=SC2012 # the names are the lab's
KSELFTESTS=${KSELFTESTS:-$(ls -1td "$cache"/tools/*-????????????/kselftest | head -n 1)}

# The IOMMU comes before the function. Port and NIC have places that the guest knows; a hub is the wire between
# function and NIC. The rest is for a machine without KVM: SeaBIOS takes long there, and so does udev with what nobody
# needs; one CPU loses bits that the device sets; and behind the IOMMU Linux may take a late timer for a dead one
set -- --cpus 2 "$@" --append "intel_iommu=on no_timer_check" --disable-microvm --qemu-opts="-nodefaults \
	-machine q35,kernel-irqchip=split,sata=off,smbus=off \
	-L /usr/share/qemu -L /usr/share/seabios -bios qboot.rom \
	-device intel-iommu,intremap=on,device-iotlb=on,aw-bits=48 \
	-netdev hubport,id=wire0,hubid=0 -netdev hubport,id=wire1,hubid=0 \
	-device pcie-root-port,id=rp1,chassis=1,addr=0x10 \
	-device virtio-net-pci,netdev=wire0,bus=rp1,romfile=,iommu_platform=on,ats=on,vdpa=on \
	-device virtio-net-pci,netdev=wire1,addr=0x11,romfile="
exec vng --run "${KERNEL:-$(uname -r)}" --qemu "$QEMU" "$@" \
	--exec "DRIVER='${DRIVER:-}' KSELFTESTS='$KSELFTESTS' TESTS='$TESTS' \
		VDPA_REQUIRE='${VDPA_REQUIRE:+,$VDPA_REQUIRE}' sh '$me' --in-guest" </dev/null
