// SPDX-License-Identifier: GPL-2.0-or-later
/* The driver's side of a split virtqueue; see vring.h */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/eventfd.h>

#include "vring.h"

/*
 * @segs descriptors make one buffer of @buf_size bytes, the first of them just
 * the virtio-net header where there is more than one.
 */
int vq_init(struct vq *q, struct vdpa *v, uint16_t index, uint16_t size, uint16_t segs,
	    uint32_t buf_size, bool device_writes)
{
	memset(q, 0, sizeof(*q));
	q->v = v;
	q->index = index;
	q->size = size;
	q->segs = segs;
	q->slots = size / segs;
	q->buf_size = buf_size;
	q->device_writes = device_writes;
	q->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->desc = vdpa_alloc(v, sizeof(*q->desc) * size, 4096);
	q->avail = vdpa_alloc(v, sizeof(uint16_t) * (3 + size), 2);
	q->used = vdpa_alloc(v, sizeof(uint16_t) * 3 + sizeof(struct vring_used_elem) * size, 4096);
	q->bufs = vdpa_alloc(v, (size_t)q->slots * buf_size, 64);
	q->busy = calloc(q->slots, sizeof(*q->busy));
	if (q->kick < 0 || q->call < 0 || !q->desc || !q->avail || !q->used || !q->bufs ||
	    !q->busy) {
		vq_free(q);
		return -ENOMEM;
	}
	vq_set_start(q, 0);
	return 0;
}

void vq_free(struct vq *q)
{
	if (q->kick >= 0)
		close(q->kick);
	if (q->call >= 0)
		close(q->call);
	free(q->busy);
	q->busy = NULL;
}

/* An empty ring whose next index is @start, as one that has run to there */
void vq_set_start(struct vq *q, uint16_t start)
{
	memset(q->desc, 0, sizeof(*q->desc) * q->size);
	memset(q->avail, 0, sizeof(uint16_t) * (3 + q->size));
	memset(q->used, 0, sizeof(uint16_t) * 3 + sizeof(struct vring_used_elem) * q->size);
	memset(q->busy, 0, sizeof(*q->busy) * q->slots);
	q->avail_idx = start;
	q->used_idx = start;
	q->posted = 0;
	q->avail->idx = htole16(start);
	q->used->idx = htole16(start);
	/* used_event: the first used entry from here on is to be notified */
	q->avail->ring[q->size] = htole16(start);
}

int vq_set_call(struct vq *q, int fd)
{
	struct vhost_vring_file f = { .index = q->index, .fd = fd };

	return vdpa_ioctl(q->v, VHOST_SET_VRING_CALL, &f);
}

int vq_set_kick(struct vq *q, int fd)
{
	struct vhost_vring_file f = { .index = q->index, .fd = fd };

	return vdpa_ioctl(q->v, VHOST_SET_VRING_KICK, &f);
}

int vq_enable(struct vq *q, bool on)
{
	struct vhost_vring_state s = { .index = q->index, .num = on };

	return vdpa_ioctl(q->v, VHOST_VDPA_SET_VRING_ENABLE, &s);
}

/* Tells the device all about the ring but that it is enabled */
int vq_setup(struct vq *q, uint16_t base)
{
	struct vhost_vring_state num = { .index = q->index, .num = q->size };
	struct vhost_vring_addr addr = {
		.index = q->index,
		.desc_user_addr = vdpa_iova(q->v, q->desc),
		.avail_user_addr = vdpa_iova(q->v, q->avail),
		.used_user_addr = vdpa_iova(q->v, q->used),
	};
	int ret;

	ret = vdpa_ioctl(q->v, VHOST_SET_VRING_NUM, &num);
	if (!ret)
		ret = vdpa_set_base(q->v, q->index, base);
	if (!ret)
		ret = vdpa_ioctl(q->v, VHOST_SET_VRING_ADDR, &addr);
	if (!ret)
		ret = vq_set_kick(q, q->kick);
	if (!ret)
		ret = vq_set_call(q, q->call);
	return ret;
}

