#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=lab cost=44 variants=stock
# The lab itself: commands in an L1, and nothing left behind whatever ends it. It is run in a
# lab's tree, by `lab check`: what this test starts are labs in that one.

lab=/virtio-lm/src/tools/lab/lab
name=selftest-$$
. "$(dirname "$0")/tap.sh"

# is WHAT HAVE WANT
is()
{
	[ "$2" = "$3" ]
	ok $? "$1"
	[ "$2" = "$3" ] || printf '# want: %s\n# have: %s\n' "$3" "$2" | tr '\n' '~' | sed 's/~#/\n#/g; s/~/\\n/g; s/$/\n/'
}

# all that a lab could leave: links, mounts of this namespace, and its processes by their mark
left()
{
	ip -o link | cut -d : -f 2
	cut -d ' ' -f 5 /proc/self/mounts /proc/self/mountinfo | sort
	grep -lzs "^LM_TEST=$name\$" /proc/[0-9]*/environ | wc -l
}

# gone: wait until what was is all there is, for a minute
gone()
{
	for _ in $(seq 300); do
		[ "$(left)" != "$before" ] || return 0
		sleep 0.2
	done
	return 1
}

up()
{
	env LM_TEST="$name" "$lab" --lab "$name" up "$@" >&2
}

# the options that the other tests run with, one a line
IFS='
'
# shellcheck disable=SC2086 # split at newlines
set -- $LAB_UP
unset IFS
before=$(left)
links=$(ip -o link | cut -d : -f 2)

is "check: refuses a test that does not exist, before it sets anything up" \
	"$("$lab" check no-such-test 2>&1 | sed 's/;.*//')" 'virtio-lm: there is no test no-such-test'
is "demo: refuses a single L1, before it sets anything up" "$("$lab" demo --l1s 1 2>&1)" \
	'virtio-lm: lab demo moves L2 from one L1 to another: --l1s is 2 or more, not 1'
is "up: refuses an unknown accelerator" "$("$lab" up --accel KVM 2>&1 | sed 's/;.*//')" \
	'virtio-lm: --accel: there is no KVM'
is "up: refuses an unknown base of QEMU" "$("$lab" up --qemu-base oldest 2>&1 | sed 's/;.*//')" \
	'virtio-lm: --qemu-base: there is no oldest'
is "up: refuses a number that is out of range" "$("$lab" up --cpus 1 2>&1 | sed 's/;.*//')" \
	'virtio-lm: --cpus: 1 is out of range'
is "up: refuses a file that is not there" "$("$lab" up --qemu /no/such/qemu 2>&1)" \
	'virtio-lm: --qemu: there is no file /no/such/qemu'
is "up: refuses an option that it does not have" "$("$lab" up --memroy 1024 2>&1 | sed 's/;.*//')" \
	'virtio-lm: unrecognized arguments: --memroy 1024'
is "a command that is not one is refused" "$("$lab" upp 2>&1 | sed 's/;.*//')" 'virtio-lm: there is no command upp'
small=$(mktemp -d)
mount -t tmpfs -o size=20m tmpfs "$small"
is "up: refuses a disk that is too small, and tells where the logs are" \
	"$(VIRTIO_LM_CACHE=$small "$lab" up 2>&1 | sed "s,$small,CACHE,; s/ [0-9]* MiB free/ N MiB free/; s,runs/.*,runs/,")" \
	'virtio-lm: CACHE has N MiB free, 5000 MiB are needed: free some, or set XDG_CACHE_HOME to another disk
logs: CACHE/runs/'
umount "$small"
rmdir "$small"
for command in setup up demo soak check lint bench fuzz vdpa exec l2 migrate console qmp logs status down shell distclean; do
	"$lab" "$command" --help | grep -q "^usage: lab $command" && "$lab" --help | grep -q "^  $command "
	ok $? "$command: has its help, and lab --help names it"
done

# completed WORD...: what bash would make of the last of the words after "lab"
completed()
{
	bash -c '. "$1"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _virtio_lm_lab; echo "${COMPREPLY[*]}"' \
		bash "${lab%/*}/completion.bash" "$lab" "$@"
}
is "completion: knows commands" "$(completed so)" soak
is "completion: knows options" "$(completed demo --l2-m)" --l2-memory
is "completion: knows tests" "$(completed check storm-m)" storm-migration

is "up: says at once what a kernel lacks" "$("$lab" --lab "$name" up "$@" --append module_blacklist=9p 2>&1 | grep '^virtio-lm: l1a')" \
	"virtio-lm: l1a: this kernel cannot mount L1's root: it needs 9p over virtio"
up "$@"
ok $? "up: an L1 boots"
is "migrate: refuses an L1 that runs no L2" "$("$lab" --lab "$name" migrate l1a 2>&1)" \
	'virtio-lm: l1a does not run l2: lab l2 status --guest l2 tells where it is'
