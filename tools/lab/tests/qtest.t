#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=143
# The qtests of the device.
. "$(dirname "$0")/tap.sh"
need_our_qemu
exec /virtio-lm/src/tools/qemu/run-qtests "$LAB_QEMU" virtio-lm-test
