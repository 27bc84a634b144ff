/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver's side of a control virtqueue (virtio 1.3, 5.1.6.5): commands in a
 * ring of any kind, and what the device answers.
 *
 * A slot of the ring is two descriptors. The first is the command with all its
 * data, the second is the byte that the device writes its ack to.
 */
#ifndef CTRL_H
#define CTRL_H

#include "vring.h"

#define CTRL_MS		15000	/* for the answer to a command */
#define CTRL_RING	16	/* descriptors in the ring of a test */
#define CTRL_BUF_SIZE	64	/* of a slot; the ack is its last byte */
#define CTRL_NO_ACK	0xaa	/* what is there until the device writes it */
#define CTRL_MAC_LEN	6
#define CTRL_NOBODY	0xf0	/* a class that there is not */

#define CTRL_DRV_OK	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
			 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

int ctrl_begin(struct vdpa *v, struct vq *q, uint8_t *mac, uint8_t *other);
int ctrl_end(struct vq *q, const uint8_t *mac);
int ctrl_init(struct vq *q, struct vdpa *v, uint16_t size);
int ctrl_negotiate(struct vq *q, uint64_t features);
int ctrl_start(struct vq *q, uint64_t features, uint16_t start);
int ctrl_resume_at(struct vq *q, uint64_t features, uint16_t base);

void ctrl_fill(struct vq *q, uint16_t slot, uint8_t class, uint8_t cmd, const void *data,
	       uint32_t len);
int ctrl_post(struct vq *q, uint8_t class, uint8_t cmd, const void *data, uint32_t len);
int ctrl_post_at(struct vq *q, uint8_t class, uint8_t cmd, const void *data, uint32_t len,
		 unsigned int what, uint64_t iova, uint32_t size);
uint8_t *ctrl_ack(struct vq *q, uint16_t slot);
int ctrl_take(struct vq *q);
int ctrl_run(struct vq *q, uint8_t class, uint8_t cmd, const void *data, uint32_t len);

int ctrl_set_mac(struct vq *q, const uint8_t *mac);
int ctrl_get_mac(struct vdpa *v, uint8_t *mac);
bool ctrl_has_mac(struct vdpa *v, const uint8_t *mac);
int ctrl_put_back(struct vq *q, const uint8_t *mac);
int ctrl_needs_reset(struct vdpa *v);

#endif /* CTRL_H */
