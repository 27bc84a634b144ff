#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=lab cost=200 variants=stock form=all
# The lab by hand, as the guide has it: two L1s, a driver of the user's in one, an L2 that is started, looked at,
# migrated and stopped, and a second one beside it; what cannot be done is refused, with the reason.

lab=/virtio-lm/src/tools/lab/lab
name=by-hand-$$
. "$(dirname "$0")/tap.sh"

# the command in the lab of this test
lab()
{
	"$lab" --lab "$name" "$@" 2>&1
}

# ends STATUS WHAT PATTERN COMMAND...: the command ends with it, and what it says has the pattern
ends()
{
	want=$1 what=$2 pattern=$3
	shift 3
	said=$(lab "$@")
	status=$?
	[ "$status" = "$want" ] && printf '%s\n' "$said" | grep -q -e "$pattern"
	good=$?
	ok "$good" "$what"
	[ "$good" = 0 ] || printf 'status %s: %s\n' "$status" "$said" | sed 's/^/# /'
}

says()
{
	ends 0 "$@"
}

refuses()
{
	ends 1 "$@"
}

# config FIELD: of what the tests are told
config()
{
	python3 -c 'import json, os, sys; print(json.load(open(os.environ["LAB_CHECK"]))["config"][sys.argv[1]])' "$1"
}

if [ -z "$(config driver)" ]; then
	echo "1..0 # SKIP there is no driver for this kernel: --driver"
	exit 0
fi
# of the user's, under names as users have them
driver="/virtio-lm/run/a driver.ko"
cp "$(config driver)" "$driver"
kernel=$(config kernel)
modules=$kernel/modules/$(cat "$kernel/version")
# those of the tree's own kernel are where it has them
[ -d "$modules" ] || modules=/lib/modules/$(cat "$kernel/version")
IFS='
'
# shellcheck disable=SC2086 # one option a line
set -- $LAB_UP
unset IFS

says "up: two L1s, with a kernel and a driver of the user's" 'l1b is up' up "$@" --l1s 2 --devices 2 \
	--l2-memory 128 --driver "$driver" --kernel "$kernel/vmlinux" --modules "$modules"
# an L1 that is slow to answer is said to be; it is asked again
for _ in $(seq 12); do
	lab status | grep -q 'not answering' || break
done
says "status: shows both" '^l1b: up .* l2: none, l2b: none$' status
says "status: is JSON for programs" '^\[{"name": "l1a", .*"l2": null, "l2b": null}\]$' status --json
refuses "l2 status: nowhere" '^no L1 runs l2: lab l2 start --guest l2$' l2 status
refuses "l2 stop: refuses where there is none" 'no L1 runs l2' l2 stop
says "vdpa: gives the functions to the driver, and names the devices" '^/dev/vhost-vdpa-1$' vdpa l1a
says "exec: that is the user's driver" '^virtio_lm_vdpa' exec l1a lsmod
says "l2 start: L2 comes up" 'l2 is up after' l2 start l1a
refuses "l2 start: refuses the same L2 twice" 'l1a runs l2 already' l2 start l1b
says "l2 status: where it runs" '^l2 in l1a: running$' l2 status
says "qmp: asks L2's QEMU" '"status": "running"' qmp l2 query-status
says "qmp: passes arguments" 'vhost-vdpa' qmp l2 human-monitor-command 'command-line=info network'
says "qmp: asks an L1's QEMU" '"running": true' qmp l1b query-status
refuses "qmp: refuses an argument that is none" 'an argument of a QMP command is NAME=VALUE' qmp l1a query-status x
says "console: is L2's" '^console of l2' console l2
moved=$("$lab" --lab "$name" migrate --json l1a l1b |
	python3 -c 'import json, sys; moved = json.load(sys.stdin); print(moved["destination"], moved["dirty_log"])')
[ "$moved" = "l1b svq" ]
ok $? "migrate: L2 moves by shadow virtqueues, as the kernel's own modules have no log, and is JSON for programs"
says "l2 status: it runs there" '^l2 in l1b: running$' l2 status
says "migrate: what it took is said" '^l1b -> l1a, shadow virtqueues: .* downtime [0-9]* ms' migrate
refuses "migrate: refuses to move it to where it is" 'is source and destination' migrate l1a l1a
refuses "migrate: refuses an L1 that there is not" 'there is no l1z: this lab has l1a, l1b' migrate l1a l1z
says "logs: names them" 'l1a.serial.log$' logs
says "logs: shows the end of a guest's" 'l2.console.log <==$' logs l2
says "l2 start: a second one comes up, on the second function" 'l2b is up after' l2 start --guest l2b l1b
says "status: tells where each is" '^l1b: up .* l2: none, l2b: running$' status
says "migrate: the second one moves beside the first" '^l1b -> l1a, ' migrate --guest l2b
says "qmp: asks the second one's QEMU" '"name": "l2b"' qmp l2b query-name
says "l2 status: the first one is where it was" '^l2 in l1a: running$' l2 status
says "logs: are the second one's" 'l2b.console.log <==$' logs l2b
refuses "l2 start: refuses one for which there is no function" 'l2c has no function' l2 start l1a --guest l2c
says "l2 stop: it ends" '' l2 stop
refuses "l2 status: and is nowhere" 'no L1 runs l2' l2 status
says "l2 status: the second one runs on" '^l2b in l1a: running$' l2 status --guest l2b
says "down: all ends" '^down; logs: ' down
says "down: may be said twice" '^this lab is not up$' down
refuses "status: refuses when nothing is up" 'this lab is not up: lab up' status

rm -rf "/virtio-lm/cache/labs/$name" "$driver"
finish
