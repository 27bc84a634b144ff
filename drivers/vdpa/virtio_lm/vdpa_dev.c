// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The vDPA device: the operations through which the bus drives it, less those on a virtqueue
 * (vq_ops.c), in the order in which a VMM's start, run and stop go through them.
 *
 * What the bus sets is kept here and written at the step at which the device can take
 * it: the features at FEATURES_OK, a virtqueue at DRIVER_OK if it was made ready before,
 * else when it is made ready. So the order of a VMM's calls does not matter, a reset is a
 * clean start, and the device sees every queue set up in the order that virtio 1.3,
 * 4.1.5.1.3 gives, with its ring state staged first.
 *
 * Few of the operations have a result. What fails in the others shows in the status: a bit
 * that is not set, or DEVICE_NEEDS_RESET.
 */
#include <linux/etherdevice.h>
#include <linux/virtio_config.h>
#include <uapi/linux/vhost_types.h>

#include "trace.h"
#include "virtio_lm_vdpa.h"

/* Virtio 1.3, 2.1: the status bits that a driver sets; what it read back may hold others */
#define VIRTIO_LM_DRIVER_STATUS	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
				 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK | \
				 VIRTIO_CONFIG_S_FAILED)

static u32 virtio_lm_get_device_id(struct vdpa_device *vdpa)
{
	return to_vlm(vdpa)->func->mdev.id.device;
}

static u32 virtio_lm_get_vendor_id(struct vdpa_device *vdpa)
{
	return to_vlm(vdpa)->func->mdev.id.vendor;
}

/*
 * The bus knows of one size for all queues, so it is that of the largest: the least, of a control
 * virtqueue, would make every ring small. What each has, get_vq_size tells.
 */
static u16 virtio_lm_get_vq_num_max(struct vdpa_device *vdpa)
{
	return to_vlm(vdpa)->num_max;
}

static u16 virtio_lm_get_vq_num_min(struct vdpa_device *vdpa)
{
	return 1;
}

static u32 virtio_lm_get_vq_align(struct vdpa_device *vdpa)
{
	return PAGE_SIZE;
}

/*
 * One function without PASID reaches one address space, so all that the device serves is one group.
 * A control virtqueue in software is served by the CPU, which can reach another one.
 */
static u32 virtio_lm_get_vq_group(struct vdpa_device *vdpa, u16 idx)
{
	return virtio_lm_is_ctrl(to_vlm(vdpa), idx) ? VIRTIO_LM_GROUP_CTRL : VIRTIO_LM_GROUP_DATA;
}

/**
 * virtio_lm_reset_vdpa - reset the device and forget all that the bus has set
 * @vlm: the vDPA device
 *
 * The callbacks are forgotten too: their owner may be about to go away, and the next one
 * need not set its own before DRIVER_OK.
 *
 * Return: 0 or a negative errno; the driver's own state is reset in either case
 */
int virtio_lm_reset_vdpa(struct virtio_lm_vdpa *vlm)
{
	static const struct vdpa_callback none;
	struct virtio_lm_vq *vq;
	int i, ret;

	guard(mutex)(&vlm->log_lock);
	guard(mutex)(&vlm->lock);

	for (i = 0; i < vlm->nvqs; i++)
		WRITE_ONCE(vlm->vqs[i].running, false);

	ret = virtio_lm_reset_device(vlm->func);
	virtio_lm_disable_irqs(vlm);

	for (i = 0; i < vlm->nvqs; i++) {
		vq = &vlm->vqs[i];
		virtio_lm_set_callback(&vq->callback, &none);
		vq->cb = none;
		vq->ready = false;
		vq->enabled = false;
		vq->has_state = false;
		vq->unknown = false;
		vq->num = vq->num_max;
		vq->desc = 0;
		vq->driver = 0;
		vq->device = 0;
	}
	virtio_lm_set_callback(&vlm->config_callback, &none);
	WRITE_ONCE(vlm->ctrl.vq, NULL);
	virtio_lm_set_ctrl_idx(vlm, 0);
	vlm->ctrl.broken = false;
	vlm->ctrl.mac_set = false;
	for (i = 0; i < VIRTIO_LM_NUM_GROUPS; i++)
		vlm->group_asid[i] = 0;

	trace_virtio_lm_status(&vlm->vdpa.dev, vlm->status, 0, ret);
	WRITE_ONCE(vlm->features, 0);
	vlm->status = 0;
	vlm->external_reset = false;
	/* A device that did not reset in time is cut off from memory: nobody is to start it */
	vlm->needs_reset = ret != 0;
	vlm->suspended = false;
	vlm->log_fault = false;
	/* A device that did not may still have bits to write */
	if (!ret) {
		guard(mutex)(&vlm->as_lock);
		virtio_lm_free_bitmap(vlm);
	}
	return ret;
}

