/*
 * Misbehaviour of a virtio device with live-migration registers, on request
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Who writes a driver or a VMM for the device has paths for a device that
 * fails, and no device that does. The x-lm-* properties, which are described
 * in docs/system/devices/vdpa-net.rst, make this one fail: on the command line,
 * or with qom-set while it runs.
 *
 * What is read from and written to the BAR is changed in a memory region that
 * covers it while such a property is set, so the register code does not know
 * of any of this.
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-lm.h"
#include "standard-headers/linux/virtio_pci.h"
#include "trace.h"

#define VIRTIO_LM_RANDOM_SCALE 1000

/* Beyond what any driver maps, and an IOMMU of 48 bits still reports it */
#define VIRTIO_LM_DMA_FAULT_BIT (1ULL << 46)

typedef struct VirtIOLMKnob {
    const char *name;
    bool is_bool;
    size_t field;
    int64_t off;
    int64_t min;
    int64_t max;
    const char *description;
} VirtIOLMKnob;

#define KNOB(_name, _field, _off, _min, _max, _description)               \
    { "x-lm-" _name, false, offsetof(VirtIOLMHostile, _field), _off, _min, \
      _max, _description }
#define SWITCH(_name, _field, _description)                               \
    { "x-lm-" _name, true, offsetof(VirtIOLMHostile, _field), 0, 0, 1,    \
      _description }

static const VirtIOLMKnob knobs[] = {
    KNOB("num-queues", num_queues, -1, -1, UINT16_MAX,
         "num_queues of the common configuration, -1: the true one"),
    KNOB("notify-off", notify_off, -1, -1, UINT16_MAX,
         "queue_notify_off of each queue, -1: the true one"),
    KNOB("caps", caps, -1, -1, UINT32_MAX, "LM_CAPS, -1: the true one"),
    SWITCH("config-unsettled", config_unsettled,
           "config_generation is another one each time it is read"),
    SWITCH("gone", gone, "All reads are ones, no write arrives, as if removed"),
    KNOB("random", random, 0, 0, VIRTIO_LM_RANDOM_SCALE,
         "Of 1000 reads of registers, how many return something else"),
    KNOB("seed", seed, 0, 0, UINT32_MAX, "Where x-lm-random begins"),
    KNOB("ring-drift", ring_drift, 0, 0, UINT32_MAX,
         "What each read of an LM_RING_STATE adds to the next ones"),
    SWITCH("reset-fail", reset_fail, "A write of 0 to device_status is lost"),
    KNOB("suspend-delay-ms", suspend_delay_ms, 0, -1, INT32_MAX,
         "How long it takes to suspend, -1: for ever"),
    SWITCH("resume-fail", resume_fail, "The device does not resume"),
    KNOB("dma-fault-every", dma_fault_every, 0, 0, UINT32_MAX,
         "Of how many buffer segments one is accessed at a wrong address"),
    KNOB("irq-drop-every", irq_drop_every, 0, 0, UINT32_MAX,
         "Of how many interrupts one is not raised"),
    KNOB("irq-spurious-ms", irq_spurious_ms, 0, 0, INT32_MAX,
         "Raise all interrupts, without a reason, this often"),
    KNOB("drop-log-every", drop_log_every, 0, 0, UINT32_MAX,
         "Of how many pages one has no bit in the dirty log"),
    KNOB("log-fault-after", log_fault_after, 0, 0, UINT32_MAX,
         "How many bits a log takes before LOG_FAULT is all it has"),
    KNOB("ctrl-delay-ms", ctrl_delay_ms, 0, -1, INT32_MAX,
         "How long a control command takes, -1: for ever"),
    KNOB("ctrl-error-every", ctrl_error_every, 0, 0, UINT32_MAX,
         "Of how many control commands one fails"),
};

static int64_t *virtio_lm_knob(VirtIOLMHostile *h, const VirtIOLMKnob *knob)
{
    return (int64_t *)((char *)h + knob->field);
}

/* The first one that is set, or NULL */
static const VirtIOLMKnob *virtio_lm_knob_set(VirtIOLMHostile *h)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(knobs); i++) {
        if (*virtio_lm_knob(h, &knobs[i]) != knobs[i].off) {
            return &knobs[i];
        }
    }
    return NULL;
}

static bool virtio_lm_nth(uint64_t *count, int64_t n)
{
    return n && ++*count % n == 0;
}

static VirtIOLM *virtio_lm_of(VirtIOLMHostile *h)
{
    return container_of(h, VirtIOLM, hostile);
}

/* Registers */

