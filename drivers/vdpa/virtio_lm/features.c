// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which feature bits are offered, and how many virtqueues follow from them.
 * The reasons, bit by bit: Documentation/virtio-lm-driver.rst.
 */
#include <linux/errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci_modern.h>
#include <linux/virtio_ring.h>

#include "virtio_lm_vdpa.h"

/* Virtio 1.3, 5.1.3: not every kernel that this is built with knows of it */
#define VIRTIO_LM_NET_F_HASH_TUNNEL	51

/*
 * The driver would have to act on these and does not: what a doorbell takes, admin queues. The
 * field of HASH_TUNNEL is behind VIRTIO_LM_CONFIG_SIZE.
 */
#define VIRTIO_LM_F_UNUSABLE	(BIT_ULL(VIRTIO_F_NOTIF_CONFIG_DATA) | \
				 BIT_ULL(VIRTIO_F_ADMIN_VQ) | \
				 BIT_ULL(VIRTIO_LM_NET_F_HASH_TUNNEL))

/*
 * What the shadow virtqueues of a stock QEMU accept (hw/virtio/vhost-shadow-virtqueue.c and
 * net/vhost-vdpa.c there), so that a guest can migrate by them, less the control virtqueue
 * and all that needs one.
 */
#define VIRTIO_LM_F_DEFAULT	(BIT_ULL(VIRTIO_NET_F_CSUM) | \
				 BIT_ULL(VIRTIO_NET_F_GUEST_CSUM) | \
				 BIT_ULL(VIRTIO_NET_F_MTU) | \
				 BIT_ULL(VIRTIO_NET_F_MAC) | \
				 BIT_ULL(VIRTIO_NET_F_GUEST_TSO4) | \
				 BIT_ULL(VIRTIO_NET_F_GUEST_TSO6) | \
				 BIT_ULL(VIRTIO_NET_F_GUEST_ECN) | \
				 BIT_ULL(VIRTIO_NET_F_GUEST_UFO) | \
				 BIT_ULL(VIRTIO_NET_F_HOST_TSO4) | \
				 BIT_ULL(VIRTIO_NET_F_HOST_TSO6) | \
				 BIT_ULL(VIRTIO_NET_F_HOST_ECN) | \
				 BIT_ULL(VIRTIO_NET_F_HOST_UFO) | \
				 BIT_ULL(VIRTIO_NET_F_MRG_RXBUF) | \
				 BIT_ULL(VIRTIO_NET_F_STATUS) | \
				 BIT_ULL(VIRTIO_NET_F_RSC_EXT) | \
				 BIT_ULL(VIRTIO_NET_F_STANDBY) | \
				 BIT_ULL(VIRTIO_NET_F_SPEED_DUPLEX) | \
				 BIT_ULL(VIRTIO_F_ANY_LAYOUT) | \
				 BIT_ULL(VIRTIO_RING_F_EVENT_IDX) | \
				 BIT_ULL(VIRTIO_F_VERSION_1) | \
				 BIT_ULL(VIRTIO_F_ACCESS_PLATFORM))

/* Virtio 1.3, 5.1.3.1: each of these requires CTRL_VQ */
#define VIRTIO_LM_F_NEED_CTRL_VQ (BIT_ULL(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_RX) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_RX_EXTRA) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_VLAN) | \
				  BIT_ULL(VIRTIO_NET_F_GUEST_ANNOUNCE) | \
				  BIT_ULL(VIRTIO_NET_F_MQ) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR) | \
				  BIT_ULL(VIRTIO_NET_F_DEVICE_STATS) | \
				  BIT_ULL(VIRTIO_NET_F_VQ_NOTF_COAL) | \
				  BIT_ULL(VIRTIO_NET_F_NOTF_COAL) | \
				  BIT_ULL(VIRTIO_NET_F_HASH_REPORT) | \
				  BIT_ULL(VIRTIO_NET_F_RSS))

/*
 * What the shadow control virtqueue of a stock QEMU accepts (net/vhost-vdpa.c there), follows, and
 * says again to the destination's device. GUEST_ANNOUNCE it does not accept: with a control
 * virtqueue it gives its guest that feature by itself.
 */
#define VIRTIO_LM_F_DEFAULT_CTRL (BIT_ULL(VIRTIO_NET_F_CTRL_VQ) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_RX) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_RX_EXTRA) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_VLAN) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR) | \
				  BIT_ULL(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))

/**
 * virtio_lm_usable_features - what of a device's features this driver can pass on
 * @device: features the device offers
 * @caps: its LM_CAPS
 *
 * Return: @device, less what the driver or the LM block cannot do
 */
u64 virtio_lm_usable_features(u64 device, u32 caps)
{
	device &= ~VIRTIO_LM_F_UNUSABLE;
	if (!(caps & VIRTIO_LM_CAP_PACKED))
		device &= ~BIT_ULL(VIRTIO_F_RING_PACKED);
	return device;
}

/**
 * virtio_lm_overlay_features - features that the driver brings along
 * @config: what was provisioned
 *
 * MAC and MTU only say that a field of the configuration is valid. A provisioned field is
 * answered by this driver, so the device need not offer the bit.
 *
 * Return: feature bits
 */
u64 virtio_lm_overlay_features(const struct virtio_lm_config *config)
{
	return (config->has_mac ? BIT_ULL(VIRTIO_NET_F_MAC) : 0) |
	       (config->mtu ? BIT_ULL(VIRTIO_NET_F_MTU) : 0);
}

