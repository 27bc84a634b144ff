#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The qtests of the device, with QEMU's threads watched: a report ends QEMU with an error, which
# its test does not pass over.
qemu=/virtio-lm/cache/qemu/tsan
TSAN_OPTIONS="suppressions=$qemu/work/tests/tsan/suppressions.tsan exitcode=66" \
	exec /virtio-lm/src/tools/qemu/run-qtests "$qemu" virtio-lm-test
