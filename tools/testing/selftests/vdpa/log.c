// SPDX-License-Identifier: GPL-2.0-or-later
/* The dirty log of a vhost-vdpa device, as a VMM uses it; see log.h */
#include <errno.h>

#include "log.h"

/* Logs the writes to @ranges of an address space, and to no others, from now on */
int log_start_asid(struct vdpa *v, uint32_t asid, const struct vhost_vdpa_log_range *ranges,
		   uint32_t nranges)
{
	struct vhost_vdpa_log_start start = {
		.argsz = sizeof(start),
		.page_size = LOG_PAGE,
		.asid = asid,
		.nranges = nranges,
		.ranges = (uintptr_t)ranges,
	};
	int ret = vdpa_ioctl(v, VHOST_VDPA_LOG_START, &start);

	/* the tests need to know about each page */
	return ret ? ret : start.page_size == LOG_PAGE ? 0 : -EPROTO;
}

int log_start(struct vdpa *v, const struct vhost_vdpa_log_range *ranges, uint32_t nranges)
{
	return log_start_asid(v, 0, ranges, nranges);
}

/* Sets the bits of the pages written in a range; returns the flags, or a negative errno */
int log_read(struct vdpa *v, uint64_t iova, uint64_t length, uint64_t *words)
{
	struct vhost_vdpa_log_read read = {
		.argsz = sizeof(read),
		.iova = iova,
		.length = length,
		.page_size = LOG_PAGE,
		.bitmap = (uintptr_t)words,
	};
	int ret = vdpa_ioctl(v, VHOST_VDPA_LOG_READ, &read);

	return ret ? ret : (int)read.flags;
}

int log_stop(struct vdpa *v)
{
	return vdpa_ioctl(v, VHOST_VDPA_LOG_STOP, NULL);
}

/* Logs the writes to the tests' memory */
int log_mem(struct vdpa *v)
{
	const struct vhost_vdpa_log_range mem = { v->iova, v->mem_size };

	return log_start(v, &mem, 1);
}

/* As log_read(), of the tests' memory */
int log_read_mem(struct vdpa *v, uint64_t *words)
{
	return log_read(v, v->iova, v->mem_size, words);
}

/* The page of the tests' memory that @p is in */
uint64_t log_page(struct vdpa *v, const void *p)
{
	return ((const uint8_t *)p - v->mem) / LOG_PAGE;
}

bool log_has(const uint64_t *words, uint64_t page)
{
	return words[page / 64] >> page % 64 & 1;
}
