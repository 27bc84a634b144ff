// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * xrstor COUNT: load the FPU's state that many times, as a kernel does for each switch of tasks,
 * but nothing in between. What QEMU's TCG does beside that is what it is for
 * (patches/qemu/device/0020).
 */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>

#define XSTATE_X87	1

int main(int argc, char **argv)
{
	/* the legacy region and the header; no other state is saved */
	static char area[512 + 64] __attribute__((aligned(64)));
	unsigned long count;
	char *end;

	count = argc == 2 ? strtoul(argv[1], &end, 10) : 0;
	if (!count || *end) {
		fprintf(stderr, "usage: xrstor COUNT\n");
		return 2;
	}

	_xsave(area, XSTATE_X87);
	while (count--)
		_xrstor(area, XSTATE_X87);
	return 0;
}