/* Xorshift: a test that names a seed has the same values on every machine */
static uint64_t virtio_lm_random(VirtIOLMHostile *h)
{
    h->random_state ^= h->random_state << 13;
    h->random_state ^= h->random_state >> 7;
    h->random_state ^= h->random_state << 17;
    return h->random_state >> 8;
}

/* Half of it is near the truth, or no check but the first would ever be met */
static uint64_t virtio_lm_random_value(VirtIOLMHostile *h, uint64_t val,
                                       unsigned size)
{
    switch (virtio_lm_random(h) % 6) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return virtio_lm_random(h);
    case 3:
        return val + 1;
    default:
        return val ^ BIT_ULL(virtio_lm_random(h) % (size * 8));
    }
}

static uint64_t virtio_lm_hostile_common(VirtIOLMHostile *h, hwaddr addr,
                                         uint64_t val)
{
    switch (addr) {
    case VIRTIO_PCI_COMMON_NUMQ:
        return h->num_queues < 0 ? val : h->num_queues;
    case VIRTIO_PCI_COMMON_Q_NOFF:
        return h->notify_off < 0 ? val : h->notify_off;
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return h->config_unsettled ? h->generation++ : val;
    default:
        return val;
    }
}

static uint64_t virtio_lm_hostile_block(VirtIOLMHostile *h, hwaddr addr,
                                        uint64_t val)
{
    if (addr == VIRTIO_LM_CAPS && h->caps >= 0) {
        return h->caps;
    }
    if (addr >= VIRTIO_LM_RING_STATE(0) && addr < VIRTIO_LM_SIZE &&
        h->ring_drift) {
        h->drift += h->ring_drift;
        return (uint32_t)(val + h->drift);
    }
    return val;
}

/* What is at @addr of the BAR, which becomes an offset into it */
static MemoryRegion *virtio_lm_hostile_find(VirtIOLMHostile *h, hwaddr *addr,
                                            unsigned size)
{
    VirtIOPCIProxy *proxy = h->proxy;
    MemoryRegion *lm_mr = &virtio_lm_of(h)->mr;
    VirtIOPCIRegion *regions[] = { &proxy->common, &proxy->isr, &proxy->device,
                                   &proxy->notify };
    hwaddr lm_offset = proxy->notify.offset + proxy->notify.size;
    int i;

    for (i = 0; i < ARRAY_SIZE(regions); i++) {
        if (*addr >= regions[i]->offset &&
            *addr + size <= regions[i]->offset + regions[i]->size) {
            *addr -= regions[i]->offset;
            return &regions[i]->mr;
        }
    }
    if (*addr >= lm_offset &&
        *addr + size <= lm_offset + memory_region_size(lm_mr)) {
        *addr -= lm_offset;
        return lm_mr;
    }
    return NULL;
}

static MemTxResult virtio_lm_hostile_read(void *opaque, hwaddr addr,
                                          uint64_t *data, unsigned size,
                                          MemTxAttrs attrs)
{
    VirtIOLMHostile *h = opaque;
    VirtIOLM *lm = virtio_lm_of(h);
    hwaddr bar_addr = addr;
    MemoryRegion *mr = virtio_lm_hostile_find(h, &addr, size);
    MemTxResult ret;
    uint64_t val = 0;

    if (h->covered) {
        *data = MAKE_64BIT_MASK(0, size * 8);
        return MEMTX_OK;
    }
    if (!mr) {
        *data = 0;
        return MEMTX_OK;
    }

    ret = memory_region_dispatch_read(mr, addr, &val,
                                      size_memop(size) | MO_LE, attrs);
    *data = val;
    if (mr == &h->proxy->common.mr) {
        *data = virtio_lm_hostile_common(h, addr, val);
    } else if (mr == &lm->mr) {
        *data = virtio_lm_hostile_block(h, addr, val);
    }
    if (h->random > virtio_lm_random(h) % VIRTIO_LM_RANDOM_SCALE) {
        *data = virtio_lm_random_value(h, *data, size);
    }
    *data &= MAKE_64BIT_MASK(0, size * 8);
    if (*data != val) {
        trace_virtio_lm_hostile_read(lm->vdev, bar_addr, val, *data);
    }
    return ret;
}