/* Also the first that the device hears of a process that has opened it, and the last */
static int virtio_lm_reset(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	int ret;

	scoped_guard(mutex, &vlm->lock) {
		/* One that ends: virtio_lm_reset_map() comes only if it has mapped memory */
		if (vlm->user != task_tgid_nr(current) || current->flags & PF_EXITING)
			virtio_lm_forget_mac(vlm);
		vlm->user = task_tgid_nr(current);
		get_task_comm(vlm->comm, current->group_leader);
	}
	ret = virtio_lm_reset_vdpa(vlm);
	if (ret)
		return ret;

	guard(mutex)(&vlm->lock);
	return virtio_lm_attach(vlm);
}

static u64 virtio_lm_get_device_features(struct vdpa_device *vdpa)
{
	return to_vlm(vdpa)->offer;
}

/* A virtqueue may be enabled after DRIVER_OK; virtio has no rule against it */
static u64 virtio_lm_get_backend_features(const struct vdpa_device *vdpa)
{
	return BIT_ULL(VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK);
}

/*
 * The two bits that must be there are those without which the device would take addresses
 * past the IOMMU or rings in the guest's byte order. The vDPA core itself tries 0 for a
 * driver that reads the configuration first, and does not mind if that is refused.
 *
 * The device gets them at FEATURES_OK: it need not take any before DRIVER.
 */
static int virtio_lm_set_driver_features(struct vdpa_device *vdpa, u64 features)
{
	const u64 must = BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | BIT_ULL(VIRTIO_F_VERSION_1);
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	guard(mutex)(&vlm->lock);

	if (vlm->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return -EBUSY;
	if (features & ~vlm->offer || (features & must) != must)
		return -EINVAL;

	WRITE_ONCE(vlm->features, features);
	return 0;
}

static u64 virtio_lm_get_driver_features(struct vdpa_device *vdpa)
{
	return READ_ONCE(to_vlm(vdpa)->features);
}

static size_t virtio_lm_get_config_size(struct vdpa_device *vdpa)
{
	return VIRTIO_LM_CONFIG_SIZE;
}

/* A configuration that cannot be read is all zeroes: an invalid address and a link down */
static void virtio_lm_get_config(struct vdpa_device *vdpa, unsigned int offset,
				 void *buf, unsigned int len)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_net_config config;

	memset(buf, 0, len);
	if (offset >= VIRTIO_LM_CONFIG_SIZE || virtio_lm_read_config(vlm->func, &config))
		return;

	scoped_guard(mutex, &vlm->lock)
		virtio_lm_overlay_config(&config, &vlm->config, vlm->ctrl.mac_set);
	memcpy(buf, (u8 *)&config + offset, min_t(size_t, len, VIRTIO_LM_CONFIG_SIZE - offset));
}

/*
 * No field of it is writable for a driver (virtio 1.3, 5.1.4). But QEMU writes the MAC address of
 * its NIC here before there is a driver, and tells the control virtqueue the same one at each
 * start. A guest that had read another one would not receive what is sent to it.
 */
