/*
 * Live-migration (LM) register block of virtio devices
 *
 * The registers are described in docs/system/devices/vdpa-net.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitops.h"
#include "qemu/error-report.h"
#include "qemu/log.h"
#include "hw/virtio/virtio-lm.h"
#include "migration/vmstate.h"
#include "qapi/visitor.h"
#include "system/dma.h"
#include "trace.h"

/* Dirty log */

static void virtio_lm_log_fault(VirtIOLM *lm, uint64_t page)
{
    trace_virtio_lm_log_fault(lm->vdev, page << VIRTIO_LM_PAGE_SHIFT);
    lm->log_fault = true;
}

/*
 * The bitmap is translated anew for each write: a cached translation would
 * have to follow every IOMMU invalidation, and one that outlives it hits memory
 * that the driver has given to somebody else.
 */
static void virtio_lm_log_pages(VirtIOLM *lm, uint64_t page, uint64_t last)
{
    AddressSpace *as = lm->vdev->dma_as;
    uint64_t log_size = lm->log_end - lm->log_base;
    ram_addr_t offset;

    RCU_READ_LOCK_GUARD();

    while (page <= last) {
        dma_addr_t len, n;
        uint8_t *map;

        if (page / 8 >= log_size) {
            virtio_lm_log_fault(lm, page);
            return;
        }

        len = MIN(last / 8 + 1, log_size) - page / 8;
        map = dma_memory_map(as, lm->log_base + page / 8, &len,
                             DMA_DIRECTION_FROM_DEVICE,
                             MEMTXATTRS_UNSPECIFIED);
        if (!map) {
            virtio_lm_log_fault(lm, page);
            return;
        }

        /* A bounce buffer cannot be set atomically, and is no memory anyway */
        if (!memory_region_from_host(map, &offset)) {
            dma_memory_unmap(as, map, len, DMA_DIRECTION_FROM_DEVICE, 0);
            virtio_lm_log_fault(lm, page);
            return;
        }

        for (n = 0; n < len; n++) {
            uint8_t bits = 0xff << (page % 8);

            if (page / 8 == last / 8) {
                bits &= 0xff >> (7 - last % 8);
            }
            if (unlikely(lm->hostile.on)) {
                bits = virtio_lm_hostile_log(lm, QEMU_ALIGN_DOWN(page, 8),
                                             qatomic_read(&map[n]), bits);
            }
            /* An ordered one: who finds the bit set must find the data too */
            qatomic_or(&map[n], bits);
            page = QEMU_ALIGN_DOWN(page, 8) + 8;
        }
        dma_memory_unmap(as, map, len, DMA_DIRECTION_FROM_DEVICE, len);
    }
}

void virtio_lm_log_range(VirtIOLM *lm, hwaddr iova, hwaddr len)
{
    hwaddr last;

    if (!len) {
        return;
    }

    /*
     * The bitmap itself is not logged: its pages hold nothing but bits, and
     * logging them would never come to an end.
     */
    last = iova + len - 1;
    if (iova < lm->log_base) {
        virtio_lm_log_pages(lm, iova >> VIRTIO_LM_PAGE_SHIFT,
                            MIN(last, lm->log_base - 1) >>
                            VIRTIO_LM_PAGE_SHIFT);
    }
    if (last >= lm->log_end) {
        virtio_lm_log_pages(lm, MAX(iova, lm->log_end) >> VIRTIO_LM_PAGE_SHIFT,
                            last >> VIRTIO_LM_PAGE_SHIFT);
    }
}

static void virtio_lm_log_stop(VirtIOLM *lm)
{
    if (lm->logging) {
        lm->logging = VIRTIO_LM_LOGGING_OFF;
        trace_virtio_lm_log_stop(lm->vdev);
    }
}

/* Base and end take effect here, also if a log is in force already */
static void virtio_lm_log_start(VirtIOLM *lm, uint8_t mode)
{
    if (lm->base >= lm->end) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: LM log of %s ends at 0x%" PRIx64
                      ", not after its base 0x%" PRIx64 "\n", __func__,
                      lm->vdev->name, lm->end, lm->base);
        /* Whoever had a log in force has lost it from here on */
        lm->log_fault |= lm->logging;
        virtio_lm_log_stop(lm);
        return;
    }

    lm->log_base = lm->base;
    lm->log_end = lm->end;
    lm->logging = mode;
    lm->hostile.logged = 0;
    trace_virtio_lm_log_start(lm->vdev, lm->log_base, lm->log_end);
}

/* Suspend and resume */