static MemTxResult virtio_lm_hostile_write(void *opaque, hwaddr addr,
                                           uint64_t data, unsigned size,
                                           MemTxAttrs attrs)
{
    VirtIOLMHostile *h = opaque;
    MemoryRegion *mr = virtio_lm_hostile_find(h, &addr, size);

    if (h->covered || !mr) {
        return MEMTX_OK;
    }
    if (h->reset_fail && mr == &h->proxy->common.mr &&
        addr == VIRTIO_PCI_COMMON_STATUS && !data) {
        trace_virtio_lm_hostile(virtio_lm_of(h)->vdev, "reset lost");
        return MEMTX_OK;
    }
    return memory_region_dispatch_write(mr, addr, data,
                                        size_memop(size) | MO_LE, attrs);
}

static const MemoryRegionOps virtio_lm_hostile_ops = {
    .read_with_attrs = virtio_lm_hostile_read,
    .write_with_attrs = virtio_lm_hostile_write,
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

/* A function that is gone */

static uint32_t virtio_lm_gone_config_read(PCIDevice *dev, uint32_t addr,
                                           int len)
{
    return MAKE_64BIT_MASK(0, len * 8);
}

static void virtio_lm_gone_config_write(PCIDevice *dev, uint32_t addr,
                                        uint32_t val, int len)
{
}

/*
 * It takes and gives nothing until it is back; a suspend is what keeps it from
 * memory. Then it is reset: nobody owns its rings any more.
 */
static void virtio_lm_hostile_cover(VirtIOLMHostile *h, bool gone)
{
    PCIDevice *dev = &h->proxy->pci_dev;

    if (gone == h->covered) {
        return;
    }

    h->covered = gone;
    if (gone) {
        h->config_read = dev->config_read;
        h->config_write = dev->config_write;
        dev->config_read = virtio_lm_gone_config_read;
        dev->config_write = virtio_lm_gone_config_write;
        virtio_lm_suspend(virtio_lm_of(h));
    } else {
        dev->config_read = h->config_read;
        dev->config_write = h->config_write;
        memory_region_dispatch_write(&h->proxy->common.mr,
                                     VIRTIO_PCI_COMMON_STATUS, 0, MO_8,
                                     MEMTXATTRS_UNSPECIFIED);
    }
}

/* Suspend and resume */

static void virtio_lm_hostile_suspend(void *opaque)
{
    virtio_lm_suspend(opaque);
}

bool virtio_lm_hostile_dev_ctrl(VirtIOLM *lm, bool suspend)
{
    VirtIOLMHostile *h = &lm->hostile;

    /* Whichever it is, it takes the place of the one before */
    timer_del(&h->suspend_timer);

    if (suspend && !lm->suspended && h->suspend_delay_ms) {
        trace_virtio_lm_hostile(lm->vdev, "suspend delayed");
        if (h->suspend_delay_ms > 0) {
            timer_mod(&h->suspend_timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                                         h->suspend_delay_ms);
        }
        return true;
    }
    if (!suspend && lm->suspended && h->resume_fail) {
        trace_virtio_lm_hostile(lm->vdev, "resume ignored");
        return true;
    }
    return false;
}

void virtio_lm_hostile_reset(VirtIOLM *lm)
{
    timer_del(&lm->hostile.suspend_timer);
    timer_del(&lm->hostile.ctrl_timer);
}

/* Control mailbox */

static void virtio_lm_hostile_ctrl(void *opaque)
{
    virtio_lm_ctrl_execute(opaque);
}

bool virtio_lm_hostile_ctrl_delayed(VirtIOLM *lm)
{
    VirtIOLMHostile *h = &lm->hostile;

    if (!h->ctrl_delay_ms) {
        return false;
    }
    trace_virtio_lm_hostile(lm->vdev, "control command delayed");
    if (h->ctrl_delay_ms > 0) {
        timer_mod(&h->ctrl_timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                                  h->ctrl_delay_ms);
    }
    return true;
}

bool virtio_lm_hostile_ctrl_fails(VirtIOLM *lm)
{
    VirtIOLMHostile *h = &lm->hostile;

    if (!virtio_lm_nth(&h->ctrl_count, h->ctrl_error_every)) {
        return false;
    }
    trace_virtio_lm_hostile(lm->vdev, "control command not executed");
    return true;
}

/* Once the machine runs: the features are loaded after the block */
void virtio_lm_hostile_ctrl_loaded(VirtIOLM *lm)
{
    timer_mod(&lm->hostile.ctrl_timer, 0);
}

/* Dirty log */

uint8_t virtio_lm_hostile_log(VirtIOLM *lm, uint64_t page, uint8_t old,
                              uint8_t bits)
{
    VirtIOLMHostile *h = &lm->hostile;
    uint8_t left = bits;
    int i;

    /* A bit that is set already would be no loss */
    for (i = 0; i < 8; i++) {
        if (!(bits & ~old & BIT(i))) {
            continue;
        }
        if (h->drop_log_every && (page + i) % h->drop_log_every == 0) {
            left &= ~BIT(i);
        } else if (h->log_fault_after && h->logged++ >= h->log_fault_after) {
            left &= ~BIT(i);
            lm->log_fault = true;
        }
    }
    if (left != bits) {
        trace_virtio_lm_hostile_log(lm->vdev, bits, left);
    }
    return left;
}

/* Interrupts */

bool virtio_lm_hostile_irq(VirtIOLM *lm)
{
    VirtIOLMHostile *h = &lm->hostile;

    if (!virtio_lm_nth(&h->irq_count, h->irq_drop_every)) {
        return false;
    }
    trace_virtio_lm_hostile(lm->vdev, "interrupt dropped");
    return true;
}

static void virtio_lm_hostile_spurious(void *opaque)
{
    VirtIOLMHostile *h = opaque;
    VirtIODevice *vdev = virtio_lm_of(h)->vdev;
    BusState *bus = qdev_get_parent_bus(DEVICE(vdev));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(bus);
    int n, num_queues = virtio_get_num_queues(vdev);

    trace_virtio_lm_hostile(vdev, "spurious interrupts");
    if (!h->covered) {
        for (n = 0; n < num_queues; n++) {
            k->notify(bus->parent, virtio_queue_vector(vdev, n));
        }
        k->notify(bus->parent, vdev->config_vector);
    }
    timer_mod(&h->irq_timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                             h->irq_spurious_ms);
}

/* DMA */

hwaddr virtio_lm_hostile_dma(VirtIOLM *lm, hwaddr addr)
{
    VirtIOLMHostile *h = &lm->hostile;

    if (!virtio_lm_nth(&h->dma_count, h->dma_fault_every)) {
        return addr;
    }
    trace_virtio_lm_hostile(lm->vdev, "wrong address");
    return addr ^ VIRTIO_LM_DMA_FAULT_BIT;
}

/* Properties */

/* All that counts or is random starts anew: what follows can be repeated */
static void virtio_lm_hostile_update(VirtIOLMHostile *h)
{
    h->on = virtio_lm_knob_set(h);
    h->random_state = (h->seed + 1) * 0x9e3779b97f4a7c15;
    h->drift = 0;
    h->dma_count = 0;
    h->irq_count = 0;
    h->logged = 0;
    h->ctrl_count = 0;

    if (!h->proxy) {
        return;
    }

    virtio_lm_hostile_cover(h, h->gone);
    memory_region_set_enabled(&h->overlay, h->num_queues >= 0 ||
                              h->notify_off >= 0 || h->caps >= 0 ||
                              h->config_unsettled || h->gone || h->random ||
                              h->ring_drift || h->reset_fail);
    if (h->irq_spurious_ms) {
        timer_mod(&h->irq_timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                                 h->irq_spurious_ms);
    } else {
        timer_del(&h->irq_timer);
    }
}

/* What is about the mailbox needs one */
static bool virtio_lm_knob_has_use(VirtIOLM *lm, const VirtIOLMKnob *knob,
                                   Error **errp)
{
    if (g_str_has_prefix(knob->name, "x-lm-ctrl-") && !lm->ctrl) {
        error_setg(errp, "%s needs lm-ctrl=on and ctrl_vq=on", knob->name);
        return false;
    }
    return true;
}

typedef struct VirtIOLMProp {
    const VirtIOLMKnob *knob;
    size_t lm_offset;
} VirtIOLMProp;

static VirtIOLMHostile *virtio_lm_prop_hostile(Object *obj,
                                               const VirtIOLMProp *prop)
{
    VirtIOLM *lm = (VirtIOLM *)((char *)obj + prop->lm_offset);

    return &lm->hostile;
}

static void virtio_lm_prop_get(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    const VirtIOLMProp *prop = opaque;
    int64_t val = *virtio_lm_knob(virtio_lm_prop_hostile(obj, prop),
                                  prop->knob);
    bool on = val;

    if (prop->knob->is_bool) {
        visit_type_bool(v, name, &on, errp);
    } else {
        visit_type_int64(v, name, &val, errp);
    }
}

static void virtio_lm_prop_set(Object *obj, Visitor *v, const char *name,
                               void *opaque, Error **errp)
{
    const VirtIOLMProp *prop = opaque;
    const VirtIOLMKnob *knob = prop->knob;
    VirtIOLMHostile *h = virtio_lm_prop_hostile(obj, prop);
    int64_t val;
    bool on;

    if (knob->is_bool) {
        if (!visit_type_bool(v, name, &on, errp)) {
            return;
        }
        val = on;
    } else if (!visit_type_int64(v, name, &val, errp)) {
        return;
    }

    if (val < knob->min || val > knob->max) {
        error_setg(errp, "%s is from %" PRId64 " to %" PRId64 ", not %" PRId64,
                   name, knob->min, knob->max, val);
        return;
    }
    /* Before that, virtio_lm_hostile_check() does it */
    if (DEVICE(obj)->realized && !h->proxy) {
        error_setg(errp, "%s needs vdpa=on", name);
        return;
    }
    if (DEVICE(obj)->realized && val != knob->off &&
        !virtio_lm_knob_has_use(virtio_lm_of(h), knob, errp)) {
        return;
    }

    *virtio_lm_knob(h, knob) = val;
    virtio_lm_hostile_update(h);
}

void virtio_lm_hostile_class_init(ObjectClass *klass, size_t lm_offset)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(knobs); i++) {
        VirtIOLMProp *prop = g_new(VirtIOLMProp, 1);

        prop->knob = &knobs[i];
        prop->lm_offset = lm_offset;
        object_class_property_add(klass, knobs[i].name,
                                  knobs[i].is_bool ? "bool" : "int",
                                  virtio_lm_prop_get, virtio_lm_prop_set, NULL,
                                  prop);
        object_class_property_set_description(klass, knobs[i].name,
                                              knobs[i].description);
    }
}