static void virtio_lm_set_config(struct vdpa_device *vdpa, unsigned int offset,
				 const void *buf, unsigned int len)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	guard(mutex)(&vlm->lock);

	if (!vlm->software_ctrl || !(vlm->offer & BIT_ULL(VIRTIO_NET_F_MAC)) ||
	    vlm->status & VIRTIO_CONFIG_S_FEATURES_OK ||
	    offset != offsetof(struct virtio_net_config, mac) || len != ETH_ALEN ||
	    !is_valid_ether_addr(buf)) {
		dev_info_ratelimited(&vdpa->dev,
				     "a write of %u bytes at %u of the configuration changes nothing\n",
				     len, offset);
		return;
	}

	if (vlm->config.has_mac && !ether_addr_equal_unaligned(buf, vlm->config.mac))
		dev_info_ratelimited(&vdpa->dev, "the VMM gives it mac %pM instead of %pM\n",
				     buf, vlm->config.mac);
	memcpy(vlm->config.mac, buf, ETH_ALEN);
	vlm->config.has_mac = true;
	vlm->mac_written = true;
}

static u32 virtio_lm_get_generation(struct vdpa_device *vdpa)
{
	return vp_modern_generation(&to_vlm(vdpa)->func->mdev);
}

static void virtio_lm_set_config_cb(struct vdpa_device *vdpa, struct vdpa_callback *cb)
{
	virtio_lm_set_callback(&to_vlm(vdpa)->config_callback, cb);
}

/*
 * Virtio 1.3, 3.1.1: the features come after DRIVER, and whether the device has taken them is read
 * back.
 */
static int virtio_lm_features_ok(struct virtio_lm_vdpa *vlm)
{
	struct virtio_pci_modern_device *mdev = &vlm->func->mdev;
	int ret;

	/* A command may be under way in the mailbox, or the device not reset at all */
	if (vlm->needs_reset)
		return -EPROTO;
	if (!vlm->features) {
		dev_err_ratelimited(&vlm->vdpa.dev, "FEATURES_OK before any features were set\n");
		return -EPROTO;
	}

	vp_modern_set_features(mdev, virtio_lm_driver_features(vlm->features, vlm->func->features,
							       mdev->common_len));
	vp_modern_set_status(mdev, vlm->status | VIRTIO_CONFIG_S_FEATURES_OK);
	if (!(vp_modern_get_status(mdev) & VIRTIO_CONFIG_S_FEATURES_OK)) {
		dev_err_ratelimited(&vlm->vdpa.dev, "device does not take features 0x%llx\n",
				    vlm->features);
		return -EINVAL;
	}

	/* The features cannot be taken back any more */
	ret = virtio_lm_apply_mac(vlm);
	if (ret)
		virtio_lm_set_needs_reset(vlm);
	return ret;
}

/*
 * Interrupts, and each queue that was made ready. What can be told without the device is checked
 * first: as long as nothing is enabled, a VMM can mend it and set DRIVER_OK again. After that only
 * a reset can undo what was done.
 */
static int virtio_lm_start(struct virtio_lm_vdpa *vlm)
{
	int i, ret;

	if (!(vlm->status & VIRTIO_CONFIG_S_FEATURES_OK) || vlm->needs_reset ||
	    !virtio_lm_is_attached(vlm))
		return -EPROTO;

	for (i = 0; i < vlm->nvqs; i++) {
		ret = vlm->vqs[i].ready ? virtio_lm_check_vq(vlm, &vlm->vqs[i]) : 0;
		if (ret)
			goto err;
	}

	ret = virtio_lm_enable_irqs(vlm);
	if (ret)
		return ret;	/* which has said why */

	for (i = 0; i < vlm->nvqs; i++) {
		if (!vlm->vqs[i].ready)
			continue;
		ret = virtio_lm_enable_vq(vlm, i);
		if (ret) {
			virtio_lm_set_needs_reset(vlm);
			goto err;
		}
		vlm->vqs[i].enabled = true;
	}

	for (i = 0; i < vlm->nvqs; i++)
		if (vlm->vqs[i].ready)
			virtio_lm_run_vq(&vlm->vqs[i], true);
	return 0;

err:
	virtio_lm_log_vq(vlm, i, "enabled, so no DRIVER_OK", ret);
	return ret;
}

