/*
 * Live-migration (LM) register block of virtio devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_LM_H
#define HW_VIRTIO_LM_H

#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio-lm-hostile.h"
#include "hw/virtio/virtio-lm-regs.h"

/* Bytes of LM_CTRL_DATA: a table of 681 MAC addresses fits */
#define VIRTIO_LM_CTRL_WINDOW 4096

/* Length of the longest block, which is the one with a mailbox */
#define VIRTIO_LM_MAX_SIZE (VIRTIO_LM_CTRL_DATA + VIRTIO_LM_CTRL_WINDOW)

/**
 * struct VirtIOLM - the LM block of one virtio device
 * @mr: the registers
 * @vdev: the device they belong to
 * @base: LM_BASE_ADDR as last written
 * @end: LM_END_ADDR as last written
 * @log_base: DMA address of the first byte of the bitmap in force
 * @log_end: DMA address one past its last byte
 * @logging: what was written to turn logging on, 0 while it is off
 * @log_fault: a page was dirtied and could not be logged
 * @suspended: the device touches no guest memory
 * @config_pending: a configuration change notification waits for the resume
 * @loaded: the migration stream has this block
 * @staged: @ring_state waits for its queue to be enabled
 * @ring_state: state of each virtqueue: staged, or on its way through a
 *              migration stream
 * @ctrl: there is a control mailbox
 * @ctrl_loaded: the state that is being loaded has one
 * @ctrl_len: length of its last command
 * @ctrl_status: LM_CTRL_STATUS
 * @ctrl_data: LM_CTRL_DATA
 * @hostile: how the device misbehaves, if it was told to
 *
 * All of it is under the BQL, like the data path of virtio-net. That is what
 * makes a switch from one bitmap to another atomic.
 */
struct VirtIOLM {
    MemoryRegion mr;
    VirtIODevice *vdev;
    uint64_t base;
    uint64_t end;
    uint64_t log_base;
    uint64_t log_end;
    uint8_t logging;
    bool log_fault;
    bool suspended;
    bool config_pending;
    bool loaded;
    bool staged[VIRTIO_LM_MAX_VQS];
    uint32_t ring_state[VIRTIO_LM_MAX_VQS];
    bool ctrl;
    bool ctrl_loaded;
    uint16_t ctrl_len;
    uint32_t ctrl_status;
    uint8_t ctrl_data[VIRTIO_LM_CTRL_WINDOW];
    VirtIOLMHostile hostile;
};

/*
 * Give @vdev the LM block @lm that @owner embeds, before @vdev is realized, and
 * @owner the lm-* properties that tell of it. Whether it has a mailbox is in
 * @lm->ctrl already.
 */
void virtio_lm_init(VirtIOLM *lm, Object *owner, VirtIODevice *vdev);

/* Clear the block, for a virtio reset or an FLR */
void virtio_lm_reset(VirtIOLM *lm);

/* Stop the device with nothing in flight */
void virtio_lm_suspend(VirtIOLM *lm);

/* Run the command that LM_CTRL_RUN was told to run, and ack it */
void virtio_lm_ctrl_execute(VirtIOLM *lm);

/* Queue @n was enabled: apply its staged state, and kick it if it may run */
void virtio_lm_queue_enabled(VirtIOLM *lm, int n);

/* Process all that the driver and the backend have for the enabled queues */
void virtio_lm_kick(VirtIOLM *lm);

/* Set the bits of the pages that a write of @len bytes at @iova dirtied */
void virtio_lm_log_range(VirtIOLM *lm, hwaddr iova, hwaddr len);

/**
 * virtio_lm_log() - log a write to guest memory
 * @vdev: the device that wrote
 * @iova: where, in its DMA address space
 * @len: bytes written
 *
 * To be called after the write. Were the bit set before it, a VMM that reads
 * and clears the bitmap in between would copy the old content of the page, and
 * lose the new one.
 */
static inline void virtio_lm_log(VirtIODevice *vdev, hwaddr iova, hwaddr len)
{
    if (unlikely(vdev->lm) && vdev->lm->logging) {
        virtio_lm_log_range(vdev->lm, iova, len);
    }
}

static inline bool virtio_lm_suspended(const VirtIODevice *vdev)
{
    return unlikely(vdev->lm) && vdev->lm->suspended;
}

/* The address that the device accesses for a buffer at @addr */
static inline hwaddr virtio_lm_dma_addr(VirtIODevice *vdev, hwaddr addr)
{
    return unlikely(vdev->lm) && vdev->lm->hostile.on ?
           virtio_lm_hostile_dma(vdev->lm, addr) : addr;
}

/* Is an interrupt that is due not to be raised? */
static inline bool virtio_lm_drops_irq(VirtIODevice *vdev)
{
    return unlikely(vdev->lm) && vdev->lm->hostile.on &&
           virtio_lm_hostile_irq(vdev->lm);
}

extern const VMStateDescription vmstate_virtio_lm;

#endif
