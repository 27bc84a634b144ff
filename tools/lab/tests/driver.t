#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The driver builds without a word from compiler (W=1) and sparse (C=1).
. "$(dirname "$0")/tap.sh"
out=/virtio-lm/run/driver-build
log=$out.log

/virtio-lm/src/tools/lab/driver "$out" C=1 >"$log" 2>&1
ok $? "the driver builds out of tree against the distribution's headers"
# sparse has run where kbuild says so
grep -q '^  CHECK ' "$log"
ok $? "sparse has looked at it"
grep -i -E 'warning|error' "$log" | sed 's/^/# /' >"$out.warnings"
[ ! -s "$out.warnings" ]
ok $? "neither compiler nor sparse has anything to say"
cat "$out.warnings"
modinfo -F license "$out/virtio_lm_vdpa.ko" | grep -qx GPL
ok $? "the module is GPL"
modinfo -F alias "$out/virtio_lm_vdpa.ko" | grep -q 'pci:v00001AF4.*sd00004C4D'
ok $? "the module is matched to functions of the device, by their subsystem id"

finish
