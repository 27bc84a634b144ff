/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agent device ADDRESS COUNT: read what is at that physical address so many times, each time right
 * after a page fault. An emulator that keeps something of an exception too long shows it there
 * (patches/qemu/fixes/0033).
 */
#ifndef DEVICE_H
#define DEVICE_H

#include "stream.h"

#include <fcntl.h>
#include <sys/mman.h>

#define DEVICE_PAGE	4096ul

static int device_main(char **args)
{
	unsigned long address = strtoul(args[0], NULL, 0);
	unsigned long count = strtoul(args[1], NULL, 0), n;
	volatile uint32_t *device;
	volatile uint8_t *fresh;
	int fd;

	fd = open("/dev/mem", O_RDONLY | O_SYNC);
	if (fd < 0) {
		perror("agent: /dev/mem");
		return 1;
	}
	device = mmap(NULL, DEVICE_PAGE, PROT_READ, MAP_SHARED, fd,
		      (off_t)(address & -DEVICE_PAGE));
	fresh = mmap(NULL, count * DEVICE_PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (device == MAP_FAILED || fresh == MAP_FAILED) {
		perror("agent: device");
		return 1;
	}
	device += address % DEVICE_PAGE / sizeof(*device);
	for (n = 0; n < count; n++) {
		fresh[n * DEVICE_PAGE] = 1;
		(void)*device;
	}
	printf("accesses=%lu.\n", n);
	return 0;
}

#endif /* DEVICE_H */
