// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Vendor statistics of a virtqueue, for "vdpa dev vstats show".
 */
#include <linux/netlink.h>
#include <net/netlink.h>
#include <uapi/linux/vdpa.h>

#include "virtio_lm_vdpa.h"

/* Virtio 1.3, 5.1.6.5, in the order of the classes' numbers */
static const char * const virtio_lm_classes[VIRTIO_LM_CTRL_CLASSES] = {
	"rx_commands", "mac_commands", "vlan_commands", "announce_commands", "mq_commands",
	"guest_offloads_commands", "other_commands",
};

static int virtio_lm_put_stat(struct sk_buff *msg, const char *name, u64 value)
{
	if (nla_put_string(msg, VDPA_ATTR_DEV_VENDOR_ATTR_NAME, name) ||
	    nla_put_u64_64bit(msg, VDPA_ATTR_DEV_VENDOR_ATTR_VALUE, value, VDPA_ATTR_PAD))
		return -EMSGSIZE;
	return 0;
}

static int virtio_lm_put_ctrl_stats(struct virtio_lm_vdpa *vlm, struct sk_buff *msg)
{
	int i, ret;

	ret = virtio_lm_put_stat(msg, "errors", vlm->ctrl.errors);
	for (i = 0; i < VIRTIO_LM_CTRL_CLASSES && !ret; i++)
		ret = virtio_lm_put_stat(msg, virtio_lm_classes[i], vlm->ctrl.commands[i]);
	return ret;
}

/**
 * virtio_lm_vq_stats - put a virtqueue's statistics into a netlink message
 * @vlm: the vDPA device
 * @idx: index of the virtqueue
 * @msg: the message
 * @extack: for what went wrong
 *
 * The indices are the device's at this moment; of a running queue they are old when read.
 *
 * Return: 0 or a negative errno
 */
int virtio_lm_vq_stats(struct virtio_lm_vdpa *vlm, u16 idx, struct sk_buff *msg,
		       struct netlink_ext_ack *extack)
{
	struct virtio_lm_vq *vq;
	unsigned long flags;
	u64 calls;
	u16 avail = 0, used = 0;
	u32 ring;
	int ret;

	if (idx >= vlm->nvqs) {
		NL_SET_ERR_MSG_FMT_MOD(extack, "virtqueue %u: there are %u", idx, vlm->nvqs);
		return -EINVAL;
	}
	vq = &vlm->vqs[idx];

	guard(mutex)(&vlm->lock);

	if (virtio_lm_is_ctrl(vlm, idx)) {
		avail = vlm->ctrl.avail_idx;
		used = vlm->ctrl.used_idx;
	} else if (idx < vlm->device_vqs) {
		ret = virtio_lm_get_ring(vlm->func, vq->device_idx, &ring);
		if (ret) {
			NL_SET_ERR_MSG_MOD(extack, "the device is gone");
			return ret;
		}
		avail = ring & VIRTIO_LM_RING_STATE_AVAIL_MASK;
		used = ring >> VIRTIO_LM_RING_STATE_USED_SHIFT;
	}

	spin_lock_irqsave(&vq->callback.lock, flags);
	calls = vq->callback.calls;
	spin_unlock_irqrestore(&vq->callback.lock, flags);

	ret = virtio_lm_put_stat(msg, "kicks", atomic64_read(&vq->kicks));
	if (!ret)
		ret = virtio_lm_put_stat(msg, "calls", calls);
	if (!ret)
		ret = virtio_lm_put_stat(msg, "avail_idx", avail);
	if (!ret)
		ret = virtio_lm_put_stat(msg, "used_idx", used);
	if (!ret && virtio_lm_is_ctrl(vlm, idx))
		ret = virtio_lm_put_ctrl_stats(vlm, msg);
	return ret;
}
