// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The management side: "vdpa dev add" makes the one vDPA device of a function from
 * what the function has and what the administrator asks for, "vdpa dev del" undoes it.
 */
#include <linux/etherdevice.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <uapi/linux/vdpa.h>

#include "virtio_lm_vdpa.h"

/* Undoes virtio_lm_map_vqs(), whole or in part */
static void virtio_lm_unmap_vqs(struct virtio_lm_vdpa *vlm)
{
	struct virtio_pci_modern_device *mdev = &vlm->func->mdev;
	int i;

	/* The library maps each doorbell by itself only if it has not mapped them all */
	for (i = 0; i < vlm->device_vqs; i++) {
		if (vlm->vqs[i].notify && !mdev->notify_base)
			pci_iounmap(mdev->pci_dev, vlm->vqs[i].notify);
		vlm->vqs[i].notify = NULL;
	}
}

/*
 * The features are negotiated, so each virtqueue tells its maximum size and its doorbell. The reset
 * that follows finds out whether it was the device that told them.
 */
static int virtio_lm_map_vqs(struct virtio_lm_vdpa *vlm, const struct virtio_lm_plan *plan)
{
	u32 width = plan->offer & BIT_ULL(VIRTIO_F_NOTIFICATION_DATA) ? sizeof(u32) : sizeof(u16);
	struct virtio_lm_func *func = vlm->func;
	struct virtio_pci_modern_device *mdev = &func->mdev;
	struct virtio_lm_vq *vq;
	resource_size_t pa;
	u64 offset;
	int i;

	for (i = 0; i < vlm->nvqs; i++) {
		spin_lock_init(&vlm->vqs[i].callback.lock);
		vlm->vqs[i].irq = -EINVAL;
	}

	vlm->num_max = 0;
	for (i = 0; i < vlm->device_vqs; i++) {
		vq = &vlm->vqs[i];
		vq->device_idx = virtio_lm_device_idx(i, plan->offer, plan->pairs,
						      plan->device_pairs);

		vq->notify = vp_modern_map_vq_notify(mdev, vq->device_idx, &pa);
		if (!vq->notify)
			goto err;	/* the library has said why */

		/* Which has selected the queue */
		vq->num_max = vp_ioread16(&mdev->common->queue_size);
		vq->num = vq->num_max;
		vlm->num_max = max(vlm->num_max, vq->num_max);
		if (!vq->num_max || vq->num_max > VIRTIO_LM_VQ_NUM_MAX) {
			dev_err(func_dev(func), "vq %u: device names a size of %u\n",
				vq->device_idx, vq->num_max);
			goto err;
		}

		offset = pa - pci_resource_start(mdev->pci_dev, func->notify.bar);
		if (!virtio_lm_doorbell_fits(&func->notify, offset, width)) {
			dev_err(func_dev(func),
				"vq %u: doorbell at 0x%llx is not in the notify structure at 0x%x + 0x%x\n",
				vq->device_idx, offset, func->notify.offset, func->notify.length);
			goto err;
		}
		/*
		 * A VMM writes the bus's index into the page, and the device takes its own only.
		 * For a guest that does without MQ, virtqueue 2 is the one in software.
		 */
		if (vq->device_idx == i && !(plan->software_ctrl && i == 2) &&
		    virtio_lm_doorbell_mappable(&func->notify, offset,
						mdev->notify_offset_multiplier, pa, PAGE_SIZE)) {
			vq->doorbell.addr = pa;
			vq->doorbell.size = PAGE_SIZE;
		}
	}

	/* Memory is all that limits the one in software */
	for (; i < vlm->nvqs; i++) {
		vlm->vqs[i].num_max = vlm->num_max;
		vlm->vqs[i].num = vlm->num_max;
	}
	return 0;

err:
	return virtio_lm_gone(func) ? -ENODEV : -EINVAL;
}

/* What it takes from the function, which a recovery from an error does not reset meanwhile */
static int virtio_lm_setup(struct virtio_lm_vdpa *vlm, const struct virtio_lm_plan *plan)
{
	struct virtio_lm_func *func = vlm->func;
	int ret;

	guard(mutex)(&func->lock);

	ret = virtio_lm_negotiate(func, plan->offer & func->features);
	if (ret)
		return ret;
	ret = virtio_lm_map_vqs(vlm, plan);
	if (ret)
		return ret;
	ret = virtio_lm_reset_device(func);
	if (ret)
		return ret;
	ret = virtio_lm_request_irqs(vlm);
	if (ret)
		return ret;

	func->vlm = vlm;
	return 0;
}

static void virtio_lm_teardown(struct virtio_lm_vdpa *vlm)
{
	guard(mutex)(&vlm->func->lock);

	vlm->func->vlm = NULL;
	virtio_lm_free_irqs(vlm);
	virtio_lm_unmap_vqs(vlm);
	virtio_lm_free_as(vlm);
}

/* Is this what vhost-vdpa has made of the device? */
static int virtio_lm_find_node(struct device *child, void *data)
{
	struct virtio_lm_vdpa *vlm = data;

	if (!strstarts(dev_name(child), "vhost-vdpa-"))
		return 0;
	strscpy(vlm->node, dev_name(child), sizeof(vlm->node));
	return 1;
}