/* From then on the features stay, and so do kind and size of the ring */
static bool virtio_lm_queue_has_ring(VirtIOLM *lm, int n)
{
    return virtio_queue_enabled(lm->vdev, n) &&
           virtio_queue_get_desc_addr(lm->vdev, n);
}

static bool virtio_lm_queue_runs(VirtIOLM *lm, int n)
{
    return (lm->vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
           virtio_lm_queue_has_ring(lm, n) && !lm->suspended;
}

void virtio_lm_kick(VirtIOLM *lm)
{
    int n, num_queues = virtio_get_num_queues(lm->vdev);

    for (n = 0; n < num_queues; n++) {
        if (virtio_lm_queue_runs(lm, n)) {
            virtio_queue_notify(lm->vdev, n);
        }
    }
}

void virtio_lm_suspend(VirtIOLM *lm)
{
    if (lm->suspended) {
        return;
    }

    VIRTIO_DEVICE_GET_CLASS(lm->vdev)->suspend(lm->vdev);
    lm->suspended = true;
    trace_virtio_lm_suspend(lm->vdev);
}

static void virtio_lm_resume(VirtIOLM *lm)
{
    if (!lm->suspended) {
        return;
    }

    lm->suspended = false;
    trace_virtio_lm_resume(lm->vdev);
    VIRTIO_DEVICE_GET_CLASS(lm->vdev)->resume(lm->vdev);
    if (lm->config_pending) {
        lm->config_pending = false;
        virtio_notify_config(lm->vdev);
    }
    /* Kicks that came meanwhile were dropped */
    virtio_lm_kick(lm);
}

/* Ring state */

static uint32_t virtio_lm_get_ring_state(VirtIOLM *lm, unsigned n)
{
    if (n >= virtio_get_num_queues(lm->vdev)) {
        return 0;
    }
    if (lm->staged[n]) {
        return lm->ring_state[n];
    }
    return virtio_queue_get_ring_state(lm->vdev, n);
}

static void virtio_lm_apply_ring_state(VirtIOLM *lm, unsigned n, uint32_t val)
{
    if (!virtio_queue_set_ring_state(lm->vdev, n, val)) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: LM ring state 0x%x is outside of "
                      "%s's packed vq %u\n", __func__, val, lm->vdev->name, n);
    }
}

static void virtio_lm_set_ring_state(VirtIOLM *lm, unsigned n, uint32_t val)
{
    if (n >= virtio_get_num_queues(lm->vdev)) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: %s has no vq %u\n", __func__,
                      lm->vdev->name, n);
        return;
    }

    /*
     * A queue without a ring must not have indices, or virtio_load() refuses
     * the migration stream: hold them until it has one.
     */
    if (!virtio_lm_queue_has_ring(lm, n)) {
        lm->ring_state[n] = val;
        lm->staged[n] = true;
    } else if (lm->suspended) {
        virtio_lm_apply_ring_state(lm, n, val);
    } else {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: LM ring state of %s's vq %u written"
                      " while it runs\n", __func__, lm->vdev->name, n);
    }
}

void virtio_lm_queue_enabled(VirtIOLM *lm, int n)
{
    trace_virtio_lm_queue_enabled(lm->vdev, n);
    if (lm->staged[n] && virtio_lm_queue_has_ring(lm, n)) {
        lm->staged[n] = false;
        virtio_lm_apply_ring_state(lm, n, lm->ring_state[n]);
    }
    if (virtio_lm_queue_runs(lm, n)) {
        virtio_queue_notify(lm->vdev, n);
    }
}

/* Control mailbox */

void virtio_lm_ctrl_execute(VirtIOLM *lm)
{
    VirtIODevice *vdev = lm->vdev;
    uint32_t tag = lm->ctrl_status & VIRTIO_LM_CTRL_TAG_MASK;
    uint8_t ack = VIRTIO_LM_CTRL_ERR;
    const char *why = NULL;

    if (lm->ctrl_len > VIRTIO_LM_CTRL_WINDOW) {
        why = "is longer than the window";
    } else if (!(vdev->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
        why = "came before FEATURES_OK";
    } else if (vdev->broken) {
        why = "came to a device that needs a reset";
    }

    if (why) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: LM control command of %u bytes for "
                      "%s %s\n", __func__, lm->ctrl_len, vdev->name, why);
    } else if (!virtio_lm_hostile_ctrl_fails(lm)) {
        ack = VIRTIO_DEVICE_GET_CLASS(vdev)->ctrl(vdev, lm->ctrl_data,
                                                  lm->ctrl_len);
    }
    lm->ctrl_status = tag | VIRTIO_LM_CTRL_DONE | ack;
    trace_virtio_lm_ctrl_done(vdev, tag >> VIRTIO_LM_CTRL_TAG_SHIFT, ack);
}