# those of the host's own network; the lab's are in its namespace
is "up: the host's links are what they were" "$(ip -o link | cut -d : -f 2)" "$links"
for folder in host/etc src cache; do
	! "$lab" --lab "$name" exec l1a sh -c "touch /virtio-lm/$folder/by-l1 2>/dev/null" && [ ! -e "/virtio-lm/$folder/by-l1" ]
	ok $? "L1 cannot write to /virtio-lm/$folder"
done
"$lab" --lab "$name" exec l1a sh -c 'test -s /virtio-lm/host/etc/passwd && touch /virtio-lm/run/by-l1'
ok $? "it can read the host's files, and write to the run's folder"
# shellcheck disable=SC2016 # it is to be the guest's
is "exec: prints what the command prints" "$("$lab" --lab "$name" exec l1a echo 'two  words' '$HOME')" 'two  words $HOME'
"$lab" --lab "$name" exec l1a sh -c 'exit 7'
is "exec: ends with the command's exit status" $? 7
is "exec: passes stdin" "$(seq 100000 | "$lab" --lab "$name" exec l1a sha256sum)" "$(seq 100000 | sha256sum)"
is "exec: keeps stderr apart" "$("$lab" --lab "$name" exec l1a sh -c 'echo err >&2; echo out' 2>/dev/null)" out
"$lab" --lab "$name" up >&2 2>/dev/null
is "up: refuses when it is up" $? 1
"$lab" --lab "$name" exec l1z true 2>/dev/null
is "exec: refuses an L1 that does not exist" $? 1
"$lab" --lab "$name" qmp l1a stop >&2
is "status: an L1 that hangs does not hold it up" "$("$lab" --lab "$name" status | sed 's/, .*; /; /')" \
	'l1a: not answering; l2: unknown'
"$lab" --lab "$name" qmp l1a cont >&2
# status gives an L1 20 s to answer. One that has stood still may need longer: ask again, for 4 minutes
for _ in $(seq 12); do
	said=$("$lab" --lab "$name" status | sed 's/up .*; /up; /')
	[ "$said" != 'l1a: up; l2: none' ] || break
done
is "status: it answers again" "$said" 'l1a: up; l2: none'
"$lab" --lab "$name" down >&2
gone
ok $? "down: nothing is left"
"$lab" --lab "$name" exec l1a true 2>/dev/null
is "exec: refuses when nothing is up" $? 1

up "$@"
# the first process of all that the lab is made of, by its lock
for pid in $(pgrep -x unshare); do
	if tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qx "LM_TEST=$name"; then kill -9 "$pid"; fi
done
gone
ok $? "kill -9 of a lab that is up: nothing is left"

for sig in INT TERM HUP KILL; do
	# a job in the background has SIGINT ignored, one of nohup SIGHUP
	env --default-signal LM_TEST="$name" setsid "$lab" shell sh -c 'mount -t tmpfs left /mnt; sleep 1000 & sleep 1000' >&2 &
	job=$!
	for _ in $(seq 600); do
		pgrep -x -f 'sleep 1000' >/dev/null && break
		sleep 0.1
	done
	pgrep -x -f 'sleep 1000' >/dev/null
	ok $? "shell: runs"
	kill -s "$sig" "$job"
	gone
	ok $? "SIG$sig in the foreground: nothing is left"
done

# as a terminal does it: to all of its processes
said=/tmp/$name.demo
env --default-signal LM_TEST="$name" setsid "$lab" demo "$@" >"$said" 2>&1 &
job=$!
for _ in $(seq 2400); do
	! grep -q 'l1a is up after' "$said" || break
	sleep 0.2
done
grep -q 'l1a is up after' "$said"
ok $? "demo: has an L1 that is up"
kill -s INT -- "-$job"
wait "$job"
is "Ctrl-C: a demonstration ends with the status of SIGINT" $? 130
grep -q '^logs: ' "$said"
ok $? "and says where its logs are"
gone
ok $? "and nothing is left"

rm -r "/virtio-lm/cache/labs/$name"

# a cache of its own, which a setup works in
cache=/tmp/$name.cache
mkdir -p "$cache/runs"
is "distclean: refuses while a setup is at work" \
	"$(flock "$cache/setup.lock" env VIRTIO_LM_CACHE="$cache" "$lab" distclean 2>&1)" \
	"virtio-lm: a setup is at work in $cache: end it first"
[ -d "$cache/runs" ]
ok $? "and removes nothing then"
env VIRTIO_LM_CACHE="$cache" "$lab" distclean >&2 && [ ! -e "$cache" ]
ok $? "distclean: nothing of the cache is left"
finish
