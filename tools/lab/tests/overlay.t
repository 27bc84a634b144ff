#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=20
# `make overlay` lays driver, selftests and documents over a kernel tree: the selftests build there,
# nothing of the kernel's is overwritten, and what is no kernel tree is refused.
# shellcheck disable=SC2319 # ok takes the status of a condition, too
set -u

. /virtio-lm/src/tools/lab/tests/tap.sh
run=/virtio-lm/run/overlay
tree=$run/linux
mkdir -p "$tree"
set -- /usr/src/linux-source-*.tar.xz
name=${1##*/}
name=${name%.tar.xz}
tar -C "$tree" --strip-components=1 -xf "$1" "$name/Kbuild" "$name/MAINTAINERS" "$name/Makefile" \
	"$name/drivers/vdpa" "$name/include/uapi" "$name/Documentation/conf.py" "$name/Documentation/index.rst" \
	"$name/scripts" "$name/tools/scripts" "$name/tools/testing/selftests/Makefile" \
	"$name/tools/testing/selftests/lib.mk" "$name/tools/testing/selftests/kselftest" \
	"$name/tools/testing/selftests/kselftest.h" "$name/tools/testing/selftests/kselftest_harness.h"
ok $? "there is a kernel tree"
sums()
{
	(cd "$tree" && sha256sum Documentation/conf.py Documentation/index.rst drivers/vdpa/Makefile MAINTAINERS)
}
before=$(sums)

overlay()
{
	make -C /virtio-lm/src overlay KTREE="$1" >"$run/log" 2>&1
}

# refused WHAT WHY: the last one was, and said why
refused()
{
	[ "$rc" != 0 ] && grep -q "$2" "$run/log"
	ok $? "$1 is refused"
}

rc=0
overlay "$run" || rc=$?
refused "a folder that is no kernel tree" "is no kernel tree"
rc=0
overlay "" || rc=$?
refused "no tree at all" usage

mkdir -p "$tree/tools/testing/selftests/vdpa"
echo mine >"$tree/tools/testing/selftests/vdpa/vdpa_net.c"
rc=0
overlay "$tree" || rc=$?
refused "a tree with another's file of the same name" "vdpa_net.c is not of here"
[ "$(cat "$tree/tools/testing/selftests/vdpa/vdpa_net.c")" = mine ] && [ ! -e "$tree/drivers/vdpa/virtio_lm" ]
ok $? "that file is as it was, and nothing was copied"
rm -r "$tree/tools/testing/selftests/vdpa"

overlay "$tree" || { sed 's/^/# /' "$run/log"; false; }
ok $? "a kernel tree is laid over"
grep -qx drivers/vdpa/virtio_lm/pci_drv.c "$run/log"
ok $? "it says what it has copied"
[ -x "$tree/tools/testing/selftests/vdpa/vdpa_net" ]
ok $? "the selftests are built there"
[ "$before" = "$(sums)" ]
ok $? "the kernel's own files are as they were"

# an older version of ours
echo "// older" >>"$tree/include/linux/virtio_lm.h"
(cd "$tree" && sha256sum include/linux/virtio_lm.h) >>"$tree/.virtio-lm-overlay"
overlay "$tree" && cmp -s "$tree/include/linux/virtio_lm.h" /virtio-lm/src/include/linux/virtio_lm.h
ok $? "a file that came from here before is replaced"
finish
