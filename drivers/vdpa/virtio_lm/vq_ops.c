// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The bus's operations on a virtqueue, as struct vdpa_config_ops has them. Before DRIVER_OK they
 * note what the bus wants; vdpa_dev.c has the device do it.
 */
#include <linux/io.h>
#include <linux/virtio_config.h>

#include "virtio_lm_vdpa.h"

/* Every operation on a virtqueue starts here: not every caller checks its index */
static struct virtio_lm_vq *virtio_lm_vq(struct virtio_lm_vdpa *vlm, u16 idx)
{
	return idx < vlm->nvqs ? &vlm->vqs[idx] : NULL;
}

/**
 * virtio_lm_set_vq_cb - set the callback of a virtqueue's interrupt
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 * @cb: the callback; one whose function is NULL removes the old one
 *
 * When this returns, the old callback is not running and will not be called again. May sleep.
 */
void virtio_lm_set_vq_cb(struct vdpa_device *vdpa, u16 idx, struct vdpa_callback *cb)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	if (!vq)
		return;

	guard(mutex)(&vlm->lock);

	vq->cb = *cb;
	if (vq->running)
		virtio_lm_set_callback(&vq->callback, cb);
}

/**
 * virtio_lm_get_vq_size - the size of a virtqueue
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 *
 * May sleep.
 *
 * Return: entries to enable it with, as many as the device has if none were set; 0 if there is no
 *	   such virtqueue
 */
u16 virtio_lm_get_vq_size(struct vdpa_device *vdpa, u16 idx)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	guard(mutex)(&vlm->lock);
	return vq ? vq->num : 0;
}

/**
 * virtio_lm_set_vq_num - set the size of a virtqueue
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 * @num: entries
 *
 * Checked when the queue is enabled: a VMM may set the features after this. virtio has no way to
 * resize the ring of an enabled queue; one whose size the driver and the device have different
 * ideas of cannot work, and needs a reset. May sleep.
 */
void virtio_lm_set_vq_num(struct vdpa_device *vdpa, u16 idx, u32 num)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	if (!vq)
		return;

	guard(mutex)(&vlm->lock);

	if (!vq->enabled) {
		vq->num = num;
	} else if (num != vq->num) {
		dev_err_ratelimited(&vdpa->dev,
				    "vq %u: a size of %u while it is enabled with %u\n",
				    idx, num, vq->num);
		virtio_lm_set_needs_reset(vlm);
	}
}

/**
 * virtio_lm_set_vq_address - set where the areas of a virtqueue are
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 * @desc_area: address of the descriptor area, in the address space of the virtqueue's group
 * @driver_area: of the driver area
 * @device_area: of the device area
 *
 * May sleep.
 *
 * Return: 0, -EINVAL if there is no such virtqueue, -EBUSY if it is enabled
 */
int virtio_lm_set_vq_address(struct vdpa_device *vdpa, u16 idx, u64 desc_area,
			     u64 driver_area, u64 device_area)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	if (!vq)
		return -EINVAL;

	guard(mutex)(&vlm->lock);

	/* virtio has no way to move the rings of an enabled queue, suspended or not */
	if (vq->enabled)
		return -EBUSY;

	vq->desc = desc_area;
	vq->driver = driver_area;
	vq->device = device_area;
	return 0;
}

/**
 * virtio_lm_set_vq_state - set where a virtqueue is to go on
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 * @state: the state; of a packed ring if the bus has negotiated one
 *
 * Kept until the queue is enabled. Written to the device at once if that has it enabled, and is
 * suspended. May sleep.
 *
 * Return: 0, -EINVAL if there is no such virtqueue, -EBUSY if it is enabled and the device not
 *	   suspended, -ERANGE if no ring can go on from @state, -EIO if the device ignored it, or as
 *	   virtio_lm_check()
 */