uint8_t *vq_buf(struct vq *q, uint16_t slot)
{
	return q->bufs + (size_t)slot * q->buf_size;
}

/* A slot that the device does not hold, or -1 */
int vq_free_slot(struct vq *q)
{
	uint16_t i;

	/* round the slots, so that every one of them is used */
	for (i = 0; i < q->slots; i++) {
		uint16_t slot = (uint16_t)(q->avail_idx + i) % q->slots;

		if (!q->busy[slot])
			return slot;
	}
	return -1;
}

/* Makes the chain at @head available; the caller kicks */
void vq_publish(struct vq *q, uint16_t head)
{
	q->busy[head / q->segs] = true;
	q->posted++;
	q->avail->ring[q->avail_idx % q->size] = htole16(head);
	q->avail_idx++;
	/* the entry is visible before the index that announces it */
	__atomic_store_n(&q->avail->idx, htole16(q->avail_idx), __ATOMIC_RELEASE);
}

/* Makes @len bytes of the slot's buffer available; the caller kicks */
void vq_post(struct vq *q, uint16_t slot, uint32_t len)
{
	uint64_t iova = vdpa_iova(q->v, vq_buf(q, slot));
	uint16_t head = slot * q->segs, i;
	uint32_t hdr = sizeof(struct virtio_net_hdr_v1);

	for (i = 0; i < q->segs; i++) {
		struct vring_desc *d = &q->desc[head + i];
		/* header, equal parts, and the last takes what is left */
		uint32_t part = q->segs == 1 ? len :
				i == 0 ? hdr :
				i == q->segs - 1 ? len : (len / (q->segs - i));

		d->addr = htole64(iova);
		d->len = htole32(part);
		d->flags = htole16((q->device_writes ? VRING_DESC_F_WRITE : 0) |
				   (i < q->segs - 1 ? VRING_DESC_F_NEXT : 0));
		d->next = htole16(i < q->segs - 1 ? head + i + 1 : 0);
		iova += part;
		len -= part;
	}
	vq_publish(q, head);
}

/* Always notifies: that the device asked for none is advice, not a rule */
void vq_kick(struct vq *q)
{
	/* the index is visible before the device is told to look at it */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->doorbell)
		__atomic_store_n(q->doorbell, htole16(q->index), __ATOMIC_RELAXED);
	else if (!eventfd_write(q->kick, 1))
		q->kicks++;
}

/* Takes the calls that have come: an eventfd has counted each of them */
void vq_take_calls(struct vq *q)
{
	eventfd_t count;

	if (!eventfd_read(q->call, &count))
		q->calls += count;
}

uint16_t vq_device_used(const struct vq *q)
{
	return le16toh(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE));
}

/* Slots that the device holds and has not used */
uint16_t vq_unused(const struct vq *q)
{
	return q->posted - (uint16_t)(vq_device_used(q) - q->used_idx);
}

/*
 * Takes back one used slot. Returns its number; -EAGAIN if there is none;
 * -EPROTO if the device used what it was not given, or more than it was given.
 */
int vq_reap(struct vq *q, uint32_t *len)
{
	struct vring_used_elem *e = &q->used->ring[q->used_idx % q->size];
	uint16_t slot;
	uint32_t id;

	if ((uint16_t)(vq_device_used(q) - q->used_idx) > q->posted)
		return -EPROTO;
	if (vq_device_used(q) == q->used_idx)
		return -EAGAIN;
	id = le32toh(e->id);
	if (id >= q->size || id % q->segs || !q->busy[id / q->segs])
		return -EPROTO;
	slot = id / q->segs;
	q->busy[slot] = false;
	q->posted--;
	q->used_idx++;
	/* used_event follows, for the next interrupt */
	__atomic_store_n(&q->avail->ring[q->size], htole16(q->used_idx), __ATOMIC_SEQ_CST);
	if (len)
		*len = le32toh(e->len);
	return slot;
}
