// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dirty log: the operations that a kernel has whose vhost-vdpa logs what a device writes
 * (Documentation/vhost-vdpa-log.rst), on the LM registers. Such a kernel's headers define what a
 * read returns; with another one there is nothing in here, and a VMM finds that it cannot log.
 *
 * The device writes bits to a bitmap that the driver keeps for it (bitmap.c). log_lock is held
 * while bits are given to the reader. That may have to wait for memory of the reader's, so it is
 * the outermost lock, and no other one is held then.
 */
#include <linux/iopoll.h>
#include <linux/ktime.h>
#include <linux/pci.h>

#include "trace.h"
#include "virtio_lm_vdpa.h"

#ifdef VHOST_VDPA_LOG_FAULT

/*
 * No wait here: LM_STATUS tells what came of the write to LM_LOGGING_CTRL. What was missed before
 * is nobody's concern, and cleared ahead of it.
 */
static int virtio_lm_start_log(struct virtio_lm_vdpa *vlm, u64 base, u64 end)
{
	struct virtio_lm_func *func = vlm->func;
	u32 status;

	virtio_lm_write(func, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
	virtio_lm_write(func, VIRTIO_LM_BASE_ADDR_LOW, lower_32_bits(base));
	virtio_lm_write(func, VIRTIO_LM_BASE_ADDR_HIGH, upper_32_bits(base));
	virtio_lm_write(func, VIRTIO_LM_END_ADDR_LOW, lower_32_bits(end));
	virtio_lm_write(func, VIRTIO_LM_END_ADDR_HIGH, upper_32_bits(end));
	virtio_lm_write(func, VIRTIO_LM_LOGGING_CTRL, VIRTIO_LM_LOGGING_ON);
	status = virtio_lm_read(func, VIRTIO_LM_STATUS);
	if (status == U32_MAX)
		return -ENODEV;
	if (status & VIRTIO_LM_STATUS_LOGGING)
		return 0;
	if (virtio_lm_gone(func))
		return -ENODEV;
	dev_err_ratelimited(&vlm->vdpa.dev,
			    "device refused to log in 0x%llx..0x%llx (LM_STATUS 0x%08x)\n",
			    base, end, status);
	return -EIO;
}

static int virtio_lm_stop_log(struct virtio_lm_vdpa *vlm)
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
	if (ret)
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "device did not stop logging within %llu ms (LM_STATUS 0x%08x)\n",
				    virtio_lm_deadline_us() / USEC_PER_MSEC, status);
	return ret;
}

/*
 * A device that does not stop may go on to write bits. So it is cut off from memory, as one is that
 * does not reset, and the bitmap is kept until it has stopped or is reset.
 */
static int virtio_lm_end_log(struct virtio_lm_vdpa *vlm)
{
	int ret;

	ret = virtio_lm_stop_log(vlm);
	if (ret) {
		pci_clear_master(vlm->func->mdev.pci_dev);
		virtio_lm_set_needs_reset(vlm);
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "its log cannot be ended (%d): DMA cut off until a reset succeeds\n",
				    ret);
		return ret;
	}

	scoped_guard(mutex, &vlm->as_lock)
		virtio_lm_free_bitmap(vlm);
	return 0;
}

static int virtio_lm_begin_log(struct virtio_lm_vdpa *vlm)
{
	struct vdpa_iova_range window;
	int ret;

	scoped_guard(mutex, &vlm->as_lock)
		window = vlm->window;
	ret = virtio_lm_start_log(vlm, window.first, window.last + 1);
	vlm->log_fault = false;
	vlm->log_ended = false;
	if (ret)
		virtio_lm_end_log(vlm);
	return ret;
}

/**
 * virtio_lm_log_start - log the writes to some ranges, or to others than before
 * @vdpa: the vDPA device
 * @asid: the address space that the device reaches
 * @ranges: in ascending order, and below what get_iova_range gives
 * @nranges: how many
 * @page_size: set to what a bit stands for
 *
 * The device logs all that it has a bit for, so of other ranges it need not know.
 *
 * Return: 0; or, with the log as it was, -EINVAL if the device reaches another address space,
 *	   -ENOMEM, -EIO if the device has to be reset first or refused, -ENODEV if it is gone
 */
