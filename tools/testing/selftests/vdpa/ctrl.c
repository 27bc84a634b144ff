// SPDX-License-Identifier: GPL-2.0-or-later
/* The driver's side of a control virtqueue; see ctrl.h */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "ctrl.h"

#define SEGS		2
#define CTRL_SLICE_MS	100	/* of the wait for an answer, between two looks at the status */

int ctrl_init(struct vq *q, struct vdpa *v, uint16_t size)
{
	return vq_init(q, v, 2, size, SEGS, CTRL_BUF_SIZE, true);
}

/* Up to FEATURES_OK; these decide which queue it is (virtio 1.3, 5.1.2) */
int ctrl_negotiate(struct vq *q, uint64_t features)
{
	struct vdpa *v = q->v;
	int ret;

	ret = vdpa_negotiate(v, features | BIT_ULL(VIRTIO_F_VERSION_1) |
			     BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | BIT_ULL(VIRTIO_NET_F_MAC) |
			     BIT_ULL(VIRTIO_NET_F_STATUS) | BIT_ULL(VIRTIO_NET_F_CTRL_VQ) |
			     BIT_ULL(VIRTIO_NET_F_CTRL_RX) | BIT_ULL(VIRTIO_NET_F_CTRL_VLAN) |
			     BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR));
	q->index = v->features & (BIT_ULL(VIRTIO_NET_F_MQ) | BIT_ULL(VIRTIO_NET_F_RSS)) ?
		   v->nvqs - 1 : 2;
	return ret;
}

/* From a reset to DRIVER_OK, with what is in the ring: it goes on at @base */
int ctrl_resume_at(struct vq *q, uint64_t features, uint16_t base)
{
	int ret;

	ret = ctrl_negotiate(q, features);
	if (!ret)
		ret = vq_setup(q, base);
	if (!ret)
		ret = vq_enable(q, true);
	return ret ? ret : vdpa_set_status(q->v, CTRL_DRV_OK);
}

/* The same, with an empty ring whose next index is @start */
int ctrl_start(struct vq *q, uint64_t features, uint16_t start)
{
	vq_set_start(q, start);
	return ctrl_resume_at(q, features, start);
}

uint8_t *ctrl_ack(struct vq *q, uint16_t slot)
{
	return vq_buf(q, slot) + q->buf_size - 1;
}

/* Writes a command into a slot; it is not yet available */
void ctrl_fill(struct vq *q, uint16_t slot, uint8_t class, uint8_t cmd, const void *data,
	       uint32_t len)
{
	uint8_t *buf = vq_buf(q, slot), *ack = ctrl_ack(q, slot);
	uint16_t head = slot * q->segs;
	struct vring_desc *d = &q->desc[head];

	buf[0] = class;
	buf[1] = cmd;
	memcpy(buf + 2, data, len);
	*ack = CTRL_NO_ACK;
	d[0].addr = htole64(vdpa_iova(q->v, buf));
	d[0].len = htole32(2 + len);
	d[0].flags = htole16(VRING_DESC_F_NEXT);
	d[0].next = htole16(head + 1);
	d[1].addr = htole64(vdpa_iova(q->v, ack));
	d[1].len = htole32(1);
	d[1].flags = htole16(VRING_DESC_F_WRITE);
	d[1].next = 0;
}

/* Makes a command available; the caller kicks. Returns the slot, or -EAGAIN */
int ctrl_post(struct vq *q, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	int slot = vq_free_slot(q);

	if (slot < 0)
		return -EAGAIN;
	ctrl_fill(q, slot, class, cmd, data, len);
	vq_publish(q, slot * q->segs);
	return slot;
}

/*
 * The same, with its command or its ack (@what is 0 or 1) elsewhere. It is changed before it is
 * available: a device may look at the ring at any time.
 */
int ctrl_post_at(struct vq *q, uint8_t class, uint8_t cmd, const void *data, uint32_t len,
		 unsigned int what, uint64_t iova, uint32_t size)
{
	int slot = vq_free_slot(q);
	struct vring_desc *d;

	if (slot < 0)
		return -EAGAIN;
	ctrl_fill(q, slot, class, cmd, data, len);
	d = &q->desc[slot * q->segs + what];
	d->addr = htole64(iova);
	d->len = htole32(size);
	vq_publish(q, slot * q->segs);
	return slot;
}

