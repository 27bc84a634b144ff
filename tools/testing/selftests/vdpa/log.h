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

#ifndef VHOST_VDPA_LOG_START
#define VHOST_BACKEND_F_LOG_RANGES	0x9
#define VHOST_VDPA_LOG_MAX_RANGES	256
#define VHOST_VDPA_LOG_FAULT		0x1
#define VHOST_VDPA_LOG_FAULT_MISSED	0x2
#define VHOST_VDPA_LOG_FAULT_ENDED	0x4
#define VHOST_VDPA_LOG_FAULT_SOFTWARE	0x8
struct vhost_vdpa_log_range {
	__u64 iova;
	__u64 length;
};

struct vhost_vdpa_log_start {
	__u32 argsz;
	__u32 flags;
	__u64 page_size;
	__u32 asid;
	__u32 nranges;
	__u64 ranges;
};

struct vhost_vdpa_log_read {
	__u32 argsz;
	__u32 flags;
	__u64 iova;
	__u64 length;
	__u64 page_size;
	__u64 bitmap;
};

#define VHOST_VDPA_LOG_START	_IOWR(VHOST_VIRTIO, 0x86, struct vhost_vdpa_log_start)
#define VHOST_VDPA_LOG_READ	_IOWR(VHOST_VIRTIO, 0x87, struct vhost_vdpa_log_read)
#define VHOST_VDPA_LOG_STOP	_IO(VHOST_VIRTIO, 0x88)
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

int log_start(struct vdpa *v, const struct vhost_vdpa_log_range *ranges, uint32_t nranges);
int log_read(struct vdpa *v, uint64_t iova, uint64_t length, uint64_t *words);
int log_stop(struct vdpa *v);

#endif /* LOG_H */
