/*
 * Misbehaviour of a virtio device with live-migration registers, on request
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_LM_HOSTILE_H
#define HW_VIRTIO_LM_HOSTILE_H

#include "qemu/timer.h"
#include "hw/pci/pci.h"
#include "hw/virtio/virtio-pci.h"

typedef struct VirtIOLMHostile VirtIOLMHostile;

/**
 * struct VirtIOLMHostile - how an LM device misbehaves
 * @on: a property below is set; all hooks on the data path hang on it
 * @num_queues: the value of each property, as docs/system/devices/vdpa-net.rst
 *              describes it. 0 is off; for the first three -1 is
 * @proxy: the PCI function, once it is plugged
 * @overlay: covers the BAR while a property is set that changes registers
 * @covered: is in @overlay and not below it, because the function is gone
 * @config_read: configuration space, while the function is gone
 * @config_write: the same
 * @suspend_timer: runs while a suspend is delayed
 * @ctrl_timer: runs while a control command is delayed
 * @irq_timer: runs while there are spurious interrupts
 * @random_state: of the random numbers, never 0
 * @drift: what is added to ring state
 * @generation: of a configuration that never settles
 * @dma_count: segments mapped
 * @irq_count: interrupts raised
 * @logged: bits set since the log was started
 * @ctrl_count: control commands
 *
 * None of it is part of the migration stream: what a test wants of the
 * destination, it sets there.
 */
struct VirtIOLMHostile {
    bool on;
    int64_t num_queues;
    int64_t notify_off;
    int64_t caps;
    int64_t config_unsettled;
    int64_t gone;
    int64_t random;
    int64_t seed;
    int64_t ring_drift;
    int64_t reset_fail;
    int64_t suspend_delay_ms;
    int64_t resume_fail;
    int64_t dma_fault_every;
    int64_t irq_drop_every;
    int64_t irq_spurious_ms;
    int64_t drop_log_every;
    int64_t log_fault_after;
    int64_t ctrl_delay_ms;
    int64_t ctrl_error_every;
    VirtIOPCIProxy *proxy;
    MemoryRegion overlay;
    bool covered;
    PCIConfigReadFunc *config_read;
    PCIConfigWriteFunc *config_write;
    QEMUTimer suspend_timer;
    QEMUTimer ctrl_timer;
    QEMUTimer irq_timer;
    uint64_t random_state;
    uint32_t drift;
    uint8_t generation;
    uint64_t dma_count;
    uint64_t irq_count;
    uint64_t logged;
    uint64_t ctrl_count;
};

/* The x-lm-* properties of devices that have a VirtIOLM at @lm_offset */
void virtio_lm_hostile_class_init(ObjectClass *klass, size_t lm_offset);

/* Nothing is set */
void virtio_lm_hostile_init(VirtIOLM *lm);

/* Refuse what is set where it would do nothing */
bool virtio_lm_hostile_check(VirtIOLM *lm, VirtIOPCIProxy *proxy, Error **errp);

/* The function of @lm, with all its structures mapped, comes and goes */
void virtio_lm_hostile_plug(VirtIOLM *lm, VirtIOPCIProxy *proxy);
void virtio_lm_hostile_unplug(VirtIOLM *lm);

/* The block is reset: what is delayed, suspend or command, will not happen */
void virtio_lm_hostile_reset(VirtIOLM *lm);

/* Is a write of @suspend to SUSPEND to be ignored, for now or for good? */
bool virtio_lm_hostile_dev_ctrl(VirtIOLM *lm, bool suspend);

/* Is a control command to wait, for now or for good? */
bool virtio_lm_hostile_ctrl_delayed(VirtIOLM *lm);

/* Is a control command to be acked as an error, and not to be executed? */
bool virtio_lm_hostile_ctrl_fails(VirtIOLM *lm);

/* A command that waited on the migration source waits here no longer */
void virtio_lm_hostile_ctrl_loaded(VirtIOLM *lm);

/*
 * Of @bits, which are to be set in a byte that is @old and whose first bit is
 * @page's, those that are
 */
uint8_t virtio_lm_hostile_log(VirtIOLM *lm, uint64_t page, uint8_t old,
                              uint8_t bits);

/* Is this interrupt not to be raised? */
bool virtio_lm_hostile_irq(VirtIOLM *lm);

/* Where the device goes when it is to go to @addr */
hwaddr virtio_lm_hostile_dma(VirtIOLM *lm, hwaddr addr);

#endif
