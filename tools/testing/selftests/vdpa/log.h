/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty log of a vhost-vdpa device (Documentation/vhost-vdpa-log.rst), and what the headers
 * of a kernel without one lack.
 */
#ifndef LOG_H
#define LOG_H

#include <sys/ioctl.h>

#include "vdpa_util.h"

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

#define LOG_PAGE	4096UL		/* what a bit stands for */
#define LOG_WORDS	(VDPA_MEM_SIZE / LOG_PAGE / 64)	/* a bit for each of the tests' pages */

int log_start_asid(struct vdpa *v, uint32_t asid, const struct vhost_vdpa_log_range *ranges,
		   uint32_t nranges);
int log_start(struct vdpa *v, const struct vhost_vdpa_log_range *ranges, uint32_t nranges);
int log_read(struct vdpa *v, uint64_t iova, uint64_t length, uint64_t *words);
int log_stop(struct vdpa *v);

int log_mem(struct vdpa *v);
int log_read_mem(struct vdpa *v, uint64_t *words);
uint64_t log_page(struct vdpa *v, const void *p);
bool log_has(const uint64_t *words, uint64_t page);

#endif /* LOG_H */