int virtio_lm_set_vq_state(struct vdpa_device *vdpa, u16 idx,
			   const struct vdpa_vq_state *state)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);
	bool packed;
	u8 status;
	u32 ring;
	int ret;

	if (!vq)
		return -EINVAL;

	guard(mutex)(&vlm->lock);

	if (vq->enabled && !vlm->suspended)
		return -EBUSY;

	/* The size may be set after this, so it counts only if the queue has one already */
	packed = virtio_lm_packed(vlm);
	ring = virtio_lm_ring_encode(state, packed);
	if (!virtio_lm_ring_valid(ring, packed, vq->enabled ? vq->num : VIRTIO_LM_VQ_NUM_MAX)) {
		dev_err_ratelimited(&vdpa->dev,
				    "vq %u: no ring can go on from state 0x%08x\n", idx, ring);
		return -ERANGE;
	}

	if (!vq->enabled) {
		vq->state = *state;
		vq->has_state = true;
		vq->unknown = false;
		vq->packed = packed;
		return 0;
	}

	ret = virtio_lm_check(vlm, &status);
	if (ret)
		return ret;
	if (vq != vlm->ctrl.vq)
		return virtio_lm_set_ring(vlm->func, vq->device_idx, ring);
	virtio_lm_set_ctrl_idx(vlm, state->split.avail_index);
	return 0;
}

/* Virtio 1.3, 2.7 and 2.8.1: where a ring starts that nothing else is known of */
static void virtio_lm_first_state(bool packed, struct vdpa_vq_state *state)
{
	virtio_lm_ring_decode(packed ? 0x80008000 : 0, packed, state);
}

/**
 * virtio_lm_get_vq_state - tell where a virtqueue stands
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 * @state: set to the state, if 0 is returned
 *
 * Of a queue that runs, the state is old before it is read; a VMM that restored it would
 * repeat or lose packets. It has to suspend first. One that was made not ready has stopped, where
 * the device has RING_RESET, and its state is what virtio_lm_stop_vq() has read. Without DRIVER_OK
 * it is what was set, or where any ring begins. May sleep.
 *
 * Return: 0, -EINVAL if there is no such virtqueue, -EBUSY if the device has it enabled and is not
 *	   suspended, -EIO if it is not known where it has stopped, or as virtio_lm_check() and
 *	   virtio_lm_read_state()
 */
int virtio_lm_get_vq_state(struct vdpa_device *vdpa, u16 idx, struct vdpa_vq_state *state)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);
	u8 status;
	int ret;

	if (!vq)
		return -EINVAL;

	guard(mutex)(&vlm->lock);

	if (vq->unknown)
		return -EIO;
	/* Without DRIVER_OK nothing has moved, enabled or not */
	if (!vq->enabled || !(vlm->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
		if (vq->has_state)
			*state = vq->state;
		else
			virtio_lm_first_state(virtio_lm_packed(vlm), state);
		return 0;
	}

	if (!vlm->suspended)
		return -EBUSY;
	ret = virtio_lm_check(vlm, &status);
	if (ret)
		return ret;
	if (vq != vlm->ctrl.vq)
		return virtio_lm_read_state(vlm, idx, state);
	state->split.avail_index = vlm->ctrl.avail_idx;
	return 0;
}

/**
 * virtio_lm_set_vq_ready - let a virtqueue run, or not
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 * @ready: it is to run
 *
 * Before DRIVER_OK it is a wish, which virtio_lm_start() carries out. What fails later shows in the
 * status: the device needs a reset. May sleep, as virtio_lm_stop_vq().
 */
