// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device configuration as the bus sees it: the device's own, with what
 * "vdpa dev add" provisioned laid over it. A virtio 1.x network device has no
 * configuration field that a driver could write (virtio 1.3, 5.1.4), so the
 * overlay is the only way to give it another address or MTU.
 */
#include <linux/errno.h>
#include <linux/etherdevice.h>
#include <linux/string.h>
#include <linux/unaligned.h>
#include <linux/virtio_byteorder.h>

#include "virtio_lm_vdpa.h"

/* Reads of a consistent configuration to try for; a link that flaps takes two or three */
#define VIRTIO_LM_CONFIG_TRIES	32

/* Widths of the fields up to VIRTIO_LM_CONFIG_SIZE, without gaps (virtio 1.3, 5.1.4) */
static const u8 virtio_lm_widths[] = {
	1, 1, 1, 1, 1, 1,	/* mac, an array of bytes */
	2, 2, 2,		/* status, max_virtqueue_pairs, mtu */
	4, 1,			/* speed, duplex */
	1, 2, 4,		/* rss_max_key_size, its table's length, supported_hash_types */
};

/* Virtio 1.3, 4.1.3.1: an access is as wide as its field */
static void virtio_lm_read_fields(struct virtio_pci_modern_device *mdev, u8 *config)
{
	unsigned int i, width, offset = 0;

	for (i = 0; i < ARRAY_SIZE(virtio_lm_widths); i++, offset += width) {
		width = virtio_lm_widths[i];
		if (offset + width > mdev->device_len)
			break;
		if (width == sizeof(u32))
			put_unaligned_le32(ioread32(mdev->device + offset), config + offset);
		else if (width == sizeof(u16))
			put_unaligned_le16(ioread16(mdev->device + offset), config + offset);
		else
			config[offset] = ioread8(mdev->device + offset);
	}
}

/**
 * virtio_lm_read_config - the device's own configuration
 * @func: the function
 * @config: set to it, as far as it is shown; fields that the device does not have are 0, and all
 *	are on failure
 *
 * Return: 0, -ENODEV if the device is gone, -EIO if its configuration never settles
 */
int virtio_lm_read_config(struct virtio_lm_func *func, struct virtio_net_config *config)
{
	struct virtio_pci_modern_device *mdev = &func->mdev;
	unsigned int tries;
	u32 before;

	memset(config, 0, sizeof(*config));

	for (tries = 0; tries < VIRTIO_LM_CONFIG_TRIES; tries++) {
		before = vp_modern_generation(mdev);
		virtio_lm_read_fields(mdev, (u8 *)config);
		if (vp_modern_generation(mdev) == before) {
			if (!virtio_lm_gone(func))
				return 0;
			memset(config, 0, sizeof(*config));
			return -ENODEV;
		}
	}

	memset(config, 0, sizeof(*config));
	dev_err_ratelimited(func_dev(func),
			    "configuration still changing after %u reads: given up, it reads as zeroes\n",
			    tries);
	return -EIO;
}

/**
 * virtio_lm_overlay_config - lay what was provisioned over a configuration
 * @config: the device's configuration
 * @overlay: what was provisioned
 * @mac_set: the driver has set a MAC address since, which the device shows
 */
void virtio_lm_overlay_config(struct virtio_net_config *config,
			      const struct virtio_lm_config *overlay, bool mac_set)
{
	if (overlay->has_mac && !mac_set)
		ether_addr_copy(config->mac, overlay->mac);
	if (overlay->mtu)
		config->mtu = __cpu_to_virtio16(true, overlay->mtu);
	if (overlay->max_pairs)
		config->max_virtqueue_pairs = __cpu_to_virtio16(true, overlay->max_pairs);
}