void virtio_lm_hostile_init(VirtIOLM *lm)
{
    VirtIOLMHostile *h = &lm->hostile;
    int i;

    for (i = 0; i < ARRAY_SIZE(knobs); i++) {
        *virtio_lm_knob(h, &knobs[i]) = knobs[i].off;
    }
    timer_init_ms(&h->suspend_timer, QEMU_CLOCK_VIRTUAL,
                  virtio_lm_hostile_suspend, lm);
    timer_init_ms(&h->ctrl_timer, QEMU_CLOCK_VIRTUAL,
                  virtio_lm_hostile_ctrl, lm);
    timer_init_ms(&h->irq_timer, QEMU_CLOCK_VIRTUAL,
                  virtio_lm_hostile_spurious, h);
}

bool virtio_lm_hostile_check(VirtIOLM *lm, VirtIOPCIProxy *proxy, Error **errp)
{
    const VirtIOLMKnob *knob = virtio_lm_knob_set(&lm->hostile);
    bool truncate = proxy->flags & VIRTIO_PCI_FLAG_LM_TRUNCATE;
    int i;

    if (!(proxy->flags & VIRTIO_PCI_FLAG_VDPA) && (knob || truncate)) {
        error_setg(errp, "%s needs vdpa=on", knob ? knob->name :
                                                    "x-lm-truncate");
        return false;
    }
    /* The next smaller power of two cuts off half of the notify structure */
    if (truncate && (proxy->flags & VIRTIO_PCI_FLAG_PAGE_PER_VQ)) {
        error_setg(errp, "x-lm-truncate needs page-per-vq=off");
        return false;
    }
    for (i = 0; i < ARRAY_SIZE(knobs); i++) {
        if (*virtio_lm_knob(&lm->hostile, &knobs[i]) != knobs[i].off &&
            !virtio_lm_knob_has_use(lm, &knobs[i], errp)) {
            return false;
        }
    }
    return true;
}

void virtio_lm_hostile_plug(VirtIOLM *lm, VirtIOPCIProxy *proxy)
{
    VirtIOLMHostile *h = &lm->hostile;

    h->proxy = proxy;
    h->covered = false;
    memory_region_init_io(&h->overlay, OBJECT(proxy), &virtio_lm_hostile_ops, h,
                          "virtio-lm-hostile",
                          memory_region_size(&proxy->modern_bar));
    /* What it passes on goes into the same device once more */
    h->overlay.disable_reentrancy_guard = true;
    memory_region_set_enabled(&h->overlay, false);
    memory_region_add_subregion_overlap(&proxy->modern_bar, 0, &h->overlay, 1);
    virtio_lm_hostile_update(h);
}

void virtio_lm_hostile_unplug(VirtIOLM *lm)
{
    VirtIOLMHostile *h = &lm->hostile;

    virtio_lm_hostile_cover(h, false);
    memory_region_del_subregion(&h->proxy->modern_bar, &h->overlay);
    timer_del(&h->irq_timer);
    timer_del(&h->suspend_timer);
    timer_del(&h->ctrl_timer);
    h->proxy = NULL;
}