static bool virtio_lm_ctrl_busy(VirtIOLM *lm, hwaddr addr)
{
    if (!(lm->ctrl_status & VIRTIO_LM_CTRL_BUSY)) {
        return false;
    }
    qemu_log_mask(LOG_GUEST_ERROR, "%s: LM write at 0x%" HWADDR_PRIx " of %s "
                  "while a control command is under way\n", __func__, addr,
                  lm->vdev->name);
    return true;
}

static void virtio_lm_ctrl_run(VirtIOLM *lm, uint32_t val)
{
    lm->ctrl_len = val & VIRTIO_LM_CTRL_LEN_MASK;
    lm->ctrl_status = (val & VIRTIO_LM_CTRL_TAG_MASK) | VIRTIO_LM_CTRL_BUSY;
    trace_virtio_lm_ctrl(lm->vdev, val >> VIRTIO_LM_CTRL_TAG_SHIFT,
                         lm->ctrl_data[0], lm->ctrl_data[1], lm->ctrl_len);
    if (!virtio_lm_hostile_ctrl_delayed(lm)) {
        virtio_lm_ctrl_execute(lm);
    }
}

static uint32_t virtio_lm_ctrl_read(VirtIOLM *lm, hwaddr addr)
{
    if (addr >= VIRTIO_LM_CTRL_DATA) {
        return ldl_le_p(lm->ctrl_data + addr - VIRTIO_LM_CTRL_DATA);
    }

    switch (addr) {
    case VIRTIO_LM_CTRL_SIZE:
        return VIRTIO_LM_CTRL_WINDOW;
    case VIRTIO_LM_CTRL_STATUS:
        return lm->ctrl_status;
    default:
        return 0;
    }
}

static void virtio_lm_ctrl_write(VirtIOLM *lm, hwaddr addr, uint32_t val)
{
    if (addr >= VIRTIO_LM_CTRL_DATA) {
        if (!virtio_lm_ctrl_busy(lm, addr)) {
            stl_le_p(lm->ctrl_data + addr - VIRTIO_LM_CTRL_DATA, val);
        }
    } else if (addr == VIRTIO_LM_CTRL_RUN) {
        if (!virtio_lm_ctrl_busy(lm, addr)) {
            virtio_lm_ctrl_run(lm, val);
        }
    } else {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: LM register 0x%" HWADDR_PRIx " of "
                      "%s is read-only\n", __func__, addr, lm->vdev->name);
    }
}

static void virtio_lm_ctrl_reset(VirtIOLM *lm)
{
    lm->ctrl_len = 0;
    lm->ctrl_status = 0;
    memset(lm->ctrl_data, 0, sizeof(lm->ctrl_data));
}

/* Registers */

static bool virtio_lm_access_ok(VirtIOLM *lm, hwaddr addr, unsigned size)
{
    if (size == 4 && !(addr % 4)) {
        return true;
    }
    qemu_log_mask(LOG_GUEST_ERROR, "%s: LM access of %u bytes at 0x%"
                  HWADDR_PRIx " of %s, only aligned 4 are taken\n", __func__,
                  size, addr, lm->vdev->name);
    return false;
}

static uint64_t virtio_lm_read(void *opaque, hwaddr addr, unsigned size)
{
    VirtIOLM *lm = opaque;
    uint32_t val = 0;

    if (!virtio_lm_access_ok(lm, addr, size)) {
        return 0;
    }

    switch (addr) {
    case VIRTIO_LM_LOGGING_CTRL:
        val = lm->logging;
        break;
    case VIRTIO_LM_CAPS:
        val = VIRTIO_LM_CAPS_MAGIC | VIRTIO_LM_CAPS_VERSION |
              VIRTIO_LM_CAP_SUSPEND | VIRTIO_LM_CAP_FAULT |
              VIRTIO_LM_CAP_PACKED | (lm->ctrl ? VIRTIO_LM_CAP_CTRL : 0);
        break;
    case VIRTIO_LM_DEV_CTRL:
        val = lm->suspended ? VIRTIO_LM_DEV_CTRL_SUSPEND : 0;
        break;
    case VIRTIO_LM_STATUS:
        val = (lm->log_fault ? VIRTIO_LM_STATUS_LOG_FAULT : 0) |
              (lm->suspended ? VIRTIO_LM_STATUS_SUSPENDED : 0) |
              (lm->logging ? VIRTIO_LM_STATUS_LOGGING : 0);
        break;
    case VIRTIO_LM_BASE_ADDR_LOW:
        val = lm->base;
        break;
    case VIRTIO_LM_BASE_ADDR_HIGH:
        val = lm->base >> 32;
        break;
    case VIRTIO_LM_END_ADDR_LOW:
        val = lm->end;
        break;
    case VIRTIO_LM_END_ADDR_HIGH:
        val = lm->end >> 32;
        break;
    default:
        val = addr >= VIRTIO_LM_SIZE ? virtio_lm_ctrl_read(lm, addr) :
              virtio_lm_get_ring_state(lm,
                                       (addr - VIRTIO_LM_RING_STATE(0)) / 4);
        break;
    }

    trace_virtio_lm_read(lm->vdev, addr, val);
    return val;
}

