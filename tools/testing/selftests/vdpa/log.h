/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty log of a vhost-vdpa device (Documentation/vhost-vdpa-log.rst): what
 * the headers of a kernel without one lack, and a bitmap as a VMM holds it.
 */
#ifndef LOG_H
#define LOG_H

#include <sys/ioctl.h>

#include "vdpa_util.h"

#ifndef VHOST_VDPA_SET_LOG
#define VHOST_BACKEND_F_DIRTY_LOG	0x3e
#define VHOST_VDPA_LOG_F_FAULT		0x1
struct vhost_vdpa_log {
	__u64 iova;
	__u64 size;
	__u32 asid;
	__u32 flags;
};

#define VHOST_VDPA_SET_LOG		_IOW(VHOST_VIRTIO, 0xC0, struct vhost_vdpa_log)
#define VHOST_VDPA_GET_LOG_STATUS	_IOR(VHOST_VIRTIO, 0xC1, __u32)
#endif

#define LOG_PAGE	4096UL		/* what a bit stands for: VHOST_PAGE_SIZE */
#define LOG_IOVA	0x200000000ULL	/* where the tests' bitmaps are, above all else */

struct bitmap {
	struct vdpa *v;
	uint64_t *words;	/* little endian as a whole: bit p % 8 of byte p / 8 */
	uint64_t iova;
	uint32_t asid;		/* what it is mapped in, and logs: 0 unless it is set */
	size_t size;
};

int log_set(struct vdpa *v, uint64_t iova, uint64_t size);
int log_status(struct vdpa *v);

int bitmap_init(struct bitmap *b, struct vdpa *v, uint64_t iova);
void bitmap_free(struct bitmap *b);
int bitmap_map(struct bitmap *b);
int bitmap_unmap(struct bitmap *b);
int bitmap_log(struct bitmap *b);
size_t bitmap_take(struct bitmap *b, void (*dirty)(void *arg, uint64_t page), void *arg);

#endif /* LOG_H */
