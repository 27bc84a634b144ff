# SPDX-License-Identifier: GPL-2.0-or-later
# What the lab's shell scripts share. They run on the host, which may have no more than a bare Debian has:
# POSIX sh, util-linux, apt. They make the lab's tree, and enter it.
# shellcheck shell=sh

LM_SRC=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
LM_CACHE=${VIRTIO_LM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/virtio-lm}
LM_SUITE=$(sed -n 's/^tree //p' "$LM_SRC/tools/bases")
LM_KEEP_RUNS=20
# the folder of this run's logs, once there is one
LM_RUN=

# the user's terminal, also where a step's output goes to its log
exec 5>&2
say()
{
	printf '%s\n' "$*" >&5
}

# die WHAT: with where the logs are, once there are any
die()
{
	say "virtio-lm: $*"
	[ -z "${LM_RUN:-}" ] || say "logs: $LM_RUN"
	exit 1
}

# need_root: mounts, namespaces and taps need it
need_root()
{
	[ "$(id -u)" = 0 ] || die "must be run as root (it makes mounts, namespaces and taps); try: sudo make ..."
	unshare --mount --net --pid --fork true 2>/dev/null ||
		die "this machine does not allow new namespaces (unshare failed); in a container, run it privileged"
}

# need_package COMMAND PACKAGE: install what provides COMMAND, where it is missing
need_package()
{
	command -v "$1" >/dev/null 2>&1 && return
	command -v apt-get >/dev/null 2>&1 ||
		die "$1 is missing and there is no apt-get: install $2 by hand"
	if ! apt-cache show "$2" >/dev/null 2>&1; then
		step "read the package lists" 20 apt-get update ||
			die "apt-get update failed: is there a network?"
	fi
	step "install $2" 20 env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "$2" ||
		die "could not install $2: is there a network, and does this distribution have it?"
}

# step WHAT SECONDS COMMAND...: run COMMAND with its output in the run's log; say what is done, how long it
# is expected to take and how long it took, which the run's file steps has. cli/steps.py does the same in the tree
step()
{
	what=$1 expect=$2
	shift 2
	start=$(date +%s)
	log=$LM_RUN/$(printf '%s' "$what" | tr -c 'A-Za-z0-9._\n' '-').log
	say "  $what (about $expect s) ..."
	rc=0
	"$@" >>"$log" 2>&1 || rc=$?
	took=$(($(date +%s) - start))
	if [ "$rc" = 0 ]; then
		printf '%s\t%s\n' "$took" "$what" >>"$LM_RUN/steps"
		say "  $what: done in $took s"
	else
		say "  $what: FAILED after $took s, the end of $log:"
		tail -n 15 "$log" | sed 's/^/  | /' >&5
	fi
	return "$rc"
}

# keep_runs FOLDER: the newest of its folders, by their names, and those of runs that are alive, which
# hold their locks
keep_runs()
{
	# shellcheck disable=SC2012 # the names are ours
	ls -1 "$1" | sort -r | tail -n +$((LM_KEEP_RUNS + 1)) | while read -r old; do
		old=$1/$old
		# another run may remove the same one, and then there is no lock to open
		({ exec 9>>"$old/lock"; } 2>/dev/null && flock -n 9 && rm -rf "$old") || :
	done
}

# new_run WHAT: a folder for the logs of this run; the oldest ones go
new_run()
{
	need_root
	mkdir -p "$LM_CACHE/runs" 2>/dev/null || die "cannot write to $LM_CACHE: set XDG_CACHE_HOME to a folder you can write"
	LM_RUN=$LM_CACHE/runs/$(date +%Y%m%d-%H%M%S)-$1-$$
	mkdir "$LM_RUN"
	keep_runs "$LM_CACHE/runs"
	exec 8>"$LM_RUN/lock"
	flock 8
}