static void virtio_lm_write(void *opaque, hwaddr addr, uint64_t val,
                            unsigned size)
{
    VirtIOLM *lm = opaque;

    if (!virtio_lm_access_ok(lm, addr, size)) {
        return;
    }

    trace_virtio_lm_write(lm->vdev, addr, val);

    switch (addr) {
    case VIRTIO_LM_LOGGING_CTRL:
        switch (val) {
        case VIRTIO_LM_LOGGING_OFF:
            virtio_lm_log_stop(lm);
            break;
        case VIRTIO_LM_LOGGING_ON:
        case VIRTIO_LM_LOGGING_ON_PF:
            virtio_lm_log_start(lm, val);
            break;
        default:
            qemu_log_mask(LOG_GUEST_ERROR, "%s: %s's LM_LOGGING_CTRL takes 0, "
                          "1 or 3, not 0x%" PRIx64 "\n", __func__,
                          lm->vdev->name, val);
            break;
        }
        break;
    case VIRTIO_LM_DEV_CTRL:
        if (virtio_lm_hostile_dev_ctrl(lm, val & VIRTIO_LM_DEV_CTRL_SUSPEND)) {
            break;
        }
        if (val & VIRTIO_LM_DEV_CTRL_SUSPEND) {
            virtio_lm_suspend(lm);
        } else {
            virtio_lm_resume(lm);
        }
        break;
    case VIRTIO_LM_STATUS:
        if (val & VIRTIO_LM_STATUS_LOG_FAULT) {
            lm->log_fault = false;
        }
        break;
    case VIRTIO_LM_BASE_ADDR_LOW:
        lm->base = deposit64(lm->base, 0, 32, val);
        break;
    case VIRTIO_LM_BASE_ADDR_HIGH:
        lm->base = deposit64(lm->base, 32, 32, val);
        break;
    case VIRTIO_LM_END_ADDR_LOW:
        lm->end = deposit64(lm->end, 0, 32, val);
        break;
    case VIRTIO_LM_END_ADDR_HIGH:
        lm->end = deposit64(lm->end, 32, 32, val);
        break;
    case VIRTIO_LM_CAPS:
        qemu_log_mask(LOG_GUEST_ERROR, "%s: %s's LM_CAPS is read-only\n",
                      __func__, lm->vdev->name);
        break;
    default:
        if (addr >= VIRTIO_LM_SIZE) {
            virtio_lm_ctrl_write(lm, addr, val);
        } else {
            virtio_lm_set_ring_state(lm, (addr - VIRTIO_LM_RING_STATE(0)) / 4,
                                     val);
        }
        break;
    }
}

/* All sizes come here unsplit, so that what is not allowed is seen as it is */
static const MemoryRegionOps virtio_lm_ops = {
    .read = virtio_lm_read,
    .write = virtio_lm_write,
    .valid = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
    .impl = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
    .endianness = DEVICE_LITTLE_ENDIAN,
};

/* @opaque: a byte that is not 0 if it is true */
static void virtio_lm_get_bool(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    bool value = *(uint8_t *)opaque;

    visit_type_bool(v, name, &value, errp);
}