void virtio_lm_set_vq_ready(struct vdpa_device *vdpa, u16 idx, bool ready)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);
	int ret;

	if (!vq)
		return;

	guard(mutex)(&vlm->lock);

	if (ready == vq->ready)
		return;

	WRITE_ONCE(vq->ready, ready);
	if (!(vlm->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;

	ret = ready ? virtio_lm_start_vq(vlm, idx) : virtio_lm_stop_vq(vlm, idx);
	if (!ret)
		return;

	virtio_lm_log_vq(vlm, idx, ready ? "enabled" : "reset", ret);
	if (ready)
		WRITE_ONCE(vq->ready, false);
	virtio_lm_set_needs_reset(vlm);
}

/**
 * virtio_lm_get_vq_ready - is a virtqueue to run
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 *
 * Any context, without a lock.
 *
 * Return: true if so; false, too, if it could not be started, or there is none
 */
bool virtio_lm_get_vq_ready(struct vdpa_device *vdpa, u16 idx)
{
	struct virtio_lm_vq *vq = virtio_lm_vq(to_vlm(vdpa), idx);

	return vq && READ_ONCE(vq->ready);
}

/**
 * virtio_lm_get_vq_irq - the interrupt of a virtqueue
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 *
 * vhost-vdpa registers the interrupts for bypass when it has asked for DRIVER_OK, whatever came of
 * it, and unregisters one with its eventfd only if the status has DRIVER_OK then. So there are none
 * to be had without: it would refer to one when the eventfd is gone. May sleep.
 *
 * Return: its Linux interrupt number, or -EINVAL without DRIVER_OK, of the control virtqueue in
 *	   software, or if there is no such virtqueue
 */
int virtio_lm_get_vq_irq(struct vdpa_device *vdpa, u16 idx)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	if (!vq)
		return -EINVAL;

	guard(mutex)(&vlm->lock);
	return vlm->status & VIRTIO_CONFIG_S_DRIVER_OK && !virtio_lm_is_ctrl(vlm, idx) ?
	       vq->irq : -EINVAL;
}

/**
 * virtio_lm_kick_vq - kick a virtqueue
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 *
 * Also for a driver that has negotiated NOTIFICATION_DATA: vhost-vdpa kicks through an eventfd,
 * which has no data to pass on. Any context.
 */
void virtio_lm_kick_vq(struct vdpa_device *vdpa, u16 idx)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	if (vq)
		virtio_lm_kick(vlm, vq);
}

/**
 * virtio_lm_kick_vq_with_data - kick a virtqueue, and say how far it is
 * @vdpa: the vDPA device
 * @data: index of the virtqueue in the lower 16 bits; the upper ones are passed on as they are
 *	(virtio 1.3, 2.9)
 *
 * Without NOTIFICATION_DATA, and where there is no doorbell, it is a kick like any other. Any
 * context.
 */
void virtio_lm_kick_vq_with_data(struct vdpa_device *vdpa, u32 data)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	u16 idx = data;
	struct virtio_lm_vq *vq = virtio_lm_vq(vlm, idx);

	if (!(READ_ONCE(vlm->features) & BIT_ULL(VIRTIO_F_NOTIFICATION_DATA)) ||
	    !vq || !vq->notify || vq == READ_ONCE(vlm->ctrl.vq)) {
		virtio_lm_kick_vq(vdpa, idx);
		return;
	}
	if (!READ_ONCE(vq->running))
		return;

	atomic64_inc(&vq->kicks);
	iowrite32((data & 0xffff0000) | vq->device_idx, vq->notify);
}

/**
 * virtio_lm_get_vq_notification - the page of a virtqueue's doorbell
 * @vdpa: the vDPA device
 * @idx: index of the virtqueue
 *
 * vhost-vdpa asks again at each page fault and does not look at the size then, so for a given
 * queue the answer is the same for as long as the vDPA device lives. Any context, without a lock.
 *
 * Return: bus address and size of the page in bytes; both are 0 if a VMM may not map it
 */
struct vdpa_notification_area virtio_lm_get_vq_notification(struct vdpa_device *vdpa, u16 idx)
{
	struct virtio_lm_vq *vq = virtio_lm_vq(to_vlm(vdpa), idx);

	return vq ? vq->doorbell : (struct vdpa_notification_area){ };
}
