// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the administrator asks for with "vdpa dev add", held against what the function has: a vDPA
 * device is made of it, or the log says why not.
 */
#include <linux/etherdevice.h>
#include <linux/pci.h>
#include <linux/virtio_config.h>
#include <uapi/linux/vdpa.h>

#include "virtio_lm_vdpa.h"

/**
 * virtio_lm_check_mac - can a vDPA device be given this MAC address
 * @func: the function
 * @mac: the address
 * @offer: feature bits that are offered to the bus
 * @software_ctrl: the vDPA device has a control virtqueue in software
 * @config: the device's own configuration
 *
 * With CTRL_RX a guest can have the device filter, and it would by its own address, which only a
 * mailbox can change. The operations of the management API have no extack: the log says why not.
 *
 * Return: 0 or -EINVAL
 */
int virtio_lm_check_mac(struct virtio_lm_func *func, const u8 *mac, u64 offer, bool software_ctrl,
			const struct virtio_net_config *config)
{
	if (!is_valid_ether_addr(mac)) {
		dev_info(func_dev(func), "mac %pM is not a unicast address\n", mac);
		return -EINVAL;
	}
	if (offer & BIT_ULL(VIRTIO_NET_F_CTRL_RX) && !software_ctrl &&
	    !ether_addr_equal_unaligned(mac, config->mac)) {
		dev_info(func_dev(func),
			 "mac %pM with CTRL_RX (0x%llx): the device would filter for its own %pM\n",
			 mac, BIT_ULL(VIRTIO_NET_F_CTRL_RX), config->mac);
		return -EINVAL;
	}
	return 0;
}

/* All pairs, if the function has what they need; else the one that any function has */
static u16 virtio_lm_default_pairs(struct virtio_lm_func *func, u16 device_pairs)
{
	int vectors = pci_msix_vec_count(func->mdev.pci_dev);

	if (device_pairs < 2 || !func->ctrl_size ||
	    (2 * device_pairs + 1 <= func->num_queues && 2 * device_pairs + 1 <= vectors))
		return device_pairs;
	dev_notice(func_dev(func),
		   "one queue pair of %u: they need %u virtqueues and MSI-X vectors, there are %u and %d\n",
		   device_pairs, 2 * device_pairs + 1, func->num_queues, max(vectors, 0));
	return 1;
}

/**
 * virtio_lm_plan - make a plan of what "vdpa dev add" asks for
 * @func: the function, after a reset
 * @add: what is asked for
 * @plan: set to the plan, if 0 is returned
 *
 * A request that is refused is no fault of this machine's, so the reason is logged as info. Of the
 * device no more than the configuration is read. Does not sleep.
 *
 * Return: 0, -EINVAL if the request is refused, or as virtio_lm_read_config()
 */
int virtio_lm_plan(struct virtio_lm_func *func, const struct vdpa_dev_set_config *add,
		   struct virtio_lm_plan *plan)
{
	u16 requested = 0, device_pairs, device_mtu, pairs;
	struct device *dev = func_dev(func);
	struct virtio_net_config config;
	u64 missing;
	int ret;

	ret = virtio_lm_read_config(func, &config);
	if (ret)
		return ret;
	device_pairs = virtio_lm_multiqueue(func->features) ?
		       __virtio16_to_cpu(true, config.max_virtqueue_pairs) : 1;
	device_mtu = func->features & BIT_ULL(VIRTIO_NET_F_MTU) ?
		     __virtio16_to_cpu(true, config.mtu) : ETH_MAX_MTU;

	*plan = (struct virtio_lm_plan){ };
	if (add->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR)) {
		ether_addr_copy(plan->config.mac, add->net.mac);
		plan->config.has_mac = true;
	}
	if (add->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MTU)) {
		if (add->net.mtu < ETH_MIN_MTU || add->net.mtu > device_mtu) {
			dev_info(dev, "mtu %u is not between %u and the device's %u\n",
				 add->net.mtu, ETH_MIN_MTU, device_mtu);
			return -EINVAL;
		}
		plan->config.mtu = add->net.mtu;
	}
	if (add->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MAX_VQP))
		requested = add->net.max_vq_pairs;

	if (add->mask & BIT_ULL(VDPA_ATTR_DEV_FEATURES)) {
		plan->offer = add->device_features;
	} else {
		pairs = requested ?: virtio_lm_default_pairs(func, device_pairs);
		plan->offer = virtio_lm_default_features(func->features, func->ctrl_size, pairs) |
			      virtio_lm_overlay_features(&plan->config);
	}

	missing = plan->offer & ~func->mgmt.supported_features;
	if (missing) {
		dev_info(dev, "device_features 0x%llx: there is no 0x%llx here, at most 0x%llx\n",
			 plan->offer, missing, func->mgmt.supported_features);
		return -EINVAL;
	}
	missing = plan->offer & ~(func->features | virtio_lm_overlay_features(&plan->config));
	if (missing) {
		dev_info(dev, "device_features 0x%llx: 0x%llx needs %s as well, the device has none of its own\n",
			 plan->offer, missing,
			 missing & BIT_ULL(VIRTIO_NET_F_MTU) ? "mtu" : "mac");
		return -EINVAL;
	}
	missing = (BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM)) & ~plan->offer;
	if (missing) {
		dev_info(dev, "device_features 0x%llx lack 0x%llx, which vDPA cannot do without\n",
			 plan->offer, missing);
		return -EINVAL;
	}
	missing = virtio_lm_features_lacking_ctrl_vq(plan->offer);
	if (missing) {
		dev_info(dev, "device_features 0x%llx: 0x%llx need CTRL_VQ (0x%llx) as well\n",
			 plan->offer, missing, BIT_ULL(VIRTIO_NET_F_CTRL_VQ));
		return -EINVAL;
	}

	plan->software_ctrl = virtio_lm_software_ctrl(plan->offer, func->ctrl_size);
	if (plan->config.has_mac) {
		ret = virtio_lm_check_mac(func, plan->config.mac, plan->offer,
					  plan->software_ctrl, &config);
		if (ret)
			return ret;
	}

	ret = virtio_lm_pairs(plan->offer, plan->software_ctrl, requested, device_pairs,
			      func->num_queues);
	if (ret < 0) {
		dev_info(dev,
			 "max_vqp %u: the device has %u queue pairs, %u virtqueues; two pairs or more need MQ and CTRL_VQ in device_features, one pair of several must be without MQ\n",
			 requested, device_pairs, func->num_queues);
		return ret;
	}
	plan->pairs = ret;
	plan->device_pairs = device_pairs;
	plan->nvqs = 2 * plan->pairs + !!(plan->offer & BIT_ULL(VIRTIO_NET_F_CTRL_VQ));
	if (virtio_lm_multiqueue(plan->offer))
		plan->config.max_pairs = plan->pairs;
	return 0;
}
