#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The qtests of the device.
exec /virtio-lm/src/tools/qemu/run-qtests /virtio-lm/cache/qemu virtio-lm-test
