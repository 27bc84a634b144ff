// SPDX-License-Identifier: GPL-2.0-or-later
/* The dirty log of a vhost-vdpa device, as a VMM uses it; see log.h */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "log.h"

/* A @size of 0 stops the log */
int log_set(struct vdpa *v, uint64_t iova, uint64_t size)
{
	struct vhost_vdpa_log log = { .iova = iova, .size = size };

	return vdpa_ioctl(v, VHOST_VDPA_SET_LOG, &log);
}

/* Returns the flags, or a negative errno */
int log_status(struct vdpa *v)
{
	uint32_t flags = ~0U;
	int ret = vdpa_ioctl(v, VHOST_VDPA_GET_LOG_STATUS, &flags);

	return ret ? ret : (int)flags;
}

/* A bit for every page up to the end of the tests' memory; mapped at @iova by bitmap_map() */
int bitmap_init(struct bitmap *b, struct vdpa *v, uint64_t iova)
{
	uint64_t bytes = (v->iova + v->mem_size) / LOG_PAGE / 8 + 1, page = getpagesize();

	b->size = (bytes + page - 1) / page * page;
	/* shared: a parent on virtual addresses maps no other, and a fork is to see it */
	b->words = mmap(NULL, b->size, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (b->words == MAP_FAILED) {
		b->words = NULL;
		return -errno;
	}
	b->v = v;
	b->iova = iova;
	return 0;
}

void bitmap_free(struct bitmap *b)
{
	if (b->words)
		munmap(b->words, b->size);
	b->words = NULL;
}

int bitmap_map(struct bitmap *b)
{
	return vdpa_iotlb_asid(b->v, b->asid, VHOST_IOTLB_UPDATE, b->iova, b->size, b->words,
			       VHOST_ACCESS_RW);
}

int bitmap_unmap(struct bitmap *b)
{
	return vdpa_iotlb_asid(b->v, b->asid, VHOST_IOTLB_INVALIDATE, b->iova, b->size, NULL, 0);
}

/*
 * Logs to @b from now on. When it returns, the bits of all that was written
 * before are in the bitmap that was in use, be it this one.
 */
int bitmap_log(struct bitmap *b)
{
	struct vhost_vdpa_log log = { .iova = b->iova, .size = b->size, .asid = b->asid };

	return vdpa_ioctl(b->v, VHOST_VDPA_SET_LOG, &log);
}

/* Takes all bits, and tells @dirty the page of each; returns how many there were */
size_t bitmap_take(struct bitmap *b, void (*dirty)(void *arg, uint64_t page), void *arg)
{
	size_t i, n = 0;
	uint64_t w;

	for (i = 0; i < b->size / sizeof(*b->words); i++) {
		if (!__atomic_load_n(&b->words[i], __ATOMIC_RELAXED))
			continue;
		/* a bit set after this will be there next time */
		w = le64toh(__atomic_exchange_n(&b->words[i], 0, __ATOMIC_ACQ_REL));
		for (; w; w &= w - 1, n++)
			if (dirty)
				dirty(arg, i * 64 + __builtin_ctzll(w));
	}
	return n;
}

/* Logs the writes to @ranges, and to no others, from now on */
int log_start(struct vdpa *v, const struct vhost_vdpa_log_range *ranges, uint32_t nranges)
{
	struct vhost_vdpa_log_start start = {
		.argsz = sizeof(start),
		.page_size = LOG_PAGE,
		.nranges = nranges,
		.ranges = (uintptr_t)ranges,
	};
	int ret = vdpa_ioctl(v, VHOST_VDPA_LOG_START, &start);

	/* the tests need to know about each page */
	return ret ? ret : start.page_size == LOG_PAGE ? 0 : -EPROTO;
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
