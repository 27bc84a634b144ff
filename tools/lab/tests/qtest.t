#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The device's qtests, and QEMU's own for virtio.
exec /virtio-lm/src/tools/qemu/run-qtests /virtio-lm/cache/qemu
