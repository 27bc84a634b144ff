#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=device cost=29
# QEMU's own qtests of virtio-net and the other virtio devices: as good as before.
. "$(dirname "$0")/tap.sh"
need_our_qemu
exec /virtio-lm/src/tools/qemu/run-qtests "$LAB_QEMU" qos-test
