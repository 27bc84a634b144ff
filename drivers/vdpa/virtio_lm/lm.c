// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LM block: where it is, and what its registers are used for. Its layout is in
 * include/linux/virtio_lm.h, its behaviour in Documentation/virtio-lm-device.rst.
 */
#include <linux/iopoll.h>
#include <linux/ktime.h>
#include <linux/pci.h>

#include "trace.h"
#include "virtio_lm_vdpa.h"

/* With a mailbox as long as a command can be */
#define VIRTIO_LM_SIZE_MAX	(VIRTIO_LM_CTRL_DATA + VIRTIO_LM_CTRL_LEN_MASK)

/**
 * virtio_lm_block_offset - where the LM block is in the BAR
 * @bar_len: length of the BAR that holds the notify structure
 * @notify: the notify structure
 * @offset: set to the offset of the block
 *
 * Return: 0, or -ENODEV if no block fits there
 */
int virtio_lm_block_offset(u64 bar_len, const struct virtio_lm_notify *notify, u32 *offset)
{
	u64 start = (u64)notify->offset + notify->length;

	if (!IS_ALIGNED(start, sizeof(u32)) || start + VIRTIO_LM_SIZE > bar_len ||
	    start > U32_MAX)
		return -ENODEV;

	*offset = start;
	return 0;
}

/**
 * virtio_lm_doorbell_fits - is a doorbell where virtio wants it
 * @notify: the notify structure
 * @offset: of the doorbell in the BAR
 * @width: of the widest write to it
 *
 * Virtio 1.3, 4.1.4.4.1: a queue's doorbell lies in the notify structure. Behind that is the
 * LM block, so a doorbell there would write its registers.
 *
 * Return: true if a write of @width bytes to @offset hits the notify structure only
 */
bool virtio_lm_doorbell_fits(const struct virtio_lm_notify *notify, u64 offset, u32 width)
{
	return IS_ALIGNED(offset, width) && offset >= notify->offset &&
	       offset - notify->offset < notify->length &&
	       notify->length - (offset - notify->offset) >= width;
}

/**
 * virtio_lm_doorbell_mappable - may a VMM have the page of a doorbell
 * @notify: the notify structure
 * @offset: of the doorbell in the BAR
 * @multiplier: the function's notify_off_multiplier
 * @pa: bus address of the doorbell
 * @page_size: of the pages that are mapped
 *
 * vhost-vdpa maps whole pages and expects the doorbell at the start of one; there must be
 * nothing else in it, neither another queue's doorbell nor the LM block.
 *
 * Return: true if the page at @pa is this doorbell and nothing else
 */
bool virtio_lm_doorbell_mappable(const struct virtio_lm_notify *notify, u64 offset,
				 u32 multiplier, resource_size_t pa, u32 page_size)
{
	return multiplier && IS_ALIGNED(multiplier, page_size) && IS_ALIGNED(pa, page_size) &&
	       offset >= notify->offset && offset - notify->offset < notify->length &&
	       notify->length - (offset - notify->offset) >= page_size;
}

/**
 * virtio_lm_ring_encode - ring state as LM_RING_STATE holds it
 * @state: as the bus gives it
 * @packed: the ring is packed
 *
 * A split ring's state has no used index on this bus. It is set equal to the available
 * one, which is what a suspended device leaves behind: nothing in flight.
 *
 * Return: register value
 */
u32 virtio_lm_ring_encode(const struct vdpa_vq_state *state, bool packed)
{
	u16 avail, used;

	if (packed) {
		avail = state->packed.last_avail_idx;
		if (state->packed.last_avail_counter)
			avail |= VIRTIO_LM_RING_STATE_WRAP;
		used = state->packed.last_used_idx;
		if (state->packed.last_used_counter)
			used |= VIRTIO_LM_RING_STATE_WRAP;
	} else {
		avail = state->split.avail_index;
		used = avail;
	}

	return avail | (u32)used << VIRTIO_LM_RING_STATE_USED_SHIFT;
}

/**
 * virtio_lm_ring_decode - ring state as the bus takes it
 * @ring: LM_RING_STATE
 * @packed: the ring is packed
 * @state: set to the state
 */
void virtio_lm_ring_decode(u32 ring, bool packed, struct vdpa_vq_state *state)
{
	u16 avail = ring & VIRTIO_LM_RING_STATE_AVAIL_MASK;
	u16 used = ring >> VIRTIO_LM_RING_STATE_USED_SHIFT;

	if (packed) {
		state->packed.last_avail_idx = avail & ~VIRTIO_LM_RING_STATE_WRAP;
		state->packed.last_avail_counter = !!(avail & VIRTIO_LM_RING_STATE_WRAP);
		state->packed.last_used_idx = used & ~VIRTIO_LM_RING_STATE_WRAP;
		state->packed.last_used_counter = !!(used & VIRTIO_LM_RING_STATE_WRAP);
	} else {
		state->split.avail_index = avail;
	}
}

