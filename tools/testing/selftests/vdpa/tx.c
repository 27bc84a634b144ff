// SPDX-License-Identifier: GPL-2.0-or-later
/* A send queue, and frames to nobody; see tx.h */
#include <errno.h>
#include <string.h>

#include "tx.h"

/*
 * Starts the device, and its send queue anew; also @rx, which nothing is received in,
 * unless it is NULL: a device may want both to be there (virtio 1.2, 5.1.5).
 */
int tx_start(struct vdpa *v, struct vq *rx, struct vq *tx)
{
	int ret;

	vq_set_start(tx, 0);
	ret = vdpa_negotiate(v, MUST_HAVE);
	if (!ret && rx) {
		vq_set_start(rx, 0);
		ret = vq_setup(rx, 0);
		if (!ret)
			ret = vq_enable(rx, true);
	}
	if (!ret)
		ret = vq_setup(tx, 0);
	if (!ret)
		ret = vq_enable(tx, true);
	return ret ? ret : vdpa_set_status(v, DRV_OK);
}

/* Frames to nobody, until all have been used */
int tx_send(struct vq *tx, unsigned int frames)
{
	uint64_t end = deadline(TX_MS);
	int slot, ret;

	while (frames || tx->posted) {
		while (frames && (slot = vq_free_slot(tx)) >= 0) {
			memset(vq_buf(tx, slot), 0, TX_FRAME_LEN);
			vq_post(tx, slot, TX_FRAME_LEN);
			frames--;
		}
		vq_kick(tx);
		while ((ret = vq_reap(tx, NULL)) >= 0)
			;
		if (ret != -EAGAIN)
			return ret;
		/* late is well, if all of it is done */
		if ((frames || tx->posted) && expired(end))
			return -ETIMEDOUT;
		sleep_ms(1);
	}
	return 0;
}
