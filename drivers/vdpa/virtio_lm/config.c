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
#include <linux/virtio_byteorder.h>

#include "virtio_lm_vdpa.h"

/* Reads of a consistent configuration to try for; a link that flaps takes two or three */
#define VIRTIO_LM_CONFIG_TRIES	32

/**
 * virtio_lm_read_config - the device's own configuration
 * @func: the function
 * @config: set to it; fields that the device does not have are 0, and all are on failure
 *
 * Return: 0, -ENODEV if the device is gone, -EIO if its configuration never settles
 */
int virtio_lm_read_config(struct virtio_lm_func *func, struct virtio_net_config *config)
{
	struct virtio_pci_modern_device *mdev = &func->mdev;
	size_t i, len = min(mdev->device_len, sizeof(*config));
	unsigned int tries;
	u8 *byte = (u8 *)config;
	u32 before;

	memset(config, 0, sizeof(*config));

	for (tries = 0; tries < VIRTIO_LM_CONFIG_TRIES; tries++) {
		before = vp_modern_generation(mdev);
		for (i = 0; i < len; i++)
			byte[i] = vp_ioread8((u8 __iomem *)mdev->device + i);

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
