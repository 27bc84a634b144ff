// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A virtqueue of the device: how it is set up and enabled, kicked, stopped and reset, in the order
 * that virtio 1.3, 4.1.5.1.3 gives, with its ring state staged first. All but the kick is called
 * with the lock of the vDPA device held.
 */
#include <linux/iopoll.h>
#include <linux/log2.h>
#include <linux/virtio_config.h>

#include "virtio_lm_vdpa.h"

/**
 * virtio_lm_packed - are the rings packed
 * @vlm: the vDPA device, whose lock is held
 *
 * Return: true if the bus has negotiated that
 */
bool virtio_lm_packed(const struct virtio_lm_vdpa *vlm)
{
	return vlm->features & BIT_ULL(VIRTIO_F_RING_PACKED);
}

/**
 * virtio_lm_kick - ring the doorbell of a queue, or wake who serves it
 * @vlm: the vDPA device
 * @vq: the queue, one of its own
 *
 * Any context, without a lock. A kick of a queue that does not run is dropped.
 */
void virtio_lm_kick(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq)
{
	if (!READ_ONCE(vq->running))
		return;

	atomic64_inc(&vq->kicks);
	/* The one in software has no doorbell, also while it is being enabled or disabled */
	if (vq == READ_ONCE(vlm->ctrl.vq) || !vq->notify)
		virtio_lm_kick_ctrl(vlm);
	else
		iowrite16(vq->device_idx, vq->notify);
}

/**
 * virtio_lm_run_vq - let kicks and callbacks of a queue pass, or not
 * @vq: the queue; the lock of its vDPA device is held
 * @run: they pass
 *
 * They do before the last step that lets the device serve the queue, be it queue_enable or
 * DRIVER_OK: a kick that comes in between is heard too early, which is harmless, since that step
 * counts as a kick. One that came after and was dropped would be lost. If they do not pass, the
 * callback is not running when this returns; a kick that has begun still rings the doorbell. Does
 * not sleep.
 */
void virtio_lm_run_vq(struct virtio_lm_vq *vq, bool run)
{
	static const struct vdpa_callback none;

	WRITE_ONCE(vq->running, run);
	virtio_lm_set_callback(&vq->callback, run ? &vq->cb : &none);
}

/**
 * virtio_lm_log_vq - say in the kernel log what cannot be done to a queue
 * @vlm: the vDPA device, whose lock is held
 * @idx: index of the queue; there is one
 * @what: as in "cannot be enabled"
 * @err: the negative errno that came of it
 */
void virtio_lm_log_vq(struct virtio_lm_vdpa *vlm, u16 idx, const char *what, int err)
{
	struct virtio_lm_vq *vq = &vlm->vqs[idx];

	dev_err_ratelimited(&vlm->vdpa.dev,
			    "vq %u: cannot be %s (%d), size %u of at most %u, rings at 0x%llx\n",
			    idx, what, err, vq->num, vq->num_max, vq->desc);
}

/**
 * virtio_lm_read_state - read where a queue stands
 * @vlm: the vDPA device, whose lock is held, and which is suspended
 * @idx: index of the queue, which is one of the device's, and enabled
 * @state: set to the state, if 0 is returned
 *
 * What the device says is checked, for it is where the next device goes on. Does not sleep.
 *
 * Return: 0, -ENODEV if the device is gone, -EIO if it has descriptors in flight or names what is
 *	   no position in the ring
 */
int virtio_lm_read_state(struct virtio_lm_vdpa *vlm, u16 idx, struct vdpa_vq_state *state)
{
	struct virtio_lm_vq *vq = &vlm->vqs[idx];
	bool packed = virtio_lm_packed(vlm);
	u32 ring;
	int ret;

	ret = virtio_lm_get_ring(vlm->func, vq->device_idx, &ring);
	if (ret)
		return ret;
	if (!packed && (ring & VIRTIO_LM_RING_STATE_AVAIL_MASK) !=
		       ring >> VIRTIO_LM_RING_STATE_USED_SHIFT) {
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "vq %u: suspended with descriptors in flight (ring state 0x%08x)\n",
				    idx, ring);
		return -EIO;
	}
	if (!virtio_lm_ring_valid(ring, packed, vq->num)) {
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "vq %u: ring state 0x%08x is no position in a ring of %u\n",
				    idx, ring, vq->num);
		return -EIO;
	}

	virtio_lm_ring_decode(ring, packed, state);
	return 0;
}

/**
 * virtio_lm_check_vq - can a queue be enabled as the bus has set it up
 * @vlm: the vDPA device, whose lock is held
 * @vq: the queue, one of its own
 *
 * As far as that can be told without the device, which is not touched. Does not sleep.
 *
 * Return: 0, -EINVAL if the size, the alignment or the kind of the state is wrong, -EFAULT if
 *	   nobody has set the addresses, -EIO if it is not known where the queue has stopped,
 *	   -ERANGE if its state is no position in its ring
 */