# long_run ARG...: the folder of a run that takes hours. Its name ends with a sum of all that it is about, so
# that one that was ended goes on where it was
long_run()
{
	need_root
	key=$(
		{
			cd "$LM_SRC" && find Makefile dkms.conf ./*.md Documentation debian drivers examples \
				include patches samples tools -type f ! -name '*.pyc' ! -path '*/_build/*' | LC_ALL=C sort | xargs sha256sum
			echo "$*"
			env | grep -E '^VDPA_[A-Z_]+=' | sort
		} | sha256sum | cut -c 1-12
	)
	LM_RUN=$LM_CACHE/long/$(date +%Y%m%d-%H%M%S)-$key
	for run in "$LM_CACHE"/long/*-"$key"; do
		[ ! -d "$run" ] || LM_RUN=$run
	done
	if ! mkdir -p "$LM_RUN" 2>/dev/null; then
		LM_RUN=
		die "cannot write to $LM_CACHE: set XDG_CACHE_HOME to a folder you can write"
	fi
	exec 8>"$LM_RUN/lock"
	flock -n 8 || die "the same runs already"
	keep_runs "$LM_CACHE/long"
}

# The tree's name follows from what it is made of.
tree_dir()
{
	key=$(
		{
			echo "$LM_SUITE"
			grep -v '^#' "$LM_SRC/tools/lab/packages"
			cat "$LM_SRC/tools/lab/tree"
		} | sha256sum | cut -c 1-12
	)
	echo "$LM_CACHE/tree/$key"
}

# make_tree: the tree that all else is made and run in
make_tree()
{
	tree=$(tree_dir)
	if [ ! -e "$tree" ]; then
		exec 9>>"$LM_CACHE/setup.lock"
		if ! flock -n 9; then
			say "another setup is at work in $LM_CACHE, waiting for it"
			flock 9
		fi
		if [ ! -e "$tree" ]; then
			free=$(df -Pm "$LM_CACHE" | awk 'NR == 2 { print $4 }')
			[ "$free" -ge 5000 ] ||
				die "$LM_CACHE has $free MiB free, 5000 MiB are needed: free some, or set XDG_CACHE_HOME to another disk"
			say "setting up in $LM_CACHE: the tree first; all that a lab needs takes 8 to 16 minutes"
			need_package mmdebstrap mmdebstrap
			step "make the tree of Debian $LM_SUITE" 100 on_host sh "$LM_SRC/tools/lab/tree" ||
				die "could not make the tree: is there a network, has the mirror $LM_SUITE, has the disk 3 GiB free?"
		fi
		exec 9>&-
	fi
	touch "$tree"
}

# Ending a run is ending one process: the kernel then ends all that is in its
# PID namespace, and with the last of them go its mounts, taps and bridges.
stop_child()
{
	trap '' INT TERM HUP
	if [ -n "${LM_CHILD:-}" ]; then
		kill -KILL "$LM_CHILD" 2>/dev/null || :
		wait "$LM_CHILD" 2>/dev/null || :
	fi
	say "virtio-lm: interrupted; all of it has been taken down, and it can be run again"
	[ -z "${LM_RUN:-}" ] || say "logs: $LM_RUN"
	exit "$1"
}

catch_signals()
{
	trap 'stop_child 130' INT
	trap 'stop_child 143' TERM
	trap 'stop_child 129' HUP
}

# child COMMAND...: run it so that it dies with this shell, whatever ends that. COMMAND
# is an unshare that takes all below it along.
child()
{
	rc=0
	exec 3<&0
	setpriv --pdeathsig KILL "$@" <&3 3<&- 5>&- 8>&- 9>&- &
	LM_CHILD=$!
	exec 3<&-
	wait "$LM_CHILD" || rc=$?
	LM_CHILD=
	return "$rc"
}

# on_host COMMAND...: run COMMAND on the host, in a PID namespace of its own
on_host()
{
	child unshare --mount --pid --fork --kill-child --mount-proc "$@"
}

# commit: of this checkout, which may be another user's; with -dirty where something was changed since
commit()
{
	git -c safe.directory="$LM_SRC" -C "$LM_SRC" describe --always --abbrev=12 --dirty 2>/dev/null || :
}

# in_tree COMMAND...: run COMMAND in the tree, in namespaces of its own, with the host's network. With
# LM_DETACH, a file for its output, it goes on when this shell has ended.
in_tree()
{
	for set in $(env | sed -n 's/^\(VDPA_[A-Z_]*\)=.*/\1/p'); do
		eval "value=\$$set"
		# shellcheck disable=SC2154 # eval sets it
		set -- "$set=$value" "$@"
	done
	set -- unshare --mount --pid --fork --kill-child --uts --ipc \
		sh "$LM_SRC/tools/lab/inside" "$(tree_dir)" "$LM_SRC" "$LM_CACHE" "$LM_RUN" \
		env LM_HOST_RUN="$LM_RUN" LM_HOST_CWD="$PWD" LM_TREE="$(basename "$(tree_dir)")" \
		LM_COMMIT="$(commit)" "$@"
	if [ -n "${LM_DETACH:-}" ]; then
		# with the locks (8, 9): they are held for as long as it lives
		setsid "$@" </dev/null >"$LM_DETACH" 2>&1 5>&- &
		LM_CHILD=$!
	else
		child "$@"
	fi
}