int virtio_lm_log_start(struct vdpa_device *vdpa, unsigned int asid,
			const struct vdpa_iova_range *ranges, unsigned int nranges, u64 *page_size)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	ktime_t start = ktime_get();
	bool on;
	int ret;

	guard(mutex)(&vlm->log_lock);
	guard(mutex)(&vlm->lock);

	on = vlm->ranges;
	if (asid != vlm->group_asid[VIRTIO_LM_GROUP_DATA] || vlm->dma_api)
		return -EINVAL;
	/* One that is on may be one that did not stop */
	if (!virtio_lm_is_attached(vlm) || (on && vlm->needs_reset))
		return -EIO;

	ret = virtio_lm_set_ranges(vlm, ranges, nranges);
	if (!ret && !on)
		ret = virtio_lm_begin_log(vlm);
	if (!ret)
		*page_size = 1 << VIRTIO_LM_PAGE_SHIFT;

	trace_virtio_lm_log_start(&vdpa->dev, nranges, ranges[0].first, ranges[nranges - 1].last,
				  ktime_us_delta(ktime_get(), start), ret);
	return ret;
}

/*
 * A reader who is told that the device is gone asks no more. What does not answer for another
 * reason, and may answer again, must not write by then.
 */
static int virtio_lm_cut_off(struct virtio_lm_vdpa *vlm)
{
	pci_clear_master(vlm->func->mdev.pci_dev);
	if (vlm->needs_reset)
		return -ENODEV;
	virtio_lm_set_needs_reset(vlm);
	dev_err_ratelimited(&vlm->vdpa.dev,
			    "device does not answer: DMA cut off until a reset succeeds\n");
	return -ENODEV;
}

/*
 * The read of LM_STATUS is what brings the bits to memory of all that the device has written: its
 * completion may not pass the device's writes (PCIe 6.0, 2.4.1). It tells if any are missing, too.
 *
 * The clear of a fault is posted, and wipes a later fault that comes before it arrives. So it is
 * read back before the reader is told of the first: whatever was wiped was written before that.
 */
static int virtio_lm_sync_log(struct virtio_lm_vdpa *vlm, u32 *flags)
{
	struct virtio_lm_func *func = vlm->func;
	bool reset;
	u32 status;

	status = virtio_lm_read(func, VIRTIO_LM_STATUS);
	/* So has a read that got no answer, and nobody knows what that was about to tell */
	if (status & VIRTIO_LM_STATUS_LOG_FAULT) {
		*flags |= VHOST_VDPA_LOG_FAULT_MISSED;
		virtio_lm_write(func, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
		status = virtio_lm_read(func, VIRTIO_LM_STATUS);
	}
	if ((status == U32_MAX || !(status & VIRTIO_LM_STATUS_LOGGING)) && virtio_lm_gone(func))
		return virtio_lm_cut_off(vlm);
	if (!(status & VIRTIO_LM_STATUS_LOGGING)) {
		/* One that was reset from outside writes nothing before the bus resets it, too */
		reset = vlm->external_reset && !vp_modern_get_status(&func->mdev);
		if (!reset || !vlm->log_ended)
			*flags |= VHOST_VDPA_LOG_FAULT_ENDED;
		vlm->log_ended = reset;
	}
	if (vlm->log_fault)
		*flags |= VHOST_VDPA_LOG_FAULT_SOFTWARE;
	vlm->log_fault = false;
	return 0;
}

/**
 * virtio_lm_log_read_and_clear - tell which pages the device has written
 * @vdpa: the vDPA device, which logs
 * @iova: the first page to tell of
 * @length: of all of them
 * @dirty: who is told
 * @flags: VHOST_VDPA_LOG_FAULT_* are set
 *
 * Return: 0, -ENODEV if the device is gone, or the error of @dirty, which is told the rest later
 */
int virtio_lm_log_read_and_clear(struct vdpa_device *vdpa, u64 iova, u64 length,
				 struct vdpa_dirty *dirty, u32 *flags)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	ktime_t start = ktime_get();
	int ret;

	guard(mutex)(&vlm->log_lock);

	scoped_guard(mutex, &vlm->lock)
		ret = virtio_lm_sync_log(vlm, flags);
	if (!ret)
		ret = virtio_lm_read_bitmap(vlm, iova, iova + length - 1, dirty);

	trace_virtio_lm_log_read(&vdpa->dev, iova, length, *flags,
				 ktime_us_delta(ktime_get(), start), ret);
	return ret;
}

/**
 * virtio_lm_log_stop - end the log
 * @vdpa: the vDPA device
 *
 * Return: 0, or, if it is still on, and the device cut off from memory: -ENODEV if the device is
 *	   gone, -ETIMEDOUT if it did not stop in time
 */
int virtio_lm_log_stop(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	ktime_t start = ktime_get();
	int ret;

	guard(mutex)(&vlm->log_lock);
	guard(mutex)(&vlm->lock);

	ret = virtio_lm_end_log(vlm);
	trace_virtio_lm_log_stop(&vdpa->dev, ktime_us_delta(ktime_get(), start), ret);
	return ret;
}

#endif /* VHOST_VDPA_LOG_FAULT */