int virtio_lm_check_vq(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq)
{
	bool packed = virtio_lm_packed(vlm);
	int ret;

	/* Of a size above the queue's own it is the device's to say: VMMs take num_max for each */
	if (!vq->num || vq->num > vlm->num_max || (!packed && !is_power_of_2(vq->num)))
		return -EINVAL;
	/* Nobody has set the addresses. QEMU's device takes 0 for a queue without rings, too */
	if (!vq->desc)
		return -EFAULT;
	if (virtio_lm_is_ctrl(vlm, vq - vlm->vqs)) {
		ret = virtio_lm_check_ctrl(vq);
		if (ret)
			return ret;
	}
	if (vq->unknown)
		return -EIO;
	if (!vq->has_state)
		return 0;
	/* A state that was given for a ring of the other kind means nothing in this one */
	if (vq->packed != packed)
		return -EINVAL;
	if (!virtio_lm_ring_valid(virtio_lm_ring_encode(&vq->state, packed), packed, vq->num))
		return -ERANGE;
	return 0;
}

/**
 * virtio_lm_enable_vq - have the device enable a queue
 * @vlm: the vDPA device, whose lock is held
 * @idx: index of the queue; virtio_lm_check_vq() has nothing against it
 *
 * After an error the device may have it enabled all the same, so that only a reset undoes what was
 * done. In the order of virtio 1.3, 4.1.5.1.3, with the ring state first. The queue's @enabled and
 * @running are the caller's to set. Does not sleep.
 *
 * Return: 0, -ENODEV if the device is gone, -ENOENT if it has no such queue with the features
 *	   that are negotiated, -ERANGE if it does not take the size, -EIO if it does not take ring
 *	   state, vector or queue_enable
 */
int virtio_lm_enable_vq(struct virtio_lm_vdpa *vlm, u16 idx)
{
	struct virtio_pci_common_cfg __iomem *cfg = vlm->func->mdev.common;
	struct virtio_lm_vq *vq = &vlm->vqs[idx];
	u32 ring;
	u16 num;
	int ret;

	if (virtio_lm_is_ctrl(vlm, idx)) {
		virtio_lm_enable_ctrl(vlm, vq);
		return 0;
	}
	/* The device would take what it has at that index */
	if (idx >= vlm->device_vqs)
		return -ENOENT;

	if (vq->has_state) {
		ring = virtio_lm_ring_encode(&vq->state, vq->packed);
		ret = virtio_lm_set_ring(vlm->func, vq->device_idx, ring);
		if (ret)
			return ret;
	}

	/* Once: the lock keeps others from it. The library would do it for each register */
	vp_iowrite16(vq->device_idx, &cfg->queue_select);

	/* A queue that the negotiated features do without does not take a size */
	vp_iowrite16(vq->num, &cfg->queue_size);
	num = vp_ioread16(&cfg->queue_size);
	if (num != vq->num) {
		if (virtio_lm_gone(vlm->func))
			return -ENODEV;
		return num ? -ERANGE : -ENOENT;
	}

	vp_iowrite64_twopart(vq->desc, &cfg->queue_desc_lo, &cfg->queue_desc_hi);
	vp_iowrite64_twopart(vq->driver, &cfg->queue_avail_lo, &cfg->queue_avail_hi);
	vp_iowrite64_twopart(vq->device, &cfg->queue_used_lo, &cfg->queue_used_hi);
	vp_iowrite16(idx, &cfg->queue_msix_vector);
	if (vp_ioread16(&cfg->queue_msix_vector) != idx)
		return virtio_lm_gone(vlm->func) ? -ENODEV : -EIO;

	/* No function that is gone reads as 1 */
	vp_iowrite16(1, &cfg->queue_enable);
	if (vp_ioread16(&cfg->queue_enable) != 1)
		return virtio_lm_gone(vlm->func) ? -ENODEV : -EIO;
	return 0;
}

/**
 * virtio_lm_start_vq - let a queue run
 * @vlm: the vDPA device, whose lock is held, and which has DRIVER_OK
 * @idx: index of the queue; there is one
 *
 * One that the device still has enabled goes on: kicks and interrupts that were dropped in between
 * are made up for. Does not sleep.
 *
 * Return: 0, or as virtio_lm_check(), virtio_lm_check_vq() and virtio_lm_enable_vq(); after an
 *	   error the queue does not run
 */