/*
 * Waits for a call, if it has to, and takes back one command. Returns the ack; -ETIMEDOUT without
 * an answer, -ENOLINK if there is one that nobody was called for; -EIO if the device has given up;
 * -EBADMSG if it does not say that it has written one byte. Whether it has, an ack of CTRL_NO_ACK
 * tells.
 */
int ctrl_take(struct vq *q)
{
	uint64_t end = deadline(CTRL_MS);
	uint32_t len;
	int slot;

	while ((slot = vq_reap(q, &len)) == -EAGAIN) {
		if (!wait_readable(q->call, deadline(CTRL_SLICE_MS)))
			vq_take_calls(q);
		else if (vdpa_get_status(q->v) & VIRTIO_CONFIG_S_NEEDS_RESET)
			return -EIO;
		else if (expired(end))
			return vq_device_used(q) == q->used_idx ? -ETIMEDOUT : -ENOLINK;
	}
	if (slot < 0)
		return slot;
	if (len != 1)
		return -EBADMSG;
	return *ctrl_ack(q, slot);
}

/*
 * A command from beginning to end, with nothing else in the ring. The simulator gives the answer of
 * the last command to one that it does not know, while it has not seen its ring empty: what reads
 * the status waits for that.
 */
int ctrl_run(struct vq *q, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	int ret = ctrl_post(q, class, cmd, data, len);

	if (ret < 0)
		return ret;
	vq_kick(q);
	ret = ctrl_take(q);
	return vdpa_get_status(q->v) & VIRTIO_CONFIG_S_NEEDS_RESET ? -EIO : ret;
}

int ctrl_set_mac(struct vq *q, const uint8_t *mac)
{
	return ctrl_run(q, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, CTRL_MAC_LEN);
}

int ctrl_get_mac(struct vdpa *v, uint8_t *mac)
{
	return vdpa_get_config(v, offsetof(struct virtio_net_config, mac), mac, CTRL_MAC_LEN);
}

bool ctrl_has_mac(struct vdpa *v, const uint8_t *mac)
{
	uint8_t now[CTRL_MAC_LEN];

	return !ctrl_get_mac(v, now) && !memcmp(now, mac, CTRL_MAC_LEN);
}

/* Resets the device, and gives it @mac again if the reset has not */
int ctrl_put_back(struct vq *q, const uint8_t *mac)
{
	int ret;

	ret = vdpa_reset(q->v);
	if (ret || ctrl_has_mac(q->v, mac))
		return ret;
	ret = ctrl_start(q, 0, 0);
	if (!ret)
		ret = ctrl_set_mac(q, mac);
	return ret ? ret : vdpa_reset(q->v);
}

/*
 * Starts the control virtqueue of a device that was opened. Tells the MAC that the device was
 * provisioned with, and another that it could have.
 */
int ctrl_begin(struct vdpa *v, struct vq *q, uint8_t *mac, uint8_t *other)
{
	int ret;

	ret = vdpa_mem_init(v, VDPA_IOVA);
	if (!ret)
		ret = ctrl_init(q, v, CTRL_RING);
	if (!ret)
		ret = ctrl_get_mac(v, mac);
	memcpy(other, mac, CTRL_MAC_LEN);
	other[5] ^= 0x55;
	return ret ? ret : ctrl_start(q, 0, 0);
}

/* Undoes that, if it was done */
int ctrl_end(struct vq *q, const uint8_t *mac)
{
	int ret;

	if (!q->v)
		return 0;
	ret = ctrl_put_back(q, mac);
	vq_free(q);
	return ret;
}

/* Waits until the device says that it has to be reset */
int ctrl_needs_reset(struct vdpa *v)
{
	uint64_t end = deadline(CTRL_MS);
	int status;

	while (!((status = vdpa_get_status(v)) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		if (expired(end))
			return -ETIMEDOUT;
		sleep_ms(1);
	}
	return status < 0 ? status : 0;
}