static void virtio_lm_report_waiting(struct work_struct *work)
{
	struct virtio_lm_vdpa *vlm = container_of(to_delayed_work(work), struct virtio_lm_vdpa,
						  waiting);

	guard(mutex)(&vlm->lock);
	dev_notice(func_dev(vlm->func),
		   "%s cannot be deleted as long as /dev/%s is open: end %s (pid %d); until then other vdpa commands wait, too\n",
		   dev_name(&vlm->vdpa.dev), vlm->node, vlm->comm, vlm->user);
}

/*
 * The device reaches one address space, and the CPU another one where it serves the control
 * virtqueue. Linux 6.18 put the DMA device into a union.
 */
static struct virtio_lm_vdpa *virtio_lm_alloc(struct virtio_lm_func *func, const char *name,
					      bool software_ctrl)
{
	const struct vdpa_config_ops *ops = virtio_lm_vdpa_ops(func);
	unsigned int groups = software_ctrl ? VIRTIO_LM_NUM_GROUPS : 1;
	unsigned int spaces = software_ctrl ? VIRTIO_LM_NUM_AS : 1;
	struct device *dev = &func->mdev.pci_dev->dev;
	struct virtio_lm_vdpa *vlm;

#ifdef VIRTIO_LM_VDPA_HAS_VMAP
	vlm = vdpa_alloc_device(struct virtio_lm_vdpa, vdpa, dev, ops, NULL, groups, spaces,
				name, false);
	if (!IS_ERR(vlm))
		vlm->vdpa.vmap.dma_dev = dev;
#else
	vlm = vdpa_alloc_device(struct virtio_lm_vdpa, vdpa, dev, ops, groups, spaces, name,
				false);
	if (!IS_ERR(vlm))
		vlm->vdpa.dma_dev = dev;
#endif
	return vlm;
}

static int virtio_lm_count(struct device *dev, void *count)
{
	++*(unsigned int *)count;
	return 0;
}

/*
 * What vhost-vdpa will say of it when it is opened is an errno alone. virtio_vdpa does not need an
 * IOMMU, so none of this is a reason to refuse the device.
 */
static void virtio_lm_report_iommu(struct virtio_lm_func *func)
{
	struct device *dev = func_dev(func);
	struct iommu_domain *domain;
	struct iommu_group *group;
	unsigned int count = 0;

	group = iommu_group_get(dev);
	if (!group) {
		dev_warn(dev, "no IOMMU: /dev/vhost-vdpa-N will not open (error 524), only virtio_vdpa works\n");
		return;
	}
	iommu_group_for_each_dev(group, &count, virtio_lm_count);
	if (!device_iommu_capable(dev, IOMMU_CAP_CACHE_COHERENCY))
		dev_warn(dev, "IOMMU without cache coherency: /dev/vhost-vdpa-N will not open (error 524), only virtio_vdpa works\n");
	else if (count > 1)
		dev_warn(dev, "IOMMU group %d has %u functions: /dev/vhost-vdpa-N will not open (Invalid argument), only virtio_vdpa works\n",
			 iommu_group_id(group), count);
	iommu_group_put(group);

	domain = iommu_get_domain_for_dev(dev);
	if (domain && domain->type == IOMMU_DOMAIN_IDENTITY)
		dev_notice(dev, "IOMMU passes through what is not vhost-vdpa's (iommu=pt): with virtio_vdpa the device reaches all memory\n");
}

static int virtio_lm_dev_add(struct vdpa_mgmt_dev *mgmt, const char *name,
			     const struct vdpa_dev_set_config *add)
{
	struct virtio_lm_func *func = container_of(mgmt, struct virtio_lm_func, mgmt);
	struct pci_dev *pdev = func->mdev.pci_dev;
	struct virtio_lm_vdpa *vlm;
	struct virtio_lm_plan plan;
	int ret;

	/* The driver core would complain of the first, and "vdpa dev del" not find the second */
	if (!*name || strchr(name, '/')) {
		dev_info(&pdev->dev, "cannot add \"%s\": a name is not empty and has no /\n", name);
		return -EINVAL;
	}
	if (func->vlm) {
		dev_info(&pdev->dev, "cannot add %s: the function is already %s\n",
			 name, dev_name(&func->vlm->vdpa.dev));
		return -ENOSPC;
	}

	ret = virtio_lm_reset_device(func);
	if (ret)
		return ret;
	ret = virtio_lm_plan(func, add, &plan);
	if (ret)
		return ret;

	vlm = virtio_lm_alloc(func, name, plan.software_ctrl);
	if (IS_ERR(vlm))
		return PTR_ERR(vlm);

	vlm->vdpa.mdev = mgmt;
	vlm->func = func;
	vlm->offer = plan.offer;
	vlm->provisioned = plan.config;
	vlm->config = plan.config;
	vlm->config_irq = -EINVAL;
	mutex_init(&vlm->lock);
	spin_lock_init(&vlm->config_callback.lock);
	INIT_DELAYED_WORK(&vlm->waiting, virtio_lm_report_waiting);
	vlm->software_ctrl = plan.software_ctrl;
	virtio_lm_init_as(vlm);
	ret = virtio_lm_init_ctrl(vlm);
	if (ret)
		goto err;

	vlm->vqs = kvcalloc(plan.nvqs, sizeof(*vlm->vqs), GFP_KERNEL);
	if (!vlm->vqs) {
		ret = -ENOMEM;
		goto err;
	}
	vlm->nvqs = plan.nvqs;
	vlm->device_vqs = plan.nvqs - plan.software_ctrl;

	ret = virtio_lm_setup(vlm, &plan);
	if (ret)
		goto err;
	virtio_lm_report_iommu(func);
	ret = _vdpa_register_device(&vlm->vdpa, vlm->nvqs);
	if (!ret)
		return 0;

err:
	virtio_lm_teardown(vlm);
	virtio_lm_free_ctrl(vlm);
	put_device(&vlm->vdpa.dev);
	return ret;
}

