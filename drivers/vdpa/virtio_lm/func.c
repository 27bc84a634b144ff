// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a function can do by itself: its LM registers are read and written, it is found to be gone,
 * it is reset, and it takes a set of features. No wait for it is longer than the deadline.
 */
#include <linux/iopoll.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/virtio_config.h>

#include "virtio_lm_vdpa.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static unsigned int deadline_ms = 5000;
module_param(deadline_ms, uint, 0644);
MODULE_PARM_DESC(deadline_ms,
		 "longest wait for the device to reset, suspend or resume, in ms (default 5000)");

/**
 * virtio_lm_deadline_us - how long to wait for the device to do as told
 *
 * Return: microseconds; never 0, which read_poll_timeout() takes for "without end"
 */
u64 virtio_lm_deadline_us(void)
{
	return (u64)max(READ_ONCE(deadline_ms), 1U) * USEC_PER_MSEC;
}

/**
 * virtio_lm_read - read an LM register
 * @func: the function
 * @offset: of the register
 *
 * Return: its value; 0 or all ones if the device is gone
 */
u32 virtio_lm_read(struct virtio_lm_func *func, u32 offset)
{
	return ioread32(func->lm + offset);
}

/**
 * virtio_lm_write - write an LM register
 * @func: the function
 * @offset: of the register
 * @value: what to write
 */
void virtio_lm_write(struct virtio_lm_func *func, u32 offset, u32 value)
{
	trace_virtio_lm_write(func_dev(func), offset, value);
	iowrite32(value, func->lm + offset);
}

/**
 * virtio_lm_gone - has the function been removed from under the driver
 * @func: the function
 *
 * A read from a function that is not there gives all ones, or 0 on some platforms; both may
 * be true values of other registers. LM_CAPS is neither, and never changes.
 *
 * Return: true if its registers cannot be believed any more
 */
bool virtio_lm_gone(struct virtio_lm_func *func)
{
	return virtio_lm_read(func, VIRTIO_LM_CAPS) != func->caps;
}

/**
 * virtio_lm_reset_device - virtio reset of the whole function
 * @func: the function
 *
 * Virtio 1.3, 4.1.4.3.2: having written 0 the driver waits until it reads 0. A device that
 * does not get there may go on with DMA into memory that is about to be given away, so it
 * loses bus mastering until a later reset succeeds. One that has gone may read 0 or all ones.
 *
 * Return: 0, -ENODEV if the device is gone, -ETIMEDOUT if it did not reset in time
 */
int virtio_lm_reset_device(struct virtio_lm_func *func)
{
	struct pci_dev *pdev = func->mdev.pci_dev;
	u8 status;
	int ret;

	vp_modern_set_status(&func->mdev, 0);
	ret = read_poll_timeout(vp_modern_get_status, status, status == 0 || virtio_lm_gone(func),
				VIRTIO_LM_POLL_US, virtio_lm_deadline_us(), false, &func->mdev);
	if (virtio_lm_gone(func))
		ret = -ENODEV;
	if (ret) {
		pci_clear_master(pdev);
		dev_err_ratelimited(&pdev->dev,
				    "%s (device status 0x%02x): DMA cut off until a reset succeeds\n",
				    ret == -ENODEV ? "device does not answer" : "reset timed out",
				    status);
		return ret;
	}

	pci_set_master(pdev);
	return 0;
}

/**
 * virtio_lm_negotiate - have the device take a set of features
 * @func: the function, after a reset; the caller resets it again
 * @features: the features
 *
 * How many virtqueues there are, and their sizes and doorbells, a device may tell only then:
 * QEMU's shows those of one queue pair until MQ is negotiated.
 *
 * Return: 0, or -EINVAL if the device does not take them
 */
int virtio_lm_negotiate(struct virtio_lm_func *func, u64 features)
{
	struct virtio_pci_modern_device *mdev = &func->mdev;
	u8 status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	vp_modern_set_status(mdev, status);
	vp_modern_set_features(mdev, features);
	vp_modern_set_status(mdev, status | VIRTIO_CONFIG_S_FEATURES_OK);
	if (vp_modern_get_status(mdev) & VIRTIO_CONFIG_S_FEATURES_OK)
		return 0;

	dev_err(func_dev(func), "device does not take features 0x%llx\n", features);
	return -EINVAL;
}
