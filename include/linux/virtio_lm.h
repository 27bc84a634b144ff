/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Live-migration (LM) register block of a virtio-net PCI function with vdpa=on.
 *
 * The one definition that the driver, the device in QEMU and the tests share;
 * Documentation/virtio-lm-device.rst describes what the registers do.
 *
 * The block follows the notify structure directly: it is in the same BAR, at
 * the notify capability's offset + length. It takes aligned 32-bit accesses,
 * little endian, and no others.
 */
#ifndef _LINUX_VIRTIO_LM_H
#define _LINUX_VIRTIO_LM_H

/* PCI subsystem device ID of a function that has the block */
#define VIRTIO_LM_SUBSYS_DEVICE_ID	0x4c4d

/* RW: 0 off, 1 or 3 on; reads back what is in force */
#define VIRTIO_LM_LOGGING_CTRL		0x00
#define VIRTIO_LM_LOGGING_OFF		0x0
#define VIRTIO_LM_LOGGING_ON		0x1
#define VIRTIO_LM_LOGGING_ON_PF		0x3	/* what DPDK's PF mode writes */

/* RO: magic, version, capability bits */
#define VIRTIO_LM_CAPS			0x04
#define VIRTIO_LM_CAPS_MAGIC		0x4d4c0000
#define VIRTIO_LM_CAPS_MAGIC_MASK	0xffff0000
#define VIRTIO_LM_CAPS_VERSION		0x00000100
#define VIRTIO_LM_CAPS_VERSION_MASK	0x0000ff00
#define VIRTIO_LM_CAP_SUSPEND		0x00000001
#define VIRTIO_LM_CAP_FAULT		0x00000002
#define VIRTIO_LM_CAP_PACKED		0x00000004
#define VIRTIO_LM_CAP_CTRL		0x00000008

/* RW: device control */
#define VIRTIO_LM_DEV_CTRL		0x08
#define VIRTIO_LM_DEV_CTRL_SUSPEND	0x00000001

/* RW1C where not marked RO */
#define VIRTIO_LM_STATUS		0x0c
#define VIRTIO_LM_STATUS_LOG_FAULT	0x00000001
#define VIRTIO_LM_STATUS_SUSPENDED	0x00000100	/* RO */
#define VIRTIO_LM_STATUS_LOGGING	0x00000200	/* RO */

/* RW: DMA addresses of the bitmap's first byte, and of one past its last */
#define VIRTIO_LM_BASE_ADDR_LOW		0x10
#define VIRTIO_LM_BASE_ADDR_HIGH	0x14
#define VIRTIO_LM_END_ADDR_LOW		0x18
#define VIRTIO_LM_END_ADDR_HIGH		0x1c

/*
 * RW: state of virtqueue n. Split: last_avail_idx in the low half, used_idx in
 * the high half. Packed: the same two, each with its wrap counter on top.
 */
#define VIRTIO_LM_RING_STATE(n)		(0x20 + 4 * (n))
#define VIRTIO_LM_RING_STATE_AVAIL_MASK	0x0000ffff
#define VIRTIO_LM_RING_STATE_USED_SHIFT	16
#define VIRTIO_LM_RING_STATE_WRAP	0x8000		/* in either half */

#define VIRTIO_LM_MAX_VQS		1024
/* What every block has; one with CTRL goes on with the control mailbox */
#define VIRTIO_LM_SIZE			VIRTIO_LM_RING_STATE(VIRTIO_LM_MAX_VQS)

/* RO: length of the window at VIRTIO_LM_CTRL_DATA in bytes, at least 1024 */
#define VIRTIO_LM_CTRL_SIZE		0x1020

/* WO: run the command in the window, of this length, under a tag of the driver's choice */
#define VIRTIO_LM_CTRL_RUN		0x1024
#define VIRTIO_LM_CTRL_LEN_MASK		0x0000ffff
#define VIRTIO_LM_CTRL_TAG_MASK		0xffff0000	/* in STATUS as well */
#define VIRTIO_LM_CTRL_TAG_SHIFT	16

/* RO: how far the command of that tag is; 0 before the first one */
#define VIRTIO_LM_CTRL_STATUS		0x1028
#define VIRTIO_LM_CTRL_ACK_MASK		0x000000ff	/* with DONE: as of a control virtqueue */
#define VIRTIO_LM_CTRL_OK		0x00
#define VIRTIO_LM_CTRL_ERR		0x01
#define VIRTIO_LM_CTRL_DONE		0x00000100
#define VIRTIO_LM_CTRL_BUSY		0x00000200

/* RW: the command: class, command, then its data, as in a control virtqueue */
#define VIRTIO_LM_CTRL_DATA		0x1040

/* One bit of the bitmap stands for this much of the device's DMA address space */
#define VIRTIO_LM_PAGE_SHIFT		12

#endif /* _LINUX_VIRTIO_LM_H */