/**
 * virtio_lm_ring_valid - can a ring go on from this state
 * @ring: LM_RING_STATE
 * @packed: the ring is packed
 * @num: its size
 *
 * A split ring's indices run freely; those of a packed one are positions in it (virtio 1.3,
 * 2.8), and a device takes no other. The used one is behind the available one by less than a ring:
 * what is between them was in flight once, and as a suspended device has nothing in flight, it
 * never completes. A whole ring of such descriptors leaves none to go on with.
 *
 * Return: true if it can
 */
bool virtio_lm_ring_valid(u32 ring, bool packed, u32 num)
{
	u16 avail = ring & VIRTIO_LM_RING_STATE_AVAIL_MASK;
	u16 used = ring >> VIRTIO_LM_RING_STATE_USED_SHIFT;
	bool same_lap = !((avail ^ used) & VIRTIO_LM_RING_STATE_WRAP);

	if (!packed)
		return true;

	avail &= ~VIRTIO_LM_RING_STATE_WRAP;
	used &= ~VIRTIO_LM_RING_STATE_WRAP;
	return avail < num && used < num && (same_lap ? used <= avail : used > avail);
}

/* The same notify capability that vp_modern_probe() has settled for, if it is in memory space */
static int virtio_lm_find_notify(struct virtio_lm_func *func)
{
	struct pci_dev *pdev = func->mdev.pci_dev;
	u8 pos, type, bar;

	for (pos = pci_find_capability(pdev, PCI_CAP_ID_VNDR); pos;
	     pos = pci_find_next_capability(pdev, pos, PCI_CAP_ID_VNDR)) {
		pci_read_config_byte(pdev, pos + offsetof(struct virtio_pci_cap, cfg_type), &type);
		pci_read_config_byte(pdev, pos + offsetof(struct virtio_pci_cap, bar), &bar);
		if (type != VIRTIO_PCI_CAP_NOTIFY_CFG || bar >= PCI_STD_NUM_BARS ||
		    !(func->mdev.modern_bars & BIT(bar)) ||
		    !(pci_resource_flags(pdev, bar) & IORESOURCE_MEM))
			continue;

		func->notify.bar = bar;
		pci_read_config_dword(pdev, pos + offsetof(struct virtio_pci_cap, offset),
				      &func->notify.offset);
		pci_read_config_dword(pdev, pos + offsetof(struct virtio_pci_cap, length),
				      &func->notify.length);
		return 0;
	}

	return -ENODEV;
}

/**
 * virtio_lm_map - find and map the LM block
 * @func: the function; its modern structures are mapped
 *
 * Return: 0, -ENODEV if the function has no LM block that this driver can use, or -ENOMEM
 */
int virtio_lm_map(struct virtio_lm_func *func)
{
	struct pci_dev *pdev = func->mdev.pci_dev;
	u32 offset;

	if (virtio_lm_find_notify(func) ||
	    virtio_lm_block_offset(pci_resource_len(pdev, func->notify.bar), &func->notify,
				   &offset)) {
		dev_err(&pdev->dev,
			"no room for a live-migration block behind the notify structure: not a vdpa=on device\n");
		return -ENODEV;
	}

	func->lm_len = min(pci_resource_len(pdev, func->notify.bar) - offset, VIRTIO_LM_SIZE_MAX);
	func->lm = pci_iomap_range(pdev, func->notify.bar, offset, func->lm_len);
	if (!func->lm) {
		dev_err(&pdev->dev, "cannot map the live-migration block at BAR %u + 0x%x\n",
			func->notify.bar, offset);
		return -ENOMEM;
	}

	/* Without SUSPEND no ring state is ever final, and this driver would be vp_vdpa */
	func->caps = virtio_lm_read(func, VIRTIO_LM_CAPS);
	if ((func->caps & VIRTIO_LM_CAPS_MAGIC_MASK) != VIRTIO_LM_CAPS_MAGIC ||
	    (func->caps & VIRTIO_LM_CAPS_VERSION_MASK) != VIRTIO_LM_CAPS_VERSION ||
	    !(func->caps & VIRTIO_LM_CAP_SUSPEND)) {
		dev_err(&pdev->dev,
			"no live-migration block of version 1 with SUSPEND at BAR %u + 0x%x (LM_CAPS 0x%08x): not a vdpa=on device\n",
			func->notify.bar, offset, func->caps);
		virtio_lm_unmap(func);
		return -ENODEV;
	}

	return 0;
}