void virtio_lm_init(VirtIOLM *lm, Object *owner, VirtIODevice *vdev)
{
    lm->vdev = vdev;
    vdev->lm = lm;
    memory_region_init_io(&lm->mr, owner, &virtio_lm_ops, lm, "virtio-lm",
                          lm->ctrl ? VIRTIO_LM_MAX_SIZE : VIRTIO_LM_SIZE);

    object_property_add(owner, "lm-suspended", "bool", virtio_lm_get_bool,
                        NULL, NULL, &lm->suspended);
    object_property_add(owner, "lm-logging", "bool", virtio_lm_get_bool,
                        NULL, NULL, &lm->logging);
    object_property_add(owner, "lm-log-fault", "bool", virtio_lm_get_bool,
                        NULL, NULL, &lm->log_fault);
    object_property_add_uint64_ptr(owner, "lm-log-base", &lm->log_base,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(owner, "lm-log-end", &lm->log_end,
                                   OBJ_PROP_FLAG_READ);
}

void virtio_lm_reset(VirtIOLM *lm)
{
    virtio_lm_hostile_reset(lm);
    virtio_lm_resume(lm);
    virtio_lm_log_stop(lm);
    lm->base = 0;
    lm->end = 0;
    lm->log_fault = false;
    memset(lm->staged, 0, sizeof(lm->staged));
    virtio_lm_ctrl_reset(lm);
}

/* Migration of the machine that the device is part of */

static int virtio_lm_pre_save(void *opaque)
{
    VirtIOLM *lm = opaque;
    int n;

    for (n = 0; n < virtio_get_num_queues(lm->vdev); n++) {
        lm->ring_state[n] = virtio_lm_get_ring_state(lm, n);
    }
    return 0;
}

static int virtio_lm_pre_load(void *opaque)
{
    VirtIOLM *lm = opaque;

    lm->ctrl_loaded = false;
    return 0;
}

static int virtio_lm_post_load(void *opaque, int version_id)
{
    VirtIOLM *lm = opaque;

    /* LM_CAPS never changes under a driver */
    if (lm->ctrl && !lm->ctrl_loaded) {
        error_report("%s: the migration source has no control mailbox: start "
                     "the destination with lm-ctrl=off", lm->vdev->name);
        return -EINVAL;
    }
    if (lm->logging && lm->log_base >= lm->log_end) {
        error_report("LM log ends at 0x%" PRIx64 ", not after its base 0x%"
                     PRIx64, lm->log_end, lm->log_base);
        return -EINVAL;
    }
    return 0;
}

static bool virtio_lm_ctrl_needed(void *opaque)
{
    VirtIOLM *lm = opaque;

    return lm->ctrl;
}

static int virtio_lm_ctrl_pre_load(void *opaque)
{
    VirtIOLM *lm = opaque;

    if (!lm->ctrl) {
        error_report("%s: the migration source has a control mailbox, this "
                     "device not", lm->vdev->name);
        return -EINVAL;
    }
    lm->ctrl_loaded = true;
    return 0;
}

static int virtio_lm_ctrl_post_load(void *opaque, int version_id)
{
    VirtIOLM *lm = opaque;

    if (lm->ctrl_status & VIRTIO_LM_CTRL_BUSY) {
        virtio_lm_hostile_ctrl_loaded(lm);
    }
    return 0;
}

static const VMStateDescription vmstate_virtio_lm_ctrl = {
    .name = "virtio-lm/ctrl",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = virtio_lm_ctrl_needed,
    .pre_load = virtio_lm_ctrl_pre_load,
    .post_load = virtio_lm_ctrl_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(ctrl_len, VirtIOLM),
        VMSTATE_UINT32(ctrl_status, VirtIOLM),
        VMSTATE_UINT8_ARRAY(ctrl_data, VirtIOLM, VIRTIO_LM_CTRL_WINDOW),
        VMSTATE_END_OF_LIST()
    },
};

const VMStateDescription vmstate_virtio_lm = {
    .name = "virtio-lm",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = virtio_lm_pre_save,
    .pre_load = virtio_lm_pre_load,
    .post_load = virtio_lm_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(base, VirtIOLM),
        VMSTATE_UINT64(end, VirtIOLM),
        VMSTATE_UINT64(log_base, VirtIOLM),
        VMSTATE_UINT64(log_end, VirtIOLM),
        VMSTATE_UINT8(logging, VirtIOLM),
        VMSTATE_BOOL(log_fault, VirtIOLM),
        VMSTATE_BOOL(suspended, VirtIOLM),
        VMSTATE_BOOL(config_pending, VirtIOLM),
        VMSTATE_BOOL_ARRAY(staged, VirtIOLM, VIRTIO_LM_MAX_VQS),
        VMSTATE_UINT32_ARRAY(ring_state, VirtIOLM, VIRTIO_LM_MAX_VQS),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_virtio_lm_ctrl,
        NULL
    },
};
