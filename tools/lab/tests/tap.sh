# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced by the tests in shell: TAP on stdout, as tools/lab/testlib/tap.py is for those in Python.
# shellcheck shell=sh
n=0
bad=0

# ok STATUS WHAT: one promise, kept if STATUS is 0
ok()
{
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		bad=1
	fi
}

# skip WHAT WHY: one promise that cannot be tried here
skip()
{
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

# sparse_reads ROOT: does the tree's sparse know what the headers of the kernel in that folder are made of? Newer
# ones have __typeof_unqual__
sparse_reads()
{
	! grep -rqs __typeof_unqual__ "$1"/usr/src/linux-headers-*-common/include/linux ||
		! echo 'int a; __typeof_unqual__(a) b;' | sparse - 2>&1 | grep -q 'error:'
}

# need_our_qemu: skip the whole file where QEMUs of the user's take the place of ours
need_our_qemu()
{
	[ "$LAB_QEMU" ] && return
	echo "1..0 # SKIP it is about the QEMU of this checkout, and --qemu and --l2-qemu are given"
	exit 0
}

# finish: the plan, and the exit status
finish()
{
	echo "1..$n"
	exit "$bad"
}
