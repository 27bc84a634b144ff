// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dirty log: the operations that a kernel with a dirty log through vhost-vdpa has
 * (Documentation/vhost-vdpa-log.rst), on the LM registers. Such a kernel's
 * <linux/vdpa.h> defines what get_log_status returns; with another one there is
 * nothing in here, and a VMM finds that it cannot log.
 *
 * vhost-vdpa has checked the bitmap's mapping, and stops the log before that goes away.
 */
#include <linux/iopoll.h>
#include <linux/ktime.h>
#include <linux/overflow.h>

#include "trace.h"
#include "virtio_lm_vdpa.h"

#ifdef VDPA_LOG_F_FAULT

/* Two registers, the low half first */
static u64 virtio_lm_read64(struct virtio_lm_func *func, u32 offset)
{
	u64 low = virtio_lm_read(func, offset);

	return low | (u64)virtio_lm_read(func, offset + sizeof(u32)) << 32;
}

/**
 * virtio_lm_start_log - have the device log to a bitmap
 * @vlm: the vDPA device, whose lock is held
 * @base: DMA address of the bitmap
 * @end: one past its last byte
 *
 * No wait here: LM_STATUS tells what came of the write to LM_LOGGING_CTRL. The five writes and the
 * read are all that a start costs. If a log was in force before, that one is does not tell that it
 * is this one: then base and end, from which the device takes its bitmap, are read back, too.
 *
 * Return: 0, -EIO if the device refused, -ENODEV if it is gone
 */
int virtio_lm_start_log(struct virtio_lm_vdpa *vlm, u64 base, u64 end)
{
	struct virtio_lm_func *func = vlm->func;
	bool taken = true;
	u32 status;

	virtio_lm_write(func, VIRTIO_LM_BASE_ADDR_LOW, lower_32_bits(base));
	virtio_lm_write(func, VIRTIO_LM_BASE_ADDR_HIGH, upper_32_bits(base));
	virtio_lm_write(func, VIRTIO_LM_END_ADDR_LOW, lower_32_bits(end));
	virtio_lm_write(func, VIRTIO_LM_END_ADDR_HIGH, upper_32_bits(end));
	virtio_lm_write(func, VIRTIO_LM_LOGGING_CTRL, VIRTIO_LM_LOGGING_ON);
	if (vlm->logging)
		taken = virtio_lm_read64(func, VIRTIO_LM_BASE_ADDR_LOW) == base &&
			virtio_lm_read64(func, VIRTIO_LM_END_ADDR_LOW) == end &&
			virtio_lm_read(func, VIRTIO_LM_LOGGING_CTRL) == VIRTIO_LM_LOGGING_ON;
	status = virtio_lm_read(func, VIRTIO_LM_STATUS);
	if (status == U32_MAX)
		return -ENODEV;

	/* One that is in force and not the one asked for is still to be stopped */
	vlm->logging = status & VIRTIO_LM_STATUS_LOGGING;
	vlm->log_fault |= status & VIRTIO_LM_STATUS_LOG_FAULT;
	if (!vlm->logging || !taken) {
		if (virtio_lm_gone(func))
			return -ENODEV;
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "device refused to log in 0x%llx..0x%llx (LM_STATUS 0x%08x)\n",
				    base, end, status);
		return -EIO;
	}

	return 0;
}

/**
 * virtio_lm_stop_log - have the device log no more
 * @vlm: the vDPA device, whose lock is held
 *
 * The read is also what brings the last bits to memory: its completion may not pass the
 * device's writes (PCIe 6.0, 2.4.1).
 *
 * Return: 0, -ENODEV if the device is gone, -ETIMEDOUT if it did not stop in time
 */
int virtio_lm_stop_log(struct virtio_lm_vdpa *vlm)
{
	struct virtio_lm_func *func = vlm->func;
	u32 status;
	int ret;

	virtio_lm_write(func, VIRTIO_LM_LOGGING_CTRL, VIRTIO_LM_LOGGING_OFF);
	ret = read_poll_timeout(virtio_lm_read, status,
				status == U32_MAX || !(status & VIRTIO_LM_STATUS_LOGGING),
				VIRTIO_LM_POLL_US, virtio_lm_deadline_us(), false,
				func, VIRTIO_LM_STATUS);
	/* Where one that is gone reads 0, the suspend or reset that follows finds it out */
	if (status == U32_MAX)
		return -ENODEV;

	vlm->logging = status & VIRTIO_LM_STATUS_LOGGING;
	vlm->log_fault |= status & VIRTIO_LM_STATUS_LOG_FAULT;
	if (ret)
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "device did not stop logging within %llu ms (LM_STATUS 0x%08x)\n",
				    virtio_lm_deadline_us() / USEC_PER_MSEC, status);
	return ret;
}

/**
 * virtio_lm_set_log_base - start to log, go over to another bitmap, or stop
 * @vdpa: the vDPA device
 * @asid: the address space that the device reaches
 * @base: DMA address of the bitmap
 * @size: of the bitmap in bytes, or 0 to stop
 *
 * Return: 0, -EINVAL if the device reaches another address space, -ERANGE if the bitmap ends where
 *	   LM_END_ADDR does not reach, -EIO if the device refused, -ENODEV if it is gone, -ETIMEDOUT
 *	   if it did not stop in time
 */
int virtio_lm_set_log_base(struct vdpa_device *vdpa, unsigned int asid, u64 base, u64 size)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	ktime_t start = ktime_get();
	u64 end;
	int ret;

	guard(mutex)(&vlm->lock);

	if (!size)
		ret = virtio_lm_stop_log(vlm);
	else if (asid != vlm->group_asid[VIRTIO_LM_GROUP_DATA])
		ret = -EINVAL;
	else if (check_add_overflow(base, size, &end))
		ret = -ERANGE;
	else
		ret = virtio_lm_start_log(vlm, base, end);

	trace_virtio_lm_set_log(&vdpa->dev, base, size, ktime_us_delta(ktime_get(), start), ret);
	return ret;
}

/**
 * virtio_lm_get_log_status - has the device written a page that it could not log
 * @vdpa: the vDPA device
 *
 * While the log is off there is nothing new to read: the stop has read it. While it is on,
 * a device that says it is not logging has ended the log by itself, and says no more.
 *
 * Return: VDPA_LOG_F_FAULT if so since the last call or reset, 0 if not, -ENODEV if the
 *	   device is gone
 */
int virtio_lm_get_log_status(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	u32 status;

	guard(mutex)(&vlm->lock);

	if (vlm->logging) {
		status = virtio_lm_read(vlm->func, VIRTIO_LM_STATUS);
		if (status == U32_MAX)
			return -ENODEV;
		if (!(status & VIRTIO_LM_STATUS_LOGGING)) {
			if (virtio_lm_gone(vlm->func))
				return -ENODEV;
			vlm->log_fault = true;
		}
		vlm->log_fault |= status & VIRTIO_LM_STATUS_LOG_FAULT;
	}

	if (!vlm->log_fault)
		return 0;

	virtio_lm_write(vlm->func, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
	vlm->log_fault = false;
	return VDPA_LOG_F_FAULT;
}

#endif /* VDPA_LOG_F_FAULT */
