/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver's side of a split virtqueue (virtio 1.2, 2.7) that starts at any
 * index. It owns a fixed buffer per descriptor chain ("slot"), which makes the
 * state of the ring plain to see for the tests that stop and move it.
 */
#ifndef VRING_H
#define VRING_H

#include "vdpa_util.h"

#define VQ_BUF_SIZE	2048

struct vq {
	struct vdpa *v;
	uint16_t index;
	uint16_t size;		/* descriptors */
	uint16_t segs;		/* descriptors per slot */
	uint16_t slots;
	bool device_writes;	/* receive queue */
	uint32_t buf_size;

	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint8_t *bufs;

	uint16_t avail_idx;	/* next to be made available */
	uint16_t used_idx;	/* next to be seen used */
	uint16_t posted;	/* slots in the device's hands */
	bool *busy;		/* per slot */

	int kick;
	int call;
	uint16_t *doorbell;	/* kicked by this instead, if set */
	uint64_t kicks;		/* written to the eventfd */
	uint64_t calls;		/* read from it by vq_take_calls() */
};

int vq_init(struct vq *q, struct vdpa *v, uint16_t index, uint16_t size, uint16_t segs,
	    uint32_t buf_size, bool device_writes);
void vq_free(struct vq *q);
void vq_set_start(struct vq *q, uint16_t start);
int vq_setup(struct vq *q, uint16_t base);
int vq_enable(struct vq *q, bool on);
int vq_set_call(struct vq *q, int fd);
int vq_set_kick(struct vq *q, int fd);

uint8_t *vq_buf(struct vq *q, uint16_t slot);
int vq_free_slot(struct vq *q);
void vq_post(struct vq *q, uint16_t slot, uint32_t len);
void vq_publish(struct vq *q, uint16_t head);
void vq_kick(struct vq *q);
void vq_take_calls(struct vq *q);
uint16_t vq_unused(const struct vq *q);
int vq_reap(struct vq *q, uint32_t *len);
uint16_t vq_device_used(const struct vq *q);

#endif /* VRING_H */
