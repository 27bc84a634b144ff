// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control mailbox, which an LM block has if LM_CAPS says CTRL: through it the device executes a
 * control command without DMA and without a control virtqueue.
 * Documentation/virtio-lm-device.rst describes it.
 */
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/ktime.h>

#include "trace.h"
#include "virtio_lm_vdpa.h"

/* What the device promises; with less, the mailbox is to be taken as absent */
#define VIRTIO_LM_CTRL_SIZE_MIN	1024

/* All ones are what a function that is gone reads as, so no tag looks like that */
#define VIRTIO_LM_CTRL_TAG_MAX	0x7fff

/**
 * virtio_lm_find_mailbox - find out whether the LM block has a control mailbox
 * @func: the function; its LM block is mapped
 *
 * Sets the function's @ctrl_size. One that cannot be used is reported, and taken as absent.
 */
void virtio_lm_find_mailbox(struct virtio_lm_func *func)
{
	u32 size = 0;

	func->ctrl_size = 0;
	if (!(func->caps & VIRTIO_LM_CAP_CTRL))
		return;

	if (func->lm_len > VIRTIO_LM_CTRL_DATA)
		size = virtio_lm_read(func, VIRTIO_LM_CTRL_SIZE);
	if (size < VIRTIO_LM_CTRL_SIZE_MIN || !IS_ALIGNED(size, sizeof(u32)) ||
	    size > func->lm_len - VIRTIO_LM_CTRL_DATA) {
		dev_warn(func_dev(func),
			 "control mailbox of %u bytes in a block of %u is not used: no control virtqueue by default\n",
			 size, func->lm_len);
		return;
	}
	func->ctrl_size = size;
}

/**
 * virtio_lm_run_command - have the device execute a control command
 * @func: the function; CTRL_VQ is among its negotiated features
 * @command: class, command and data, as in a control virtqueue; the buffer is a multiple of four
 *	bytes long
 * @len: length of the command in bytes, at most the function's @ctrl_size
 * @ack: set to VIRTIO_NET_OK or VIRTIO_NET_ERR, if 0 is returned
 *
 * The caller keeps others out. After an error a command may still be under way, so that none may be
 * written before a reset. May sleep, until the deadline.
 *
 * Return: 0, -ENODEV if the device is gone, -ETIMEDOUT if it did not complete the command in time
 */
int virtio_lm_run_command(struct virtio_lm_func *func, const void *command, u32 len, u8 *ack)
{
	ktime_t start = ktime_get();
	const u8 *class = command;
	u32 status, want;
	int ret;

	func->ctrl_tag = func->ctrl_tag % VIRTIO_LM_CTRL_TAG_MAX + 1;
	want = (u32)func->ctrl_tag << VIRTIO_LM_CTRL_TAG_SHIFT | VIRTIO_LM_CTRL_DONE;

	/* The block takes accesses of 32 bits only, which memcpy_toio() does not promise */
	__iowrite32_copy(func->lm + VIRTIO_LM_CTRL_DATA, command, DIV_ROUND_UP(len, sizeof(u32)));
	virtio_lm_write(func, VIRTIO_LM_CTRL_RUN,
			(u32)func->ctrl_tag << VIRTIO_LM_CTRL_TAG_SHIFT | len);
	ret = read_poll_timeout(virtio_lm_read, status,
				(status & ~VIRTIO_LM_CTRL_ACK_MASK) == want || virtio_lm_gone(func),
				VIRTIO_LM_POLL_US, virtio_lm_deadline_us(), false,
				func, VIRTIO_LM_CTRL_STATUS);
	if (!ret && (status & ~VIRTIO_LM_CTRL_ACK_MASK) != want)
		ret = -ENODEV;
	if (ret)
		dev_err_ratelimited(func_dev(func),
				    "control command %u of class %u: no ack within %llu ms (%d, LM_CTRL_STATUS 0x%08x)\n",
				    class[1], class[0], virtio_lm_deadline_us() / USEC_PER_MSEC,
				    ret, status);
	else
		*ack = status & VIRTIO_LM_CTRL_ACK_MASK ? VIRTIO_NET_ERR : VIRTIO_NET_OK;

	trace_virtio_lm_command(func_dev(func), class[0], class[1], len,
				ktime_us_delta(ktime_get(), start), ret ?: *ack);
	return ret;
}