/*
 * This cannot fail. A bit that could not be set is one the bus does not read back, which is how
 * virtio lets a device refuse FEATURES_OK, and what VMMs check. All bits may come at once: each is
 * carried out in its turn, and none after the first that fails.
 */
static void virtio_lm_set_status(struct vdpa_device *vdpa, u8 status)
{
	const u8 steps = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	u8 was, add, own = 0;
	int ret = 0;

	if (!status) {
		virtio_lm_reset_vdpa(vlm);
		return;
	}
	/* Bits that no driver sets are no reset, though they come alone */
	status &= VIRTIO_LM_DRIVER_STATUS;
	if (!status)
		return;

	guard(mutex)(&vlm->lock);

	was = vlm->status;
	/* Virtio 1.3, 2.1.1: a driver does not clear bits but by a reset */
	if (vlm->deleting)
		ret = -ENODEV;
	else if (was & ~status)
		ret = -EINVAL;
	else if (was)
		ret = virtio_lm_check(vlm, &own);
	/* Refused at first, and set by the device later: with which features, it does not tell */
	if (!ret && own & ~was & VIRTIO_CONFIG_S_FEATURES_OK)
		ret = -EPROTO;
	if (ret)
		goto out;

	add = status & ~was;
	if (add & ~steps) {
		vlm->status |= add & ~steps;
		vp_modern_set_status(&vlm->func->mdev, vlm->status);
	}
	if (add & VIRTIO_CONFIG_S_FEATURES_OK) {
		ret = virtio_lm_features_ok(vlm);
		if (ret)
			goto out;
		vlm->status |= VIRTIO_CONFIG_S_FEATURES_OK;
	}
	if (add & VIRTIO_CONFIG_S_DRIVER_OK) {
		ret = virtio_lm_start(vlm);
		if (ret)
			goto out;
		vlm->status |= VIRTIO_CONFIG_S_DRIVER_OK;
		vp_modern_set_status(&vlm->func->mdev, vlm->status);
	}
out:
	trace_virtio_lm_status(&vdpa->dev, was, status, ret);
}

/*
 * A VMM takes its eventfds away right after this. The device's last interrupt may still be on
 * its way then, so each queue's callback is invoked once: spurious at worst, never missing.
 */
static int virtio_lm_suspend_vdpa(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	u8 status;
	int i, ret;

	guard(mutex)(&vlm->lock);

	ret = virtio_lm_check(vlm, &status);
	if (ret || vlm->suspended)
		return ret;

	ret = virtio_lm_suspend(vlm->func);
	if (ret)
		return ret;

	vlm->suspended = true;
	for (i = 0; i < vlm->nvqs; i++)
		virtio_lm_invoke(&vlm->vqs[i].callback);

	return 0;
}

/*
 * A device that does not resume in time may do so later. So its ring states are not final from here
 * on, and the next resume asks it again.
 */
static int virtio_lm_resume_vdpa(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	u8 status;
	int ret;

	guard(mutex)(&vlm->lock);

	ret = virtio_lm_check(vlm, &status);
	if (ret)
		return ret;

	vlm->suspended = false;
	ret = virtio_lm_resume(vlm->func);
	/* What was made available meanwhile is served, as a resume of the device does */
	virtio_lm_kick_ctrl(vlm);
	return ret;
}

static int virtio_lm_get_vendor_vq_stats(struct vdpa_device *vdpa, u16 idx, struct sk_buff *msg,
					 struct netlink_ext_ack *extack)
{
	return virtio_lm_vq_stats(to_vlm(vdpa), idx, msg, extack);
}