/*
 * The unregistration may drop the last reference. It waits until nobody has vhost-vdpa's node open,
 * under the locks of the vDPA core and of whoever removes the function.
 */
static void virtio_lm_dev_del(struct vdpa_mgmt_dev *mgmt, struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	get_device(&vdpa->dev);
	virtio_lm_prepare_del(vlm);
	if (device_for_each_child(&vdpa->dev, vlm, virtio_lm_find_node))
		schedule_delayed_work(&vlm->waiting, HZ);
	_vdpa_unregister_device(vdpa);
	cancel_delayed_work_sync(&vlm->waiting);
	virtio_lm_reset_vdpa(vlm);
	virtio_lm_free_ctrl(vlm);
	virtio_lm_teardown(vlm);
	put_device(&vdpa->dev);
}

/*
 * "vdpa dev set": the address, which is all that the kernel passes on. A driver reads it when it
 * starts, so not under one that has. The core holds its lock of the configuration for writing.
 */
static int virtio_lm_dev_set_attr(struct vdpa_mgmt_dev *mgmt, struct vdpa_device *vdpa,
				  const struct vdpa_dev_set_config *set)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_net_config config;
	int ret;

	if (set->mask != BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR)) {
		dev_info(&vdpa->dev, "only mac can be set\n");
		return -EOPNOTSUPP;
	}
	if (!(vlm->offer & BIT_ULL(VIRTIO_NET_F_MAC))) {
		dev_info(&vdpa->dev, "mac cannot be set: there is no MAC (0x%llx) in device_features\n",
			 BIT_ULL(VIRTIO_NET_F_MAC));
		return -EOPNOTSUPP;
	}

	guard(mutex)(&vlm->lock);

	if (vlm->status) {
		dev_info(&vdpa->dev,
			 "mac cannot be set while the device is in use (status 0x%02x): end its driver first\n",
			 vlm->status);
		return -EBUSY;
	}
	/* It tells the control virtqueue its own when it starts, and a guest would not know */
	if (vlm->mac_written) {
		dev_info(&vdpa->dev,
			 "mac cannot be set while a VMM has the device and has given it %pM: end it first\n",
			 vlm->config.mac);
		return -EBUSY;
	}
	ret = virtio_lm_read_config(vlm->func, &config);
	if (!ret)
		ret = virtio_lm_check_mac(vlm->func, set->net.mac, vlm->offer,
					  vlm->software_ctrl, &config);
	if (ret)
		return ret;

	ether_addr_copy(vlm->provisioned.mac, set->net.mac);
	vlm->provisioned.has_mac = true;
	virtio_lm_forget_mac(vlm);
	return 0;
}

static const struct vdpa_mgmtdev_ops virtio_lm_mgmt_ops = {
	.dev_add	= virtio_lm_dev_add,
	.dev_del	= virtio_lm_dev_del,
	.dev_set_attr	= virtio_lm_dev_set_attr,
};

/**
 * virtio_lm_mgmt_register - make a function known to the vDPA management API
 * @func: the function
 *
 * Return: 0 or a negative errno
 */
int virtio_lm_mgmt_register(struct virtio_lm_func *func)
{
	struct vdpa_mgmt_dev *mgmt = &func->mgmt;

	func->id_table[0].device = func->mdev.id.device;
	func->id_table[0].vendor = func->mdev.id.vendor;

	mgmt->device = func_dev(func);
	mgmt->ops = &virtio_lm_mgmt_ops;
	mgmt->id_table = func->id_table;
	mgmt->max_supported_vqs = func->num_queues;
	/* MAC and MTU can be had of any device: they come with the values provisioned */
	mgmt->supported_features = func->features | BIT_ULL(VIRTIO_NET_F_MAC) |
				   BIT_ULL(VIRTIO_NET_F_MTU);
	mgmt->config_attr_mask = BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR) |
				 BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MTU) |
				 BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MAX_VQP) |
				 BIT_ULL(VDPA_ATTR_DEV_FEATURES);

	return vdpa_mgmtdev_register(mgmt);
}
