// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device status as the bus reads it: what the bus has set, and DEVICE_NEEDS_RESET where the
 * device is not what the bus has made of it. That is so if it has gone, was reset from outside,
 * did not do as told, or is about to be deleted.
 */
#include <linux/virtio_config.h>

#include "virtio_lm_vdpa.h"

/**
 * virtio_lm_check - is the device still what the bus has made of it
 * @vlm: the vDPA device, whose lock is held
 * @status: set to the device's own status, if 0 is returned
 *
 * One that has gone reads as anything; one whose status lacks a bit that the bus has set was reset
 * behind the kernel's back and has lost its queues, or lies. Nothing that the device says after an
 * error is to be believed. Does not sleep.
 *
 * Return: 0, -EIO if it was reset from outside, or is about to be, or has lost a bit of its status,
 *	   -ENODEV if it is gone
 */
int virtio_lm_check(struct virtio_lm_vdpa *vlm, u8 *status)
{
	if (vlm->external_reset)
		return -EIO;
	*status = vp_modern_get_status(&vlm->func->mdev);
	if (*status == vlm->status)
		return 0;
	if (virtio_lm_gone(vlm->func))
		return -ENODEV;
	return vlm->status & ~*status ? -EIO : 0;
}

/**
 * virtio_lm_get_status - the device status as the bus reads it
 * @vdpa: the vDPA device
 *
 * A device sets NEEDS_RESET, all other bits are the driver's (virtio 1.3, 2.1), and vhost-vdpa
 * relies upon getting back the ones it has set: by DRIVER_OK it knows that a virtqueue's interrupt
 * has to be given up with its eventfd (VHOST_SET_VRING_CALL in drivers/vhost/vdpa.c). What the
 * driver could not have the device do, a reset included, needs a reset, too. May sleep.
 *
 * Return: what the bus has set, less what could not be carried out, with NEEDS_RESET where it is
 *	   needed; the device's own status until the bus has set any
 */
u8 virtio_lm_get_status(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	u8 status;

	guard(mutex)(&vlm->lock);

	if (virtio_lm_check(vlm, &status) || vlm->needs_reset || (vlm->deleting && vlm->status))
		return vlm->status | VIRTIO_CONFIG_S_NEEDS_RESET;

	return vlm->status ? vlm->status | (status & VIRTIO_CONFIG_S_NEEDS_RESET) : status;
}

/**
 * virtio_lm_notify_reset - tell the bus of a reset that it has not asked for
 * @vlm: the vDPA device
 *
 * Virtio 1.3, 2.1.2: a running device that needs a reset notifies of a change of its
 * configuration. This one cannot, having forgotten its vectors. May sleep.
 */
void virtio_lm_notify_reset(struct virtio_lm_vdpa *vlm)
{
	const u8 lost = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET;

	if ((virtio_lm_get_status(&vlm->vdpa) & lost) == lost)
		virtio_lm_invoke(&vlm->config_callback);
}

/**
 * virtio_lm_set_needs_reset - tell the bus that the device does not do what it has asked for
 * @vlm: the vDPA device, whose lock is held
 *
 * For what fails in an operation that has no result. The bus reads DEVICE_NEEDS_RESET until it
 * resets the device; where that runs, a notification of a change of its configuration tells it to
 * look (virtio 1.3, 2.1.2). Does not sleep.
 */
void virtio_lm_set_needs_reset(struct virtio_lm_vdpa *vlm)
{
	vlm->needs_reset = true;
	if (vlm->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_lm_invoke(&vlm->config_callback);
}

/**
 * virtio_lm_mark_external_reset - the device is not what the bus has made of it any more
 * @vlm: the vDPA device
 *
 * Called before a reset from outside; it holds until the bus resets the device. A step of the bus
 * that is under way comes to its end first, later ones fail. A device that the bus has not begun to
 * set up has nothing to lose; if it begins before the reset has come, that is seen by the status
 * alone. May sleep.
 */
void virtio_lm_mark_external_reset(struct virtio_lm_vdpa *vlm)
{
	guard(mutex)(&vlm->lock);
	vlm->external_reset = vlm->status;
}

/**
 * virtio_lm_recover - reset the device alone, after it was reset from outside
 * @vlm: the vDPA device
 *
 * What the bus has set stays, so that its status tells it to reset, too. May sleep.
 *
 * Return: 0 or a negative errno, as virtio_lm_reset_device()
 */
int virtio_lm_recover(struct virtio_lm_vdpa *vlm)
{
	guard(mutex)(&vlm->lock);
	vlm->external_reset = vlm->status;
	return virtio_lm_reset_device(vlm->func);
}

/**
 * virtio_lm_prepare_del - tell the bus that the device is about to be deleted
 * @vlm: the vDPA device
 *
 * It needs a reset, after which it cannot be started any more. Until then it goes on, so that a VMM
 * can suspend it and read its state. Nothing here depends on what it says. May sleep.
 */
void virtio_lm_prepare_del(struct virtio_lm_vdpa *vlm)
{
	guard(mutex)(&vlm->lock);
	vlm->deleting = true;
	if (vlm->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_lm_invoke(&vlm->config_callback);
}