/* Memory only: a reference may outlive the function */
static void virtio_lm_free(struct vdpa_device *vdpa)
{
	kvfree(to_vlm(vdpa)->vqs);
}

/* What every device has */
#define VIRTIO_LM_VDPA_OPS \
	.get_device_id		= virtio_lm_get_device_id, \
	.get_vendor_id		= virtio_lm_get_vendor_id, \
	.get_vq_num_max		= virtio_lm_get_vq_num_max, \
	.get_vq_num_min		= virtio_lm_get_vq_num_min, \
	.get_vq_align		= virtio_lm_get_vq_align, \
	.get_vq_group		= virtio_lm_get_vq_group, \
	.reset			= virtio_lm_reset, \
	.get_status		= virtio_lm_get_status, \
	.set_status		= virtio_lm_set_status, \
	.get_device_features	= virtio_lm_get_device_features, \
	.get_backend_features	= virtio_lm_get_backend_features, \
	.set_driver_features	= virtio_lm_set_driver_features, \
	.get_driver_features	= virtio_lm_get_driver_features, \
	.get_config_size	= virtio_lm_get_config_size, \
	.get_config		= virtio_lm_get_config, \
	.set_config		= virtio_lm_set_config, \
	.get_generation		= virtio_lm_get_generation, \
	.set_config_cb		= virtio_lm_set_config_cb, \
	.set_vq_cb		= virtio_lm_set_vq_cb, \
	.get_vq_size		= virtio_lm_get_vq_size, \
	.set_vq_num		= virtio_lm_set_vq_num, \
	.set_vq_address		= virtio_lm_set_vq_address, \
	.set_vq_state		= virtio_lm_set_vq_state, \
	.get_vq_state		= virtio_lm_get_vq_state, \
	.set_vq_ready		= virtio_lm_set_vq_ready, \
	.get_vq_ready		= virtio_lm_get_vq_ready, \
	.get_vq_irq		= virtio_lm_get_vq_irq, \
	.kick_vq		= virtio_lm_kick_vq, \
	.kick_vq_with_data	= virtio_lm_kick_vq_with_data, \
	.get_vq_notification	= virtio_lm_get_vq_notification, \
	.suspend		= virtio_lm_suspend_vdpa, \
	.resume			= virtio_lm_resume_vdpa, \
	.get_vendor_vq_stats	= virtio_lm_get_vendor_vq_stats, \
	.set_group_asid		= virtio_lm_set_group_asid, \
	.dma_map		= virtio_lm_dma_map, \
	.dma_unmap		= virtio_lm_dma_unmap, \
	.reset_map		= virtio_lm_reset_map, \
	.get_iova_range		= virtio_lm_get_iova_range, \
	.free			= virtio_lm_free

static const struct vdpa_config_ops virtio_lm_ops = {
	VIRTIO_LM_VDPA_OPS,
};

#ifdef VHOST_VDPA_LOG_FAULT
static const struct vdpa_config_ops virtio_lm_log_ops = {
	VIRTIO_LM_VDPA_OPS,
	.log_start		= virtio_lm_log_start,
	.log_read_and_clear	= virtio_lm_log_read_and_clear,
	.log_stop		= virtio_lm_log_stop,
};
#endif

/**
 * virtio_lm_vdpa_ops - the operations of a function's vDPA device
 * @func: the function
 *
 * A dirty log that cannot tell that it misses pages is of no use to a VMM, and not offered: it
 * needs VIRTIO_LM_CAP_FAULT.
 *
 * Return: operations of the module's, which outlive @func
 */
const struct vdpa_config_ops *virtio_lm_vdpa_ops(const struct virtio_lm_func *func)
{
#ifdef VHOST_VDPA_LOG_FAULT
	if (func->caps & VIRTIO_LM_CAP_FAULT)
		return &virtio_lm_log_ops;
#endif
	return &virtio_lm_ops;
}
