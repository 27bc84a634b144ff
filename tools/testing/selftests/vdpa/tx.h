/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The least traffic: frames to nobody. For each the device writes its used ring,
 * and nothing is needed on the wire.
 */
#ifndef TX_H
#define TX_H

#include "vring.h"

#define TX_MS		15000	/* for all frames of a call */
#define TX_FRAME_LEN	76	/* the header, and the least that Ethernet allows */
#define DRV_OK	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
		 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)
#define MUST_HAVE (BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM))

int tx_start(struct vdpa *v, struct vq *rx, struct vq *tx);
int tx_send(struct vq *tx, unsigned int frames);

#endif /* TX_H */
