#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# QEMU's own qtests of virtio-net and the other virtio devices: as good as before.
exec /virtio-lm/src/tools/qemu/run-qtests /virtio-lm/cache/qemu qos-test