/**
 * virtio_lm_unmap - undo virtio_lm_map()
 * @func: the function
 */
void virtio_lm_unmap(struct virtio_lm_func *func)
{
	pci_iounmap(func->mdev.pci_dev, func->lm);
}

/* 0 and all ones are what one that is gone reads as, too: LM_CAPS tells. No other value needs it */
static bool virtio_lm_unanswered(struct virtio_lm_func *func, u32 value)
{
	return (!value || value == U32_MAX) && virtio_lm_gone(func);
}

static int virtio_lm_switch(struct virtio_lm_func *func, u32 ctrl, u32 want)
{
	u32 status;
	int ret;

	virtio_lm_write(func, VIRTIO_LM_DEV_CTRL, ctrl);
	ret = read_poll_timeout(virtio_lm_read, status,
				(status & VIRTIO_LM_STATUS_SUSPENDED) == want ||
				virtio_lm_gone(func),
				VIRTIO_LM_POLL_US, virtio_lm_deadline_us(), false,
				func, VIRTIO_LM_STATUS);
	if (!ret && ((status & VIRTIO_LM_STATUS_SUSPENDED) != want ||
		     virtio_lm_unanswered(func, status)))
		return -ENODEV;
	if (ret)
		dev_err_ratelimited(func_dev(func),
				    "device did not %s within %llu ms (LM_STATUS 0x%08x)\n",
				    ctrl ? "suspend" : "resume",
				    virtio_lm_deadline_us() / USEC_PER_MSEC, status);
	return ret;
}

/**
 * virtio_lm_suspend - stop the device, with nothing in flight
 * @func: the function
 *
 * A suspend that does not complete in time is taken back: the device runs on.
 *
 * Return: 0, -ENODEV if the device is gone, -ETIMEDOUT if it did not suspend in time
 */
int virtio_lm_suspend(struct virtio_lm_func *func)
{
	ktime_t start = ktime_get();
	int ret;

	ret = virtio_lm_switch(func, VIRTIO_LM_DEV_CTRL_SUSPEND, VIRTIO_LM_STATUS_SUSPENDED);
	if (ret)
		virtio_lm_write(func, VIRTIO_LM_DEV_CTRL, 0);

	trace_virtio_lm_suspend(func_dev(func), ktime_us_delta(ktime_get(), start), ret);
	return ret;
}

/**
 * virtio_lm_resume - let a suspended device go on
 * @func: the function
 *
 * Return: 0, -ENODEV if the device is gone, -ETIMEDOUT if it did not resume in time
 */
int virtio_lm_resume(struct virtio_lm_func *func)
{
	ktime_t start = ktime_get();
	int ret;

	ret = virtio_lm_switch(func, 0, 0);

	trace_virtio_lm_resume(func_dev(func), ktime_us_delta(ktime_get(), start), ret);
	return ret;
}

/**
 * virtio_lm_get_ring - read a virtqueue's state
 * @func: the function
 * @device_idx: the device's index of the virtqueue
 * @ring: set to LM_RING_STATE
 *
 * Return: 0, or -ENODEV if the device is gone
 */
int virtio_lm_get_ring(struct virtio_lm_func *func, u16 device_idx, u32 *ring)
{
	int ret = 0;

	*ring = virtio_lm_read(func, VIRTIO_LM_RING_STATE(device_idx));
	if (virtio_lm_unanswered(func, *ring))
		ret = -ENODEV;

	trace_virtio_lm_get_ring(func_dev(func), device_idx, *ring, ret);
	return ret;
}

/**
 * virtio_lm_set_ring - write a virtqueue's state
 * @func: the function
 * @device_idx: the device's index of the virtqueue; it is disabled, or the device suspended
 * @ring: LM_RING_STATE
 *
 * Read back, because a device that ignores the write would later take old descriptors for
 * new ones.
 *
 * Return: 0, -ENODEV if the device is gone, -EIO if it ignored the write
 */
int virtio_lm_set_ring(struct virtio_lm_func *func, u16 device_idx, u32 ring)
{
	u32 back;
	int ret = 0;

	virtio_lm_write(func, VIRTIO_LM_RING_STATE(device_idx), ring);
	back = virtio_lm_read(func, VIRTIO_LM_RING_STATE(device_idx));
	if (back != ring) {
		ret = virtio_lm_gone(func) ? -ENODEV : -EIO;
		dev_err_ratelimited(func_dev(func),
				    "vq %u: device ignored its ring state (wrote 0x%08x, reads 0x%08x)\n",
				    device_idx, ring, back);
	}

	trace_virtio_lm_set_ring(func_dev(func), device_idx, ring, ret);
	return ret;
}