int virtio_lm_start_vq(struct virtio_lm_vdpa *vlm, u16 idx)
{
	struct virtio_lm_vq *vq = &vlm->vqs[idx];
	u8 status;
	int ret;

	ret = virtio_lm_check(vlm, &status);
	if (ret)
		return ret;
	if (vq->enabled) {
		/* An interrupt of the time in between found no callback */
		virtio_lm_run_vq(vq, true);
		virtio_lm_invoke(&vq->callback);
		virtio_lm_kick(vlm, vq);
		return 0;
	}

	ret = virtio_lm_check_vq(vlm, vq);
	if (ret)
		return ret;
	virtio_lm_run_vq(vq, true);
	ret = virtio_lm_enable_vq(vlm, idx);
	vq->enabled = !ret;
	if (ret)
		virtio_lm_run_vq(vq, false);
	return ret;
}

static bool virtio_lm_has_queue_reset(struct virtio_lm_vdpa *vlm)
{
	return virtio_lm_driver_features(vlm->features, vlm->func->features,
					 vlm->func->mdev.common_len) & BIT_ULL(VIRTIO_F_RING_RESET);
}

/* Virtio 1.3, 4.1.4.3.2: when the reset is done, queue_reset and queue_enable both read 0 */
static u16 virtio_lm_read_queue_reset(struct virtio_pci_modern_common_cfg __iomem *cfg)
{
	return vp_ioread16(&cfg->queue_reset) | vp_ioread16(&cfg->cfg.queue_enable);
}

static int virtio_lm_reset_vq(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq)
{
	struct virtio_pci_modern_device *mdev = &vlm->func->mdev;
	struct virtio_pci_modern_common_cfg __iomem *cfg;
	u16 value;
	int ret;

	/* vp_modern_set_queue_reset() would wait for ever */
	cfg = (struct virtio_pci_modern_common_cfg __iomem *)mdev->common;
	vp_iowrite16(vq->device_idx, &cfg->cfg.queue_select);
	vp_iowrite16(1, &cfg->queue_reset);
	ret = read_poll_timeout(virtio_lm_read_queue_reset, value,
				!value || virtio_lm_gone(vlm->func), VIRTIO_LM_POLL_US,
				virtio_lm_deadline_us(), false, cfg);
	return virtio_lm_gone(vlm->func) ? -ENODEV : ret;
}

/*
 * A queue that is reset forgets where it stood, and one that runs does not say it exactly. So the
 * device is suspended for as long as it takes to read the state and to reset the queue: nothing is
 * in flight then. The other queues wait for some register accesses, and lose nothing: a resume
 * counts as a kick of each.
 *
 * If the device does not suspend, or does not tell, the queue is reset all the same: it must not
 * write to the memory of a VMM that takes it for stopped. Then it is unknown where it stood.
 */
static int virtio_lm_quiesce_vq(struct virtio_lm_vdpa *vlm, u16 idx)
{
	struct virtio_lm_vq *vq = &vlm->vqs[idx];
	bool suspend = !vlm->suspended;
	int state, reset, resume = 0;

	state = suspend ? virtio_lm_suspend(vlm->func) : 0;
	if (state)
		suspend = false;
	else
		state = virtio_lm_read_state(vlm, idx, &vq->state);
	vq->has_state = !state;
	vq->unknown = state;
	vq->packed = virtio_lm_packed(vlm);

	reset = virtio_lm_reset_vq(vlm, vq);
	vq->enabled = reset;
	if (suspend)
		resume = virtio_lm_resume(vlm->func);

	return reset ?: state ?: resume;
}

/**
 * virtio_lm_stop_vq - let a queue run no more
 * @vlm: the vDPA device, whose lock is held, and which has DRIVER_OK
 * @idx: index of the queue; there is one
 *
 * A driver must not write 0 to queue_enable (virtio 1.3, 4.1.4.3.2), and QEMU breaks the device
 * of one that does. So without RING_RESET a queue that is no longer wanted stays enabled
 * until the next device reset, which in a VMM's stop comes right after; until then it is only
 * no longer kicked and no longer heard, and may write to memory.
 *
 * The device's last interrupt may be on its way yet. So the callback is invoked once more,
 * and not again after this. May sleep, until the deadline for each of suspend, reset and resume.
 *
 * Return: 0, or a negative errno if the queue was not reset, its state not read, or the device not
 *	   resumed; it is neither kicked nor heard in either case
 */
int virtio_lm_stop_vq(struct virtio_lm_vdpa *vlm, u16 idx)
{
	struct virtio_lm_vq *vq = &vlm->vqs[idx];
	int ret = 0;
	u8 status;

	WRITE_ONCE(vq->running, false);
	/* A device that was reset from outside has no queue to stop */
	if (vq == vlm->ctrl.vq)
		virtio_lm_disable_ctrl(vlm);
	else if (vq->enabled && virtio_lm_has_queue_reset(vlm) && !virtio_lm_check(vlm, &status))
		ret = virtio_lm_quiesce_vq(vlm, idx);
	virtio_lm_invoke(&vq->callback);
	virtio_lm_run_vq(vq, false);
	return ret;
}