/**
 * virtio_lm_driver_features - what is negotiated with the device
 * @bus: what the bus has negotiated
 * @usable: usable features of the device
 * @common_len: length of its common configuration
 *
 * Less what the driver brings along, which the device does not know of. And RING_RESET, whether
 * it was offered or not: it is this driver that has a use for it (see virtio_lm_stop_vq()), and
 * no guest sees a difference.
 *
 * Return: feature bits
 */
u64 virtio_lm_driver_features(u64 bus, u64 usable, size_t common_len)
{
	u64 features = bus & usable;

	if (common_len >= offsetofend(struct virtio_pci_modern_common_cfg, queue_reset))
		features |= usable & BIT_ULL(VIRTIO_F_RING_RESET);
	return features;
}

/**
 * virtio_lm_default_features - what is offered if the administrator does not say
 * @usable: usable features of the device
 * @mailbox: it has a control mailbox
 * @pairs: queue pairs that the vDPA device is to have, if the device has MQ
 *
 * A control virtqueue only where it can be isolated from the others, for without that its state is
 * lost in a migration.
 *
 * Return: feature bits
 */
u64 virtio_lm_default_features(u64 usable, bool mailbox, u16 pairs)
{
	u64 offer = VIRTIO_LM_F_DEFAULT;

	if (mailbox && usable & BIT_ULL(VIRTIO_NET_F_CTRL_VQ)) {
		offer |= VIRTIO_LM_F_DEFAULT_CTRL;
		if (pairs > 1)
			offer |= BIT_ULL(VIRTIO_NET_F_MQ);
	}
	return usable & offer;
}

/**
 * virtio_lm_software_ctrl - is the control virtqueue served in software
 * @offer: feature bits to be offered
 * @mailbox: the device has a control mailbox
 *
 * Not where the guest may make it a packed ring, or use commands that no mailbox executes: then it
 * is the device's own, as without a mailbox.
 *
 * Return: true if so, false too if there is none
 */
bool virtio_lm_software_ctrl(u64 offer, bool mailbox)
{
	const u64 own = BIT_ULL(VIRTIO_F_RING_PACKED) | BIT_ULL(VIRTIO_NET_F_DEVICE_STATS) |
			BIT_ULL(VIRTIO_NET_F_NOTF_COAL) | BIT_ULL(VIRTIO_NET_F_VQ_NOTF_COAL);

	return mailbox && offer & BIT_ULL(VIRTIO_NET_F_CTRL_VQ) && !(offer & own);
}

/**
 * virtio_lm_features_lacking_ctrl_vq - features that need a control virtqueue where there is none
 * @offer: feature bits to be offered
 *
 * A guest that is offered one of them fails to probe its NIC.
 *
 * Return: the offending bits, 0 if @offer is consistent
 */
u64 virtio_lm_features_lacking_ctrl_vq(u64 offer)
{
	return offer & BIT_ULL(VIRTIO_NET_F_CTRL_VQ) ? 0 : offer & VIRTIO_LM_F_NEED_CTRL_VQ;
}

/**
 * virtio_lm_multiqueue - can the driver use more than one queue pair
 * @offer: feature bits offered
 *
 * Return: true if max_virtqueue_pairs is valid (virtio 1.3, 5.1.4)
 */
bool virtio_lm_multiqueue(u64 offer)
{
	return offer & (BIT_ULL(VIRTIO_NET_F_MQ) | BIT_ULL(VIRTIO_NET_F_RSS));
}

/**
 * virtio_lm_pairs - how many queue pairs a vDPA device gets
 * @offer: feature bits offered
 * @software_ctrl: the control virtqueue is in software
 * @requested: pairs asked for, 0 for as many as the device has
 * @device_pairs: the device's max_virtqueue_pairs
 * @num_queues: virtqueues that the device has
 *
 * One pair out of several cannot be offered together with MQ: virtqueue 2 would be the
 * control virtqueue for the guest, but for the device that only if MQ is not negotiated. One in
 * software has no index in the device.
 *
 * Return: number of pairs, or -EINVAL
 */
int virtio_lm_pairs(u64 offer, bool software_ctrl, u16 requested, u16 device_pairs, u16 num_queues)
{
	u16 pairs;

	if (!virtio_lm_multiqueue(offer)) {
		bool cvq = offer & BIT_ULL(VIRTIO_NET_F_CTRL_VQ);

		return requested > 1 || num_queues < 2 + cvq ? -EINVAL : 1;
	}

	pairs = requested ?: device_pairs;
	if (!pairs || pairs > device_pairs ||
	    (pairs == 1 && device_pairs > 1 && !software_ctrl) || 2 * device_pairs + 1 > num_queues)
		return -EINVAL;

	return pairs;
}

/**
 * virtio_lm_device_idx - the device's index of a virtqueue
 * @idx: the bus's index
 * @offer: feature bits offered
 * @pairs: queue pairs offered
 * @device_pairs: the device's max_virtqueue_pairs
 *
 * The control virtqueue comes after all pairs (virtio 1.3, 5.1.2), which are more for the
 * device than for the bus if fewer were provisioned.
 *
 * Return: index
 */
u16 virtio_lm_device_idx(u16 idx, u64 offer, u16 pairs, u16 device_pairs)
{
	return virtio_lm_multiqueue(offer) && idx == 2 * pairs ? 2 * device_pairs : idx;
}
