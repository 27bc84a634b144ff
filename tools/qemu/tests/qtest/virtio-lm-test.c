/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: the
 * registers themselves, and the function that has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "virtio-lm-common.h"

/* Where the block is */

static void test_block_follows_notify(const void *props)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, props);

    g_assert_cmphex(t->lm - t->notify, ==,
                    t->notify_mult * VIRTIO_LM_MAX_VQS);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==,
                    VIRTIO_LM_CAPS_MAGIC | VIRTIO_LM_CAPS_VERSION |
                    VIRTIO_LM_CAP_SUSPEND | VIRTIO_LM_CAP_FAULT |
                    VIRTIO_LM_CAP_PACKED | VIRTIO_LM_CAP_CTRL);
    lm_free(t);
}

static void test_bar_holds_block(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t bar = t->lm & ~0xffffu;

    /* The power of two above the notify structure and the block */
    g_assert_cmphex(t->bar_size, ==, 0x8000);
    g_assert_cmphex(t->lm + VIRTIO_LM_CTRL_DATA +
                    lm_read(t, VIRTIO_LM_CTRL_SIZE) - bar, <=, t->bar_size);
    lm_free(t);

    t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,page-per-vq=on");
    g_assert_cmphex(t->bar_size, ==, 0x800000);
    lm_free(t);
}

static void test_subsystem_id(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    g_assert_cmphex(qpci_config_readw(t->dev, PCI_SUBSYSTEM_ID), ==,
                    VIRTIO_LM_SUBSYS_DEVICE_ID);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_SUBSYSTEM_VENDOR_ID), ==,
                    0x1af4);
    lm_free(t);
}

static void test_off_by_default(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_PORT, "mq=off");

    g_assert_cmphex(t->bar_size, ==, 0x4000);
    g_assert_cmphex(t->lm - t->notify, ==, 0x1000);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_SUBSYSTEM_ID), !=,
                    VIRTIO_LM_SUBSYS_DEVICE_ID);
    lm_free(t);

    t = lm_new(LM_ON_ROOT_PORT, "page-per-vq=on");
    g_assert_cmphex(t->bar_size, ==, 0x800000);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0);
    lm_free(t);
}

/* Access */

static void lm_base_is(LMTest *t, uint64_t base)
{
    g_assert_cmphex(lm_read(t, VIRTIO_LM_BASE_ADDR_LOW), ==, (uint32_t)base);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_BASE_ADDR_HIGH), ==, base >> 32);
}

static void test_only_aligned_32_bit(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t addr = t->lm + VIRTIO_LM_BASE_ADDR_LOW;
    const uint64_t base = 0x1122334455667788;
    unsigned i;

    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, (uint32_t)base);
    lm_write(t, VIRTIO_LM_BASE_ADDR_HIGH, base >> 32);
    lm_base_is(t, base);

    for (i = 0; i < 8; i++) {
        g_assert_cmphex(qtest_readb(t->qts, addr + i), ==, 0);
        qtest_writeb(t->qts, addr + i, 0xff);
        g_assert_cmphex(qtest_readw(t->qts, addr + i), ==, 0);
        qtest_writew(t->qts, addr + i, 0xffff);
        g_assert_cmphex(qtest_readq(t->qts, addr + i), ==, 0);
        qtest_writeq(t->qts, addr + i, UINT64_MAX);
        if (i % 4) {
            g_assert_cmphex(qtest_readl(t->qts, addr + i), ==, 0);
            qtest_writel(t->qts, addr + i, UINT32_MAX);
        }
        lm_base_is(t, base);
    }
    lm_free(t);
}

static void test_no_register_takes_other_widths(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint8_t bytes[VIRTIO_LM_RING_STATE(3)];
    uint64_t reg;

    for (reg = 0; reg < sizeof(bytes); reg += 4) {
        qtest_writeb(t->qts, t->lm + reg, 1);
        qtest_writew(t->qts, t->lm + reg, 1);
        qtest_writeq(t->qts, t->lm + reg, 1);
        qtest_writel(t->qts, t->lm + reg + 2, 0x10001);
    }
    for (reg = 0; reg < sizeof(bytes); reg += 4) {
        g_assert_cmphex(lm_read(t, reg), ==, reg == VIRTIO_LM_CAPS ?
                        0x4d4c010f : 0);
    }
    /* In accesses of 8 bytes */
    memset(bytes, 0xff, sizeof(bytes));
    qtest_memread(t->qts, t->lm, bytes, sizeof(bytes));
    g_assert(buffer_is_zero(bytes, sizeof(bytes) & ~7u));
    lm_free(t);
}

/* VIRTIO_PCI_CAP_PCI_CFG: access to the BAR through configuration space */
static void lm_cfg_window(LMTest *t, uint64_t reg, uint32_t len)
{
    uint8_t cap = lm_pci_cap(t, VIRTIO_PCI_CAP_PCI_CFG);

    qpci_config_writeb(t->dev, cap + offsetof(struct virtio_pci_cap, bar), 4);
    qpci_config_writel(t->dev, cap + offsetof(struct virtio_pci_cap, offset),
                       (t->lm & 0xffff) + reg);
    qpci_config_writel(t->dev, cap + offsetof(struct virtio_pci_cap, length),
                       len);
}

static void test_pci_cfg_window(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint8_t data = lm_pci_cap(t, VIRTIO_PCI_CAP_PCI_CFG) +
                   sizeof(struct virtio_pci_cap);

    lm_cfg_window(t, VIRTIO_LM_CAPS, 4);
    g_assert_cmphex(qpci_config_readl(t->dev, data), ==, 0x4d4c010f);
    lm_cfg_window(t, VIRTIO_LM_BASE_ADDR_LOW, 4);
    qpci_config_writel(t->dev, data, 0x12345678);
    lm_base_is(t, 0x12345678);

    lm_cfg_window(t, VIRTIO_LM_BASE_ADDR_LOW, 2);
    qpci_config_writew(t->dev, data, 0xffff);
    g_assert_cmphex(qpci_config_readw(t->dev, data), ==, 0);
    lm_cfg_window(t, VIRTIO_LM_BASE_ADDR_LOW, 1);
    qpci_config_writeb(t->dev, data, 0xff);
    g_assert_cmphex(qpci_config_readb(t->dev, data), ==, 0);
    lm_base_is(t, 0x12345678);
    lm_free(t);
}

/* Registers */

static void lm_set_range(LMTest *t, uint64_t base, uint64_t end)
{
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, base);
    lm_write(t, VIRTIO_LM_BASE_ADDR_HIGH, base >> 32);
    lm_write(t, VIRTIO_LM_END_ADDR_LOW, end);
    lm_write(t, VIRTIO_LM_END_ADDR_HIGH, end >> 32);
}

static void test_logging_ctrl(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    static const uint32_t ignored[] = {
        2, 4, 5, 7, 8, 0xf, 0x10, 0x11, 0x101, 0x80000001, 0xffffffff,
    };
    static const uint32_t on[] = { 1, 3 };
    unsigned i, j;

    g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, 0);
    lm_set_range(t, 0x100000, 0x101000);
    for (i = 0; i < ARRAY_SIZE(ignored); i++) {
        lm_write(t, VIRTIO_LM_LOGGING_CTRL, ignored[i]);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, 0);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, 0);
    }
    for (j = 0; j < ARRAY_SIZE(on); j++) {
        lm_write(t, VIRTIO_LM_LOGGING_CTRL, on[j]);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, on[j]);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                        VIRTIO_LM_STATUS_LOGGING);
        for (i = 0; i < ARRAY_SIZE(ignored); i++) {
            lm_write(t, VIRTIO_LM_LOGGING_CTRL, ignored[i]);
            g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, on[j]);
        }
    }
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, 1);
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, 0);
    lm_free(t);
}

static void test_empty_range_does_not_enable(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    static const struct { uint64_t base, end; } empty[] = {
        { 0, 0 },
        { 0x1000, 0x1000 },
        { 0x2000, 0x1000 },
        { 0x100000000, 0x1000 },
        { UINT64_MAX, 0 },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(empty); i++) {
        lm_set_range(t, empty[i].base, empty[i].end);
        lm_write(t, VIRTIO_LM_LOGGING_CTRL, 1);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, 0);
        /* Nobody was told that anything is logged */
        g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, 0);
    }

    /* A log in force that is lost is a fault */
    lm_set_range(t, 0x100000, 0x101000);
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 1);
    lm_set_range(t, 0x101000, 0x101000);
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_LOG_FAULT);
    lm_free(t);
}

static void test_base_and_end(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    const uint64_t reg[] = {
        VIRTIO_LM_BASE_ADDR_LOW, VIRTIO_LM_BASE_ADDR_HIGH,
        VIRTIO_LM_END_ADDR_LOW, VIRTIO_LM_END_ADDR_HIGH,
    };
    unsigned i, j;

    for (i = 0; i < ARRAY_SIZE(reg); i++) {
        g_assert_cmphex(lm_read(t, reg[i]), ==, 0);
    }
    for (i = 0; i < ARRAY_SIZE(reg); i++) {
        lm_write(t, reg[i], 0xdeadbee0 + i);
        for (j = 0; j < ARRAY_SIZE(reg); j++) {
            g_assert_cmphex(lm_read(t, reg[j]), ==,
                            j <= i ? 0xdeadbee0 + j : 0);
        }
    }
    lm_free(t);
}

static void test_caps_is_read_only(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_write(t, VIRTIO_LM_CAPS, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0x4d4c010f);
    lm_write(t, VIRTIO_LM_CAPS, UINT32_MAX);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0x4d4c010f);
    lm_free(t);
}

static void test_dev_ctrl(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    g_assert_cmphex(lm_read(t, VIRTIO_LM_DEV_CTRL), ==, 0);
    lm_write(t, VIRTIO_LM_DEV_CTRL, 1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_DEV_CTRL), ==, 1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_SUSPENDED);
    /* Again, and with bits that mean nothing */
    lm_write(t, VIRTIO_LM_DEV_CTRL, 0xffffffff);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_DEV_CTRL), ==, 1);
    lm_write(t, VIRTIO_LM_DEV_CTRL, 0xfffffffe);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_DEV_CTRL), ==, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, 0);
    lm_write(t, VIRTIO_LM_DEV_CTRL, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_DEV_CTRL), ==, 0);
    lm_free(t);
}

static void test_status(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    const uint32_t all = VIRTIO_LM_STATUS_LOG_FAULT |
                         VIRTIO_LM_STATUS_SUSPENDED |
                         VIRTIO_LM_STATUS_LOGGING;

    /* No bit can be set by a write */
    lm_write(t, VIRTIO_LM_STATUS, UINT32_MAX);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, 0);

    /* A bitmap without a bit for the rings */
    lm_start(t, 0);
    lm_log_at(t, 0x1000, 0x1001);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_suspend(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, all);

    lm_write(t, VIRTIO_LM_STATUS, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, all);
    lm_write(t, VIRTIO_LM_STATUS, ~VIRTIO_LM_STATUS_LOG_FAULT);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, all);
    lm_write(t, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    all & ~VIRTIO_LM_STATUS_LOG_FAULT);
    lm_free(t);
}

static void test_ring_state_beyond_queues(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    static const unsigned beyond[] = { LM_NUM_QUEUES, 64, 1022, 1023 };
    unsigned n, i;

    for (n = 0; n < LM_NUM_QUEUES; n++) {
        lm_write(t, VIRTIO_LM_RING_STATE(n), 0x10001 * (n + 1));
    }
    for (i = 0; i < ARRAY_SIZE(beyond); i++) {
        lm_write(t, VIRTIO_LM_RING_STATE(beyond[i]), 0x12345678);
        g_assert_cmphex(lm_ring_state(t, beyond[i]), ==, 0);
    }
    /* The block has an end */
    qtest_writel(t->qts, t->lm + VIRTIO_LM_CTRL_DATA +
                 lm_read(t, VIRTIO_LM_CTRL_SIZE), 0x12345678);
    for (n = 0; n < LM_NUM_QUEUES; n++) {
        g_assert_cmphex(lm_ring_state(t, n), ==, 0x10001 * (n + 1));
    }
    lm_free(t);
}

/* Life */

/* Each register that a driver can change, changed */
static void lm_dirty_block(LMTest *t, bool suspend)
{
    lm_start(t, 0);
    lm_write(t, VIRTIO_LM_RING_STATE(LM_CVQ), 0x50005);
    lm_log_at(t, 0x1000, 0x1001);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_expect_tx(t, 60, 0);
    if (suspend) {
        lm_suspend(t);
    }
}

static void lm_assert_clear(LMTest *t)
{
    uint64_t reg;

    for (reg = 0; reg < VIRTIO_LM_RING_STATE(LM_NUM_QUEUES); reg += 4) {
        g_assert_cmphex(lm_read(t, reg), ==, reg == VIRTIO_LM_CAPS ?
                        0x4d4c010f : 0);
    }
}

/* It works as if it had been plugged in just now */
static void lm_assert_usable(LMTest *t)
{
    LMTest saved = *t;

    lm_start(t, 0);
    lm_poison(t);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 1));
    lm_expect_tx(t, 60, 1);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0x10001);
    g_assert_cmphex(lm_ring_state(t, LM_CVQ), ==, 0);
    t->next_page = saved.next_page;
}

static void test_reset_clears_block(const void *suspended)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_dirty_block(t, suspended);
    lm_set_status(t, 0);
    lm_assert_clear(t);
    lm_assert_usable(t);
    lm_free(t);
}

static void test_flr_clears_block(const void *suspended)
{
    LMTest *t = lm_new(LM_ON_ROOT_PORT, "vdpa=on");
    uint8_t exp = qpci_find_capability(t->dev, PCI_CAP_ID_EXP, 0);

    g_assert_cmphex(qpci_config_readl(t->dev, exp + PCI_EXP_DEVCAP) &
                    PCI_EXP_DEVCAP_FLR, !=, 0);
    lm_dirty_block(t, suspended);
    qpci_config_writew(t->dev, exp + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    lm_pci_map(t);
    lm_assert_clear(t);
    lm_assert_usable(t);
    lm_free(t);
}

static void test_system_reset_clears_block(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_PORT, "vdpa=on");

    lm_dirty_block(t, true);
    qtest_system_reset(t->qts);
    lm_pci_map(t);
    lm_assert_clear(t);
    lm_assert_usable(t);
    lm_free(t);
}

/* The rings were set up for the features that there were */
static void test_features_stay_with_rings(void)
{
    const uint64_t select = offsetof(struct virtio_pci_common_cfg,
                                     guest_feature_select);
    const uint64_t feature = offsetof(struct virtio_pci_common_cfg,
                                      guest_feature);
    const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE |
                           VIRTIO_CONFIG_S_DRIVER;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");
    uint32_t high;

    lm_start(t, LM_BIT(VIRTIO_F_RING_PACKED));
    lm_set_status(t, driver);
    qtest_writel(t->qts, t->common + select, 1);
    high = qtest_readl(t->qts, t->common + feature);
    g_assert_cmphex(high & LM_BIT(VIRTIO_F_RING_PACKED - 32), !=, 0);
    qtest_writel(t->qts, t->common + feature, LM_BIT(VIRTIO_F_VERSION_1 - 32));
    g_assert_cmphex(qtest_readl(t->qts, t->common + feature), ==, high);

    lm_set_status(t, driver | VIRTIO_CONFIG_S_FEATURES_OK);
    lm_set_status(t, driver | VIRTIO_CONFIG_S_FEATURES_OK |
                  VIRTIO_CONFIG_S_DRIVER_OK);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_expect_tx(t, 60, 0);
    lm_free(t);
}

/* Indices of a ring are inside of it; with or without LM registers */
static void test_size_stays_with_ring(const void *props)
{
    const uint64_t size = offsetof(struct virtio_pci_common_cfg, queue_size);
    LMTest *t = lm_new(LM_ON_ROOT_BUS, props);
    unsigned seq;

    lm_negotiate(t, LM_BIT(VIRTIO_F_RING_PACKED));
    lm_queue_init(t, LM_TX, 16);
    lm_queue_enable(&t->vq[LM_TX]);
    lm_driver_ok(t);
    for (seq = 0; seq < 40; seq++) {
        if (seq == 12) {
            qtest_writew(t->qts, t->common + size, 8);
        }
        lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, seq));
        lm_expect_tx(t, 60, seq);
    }
    g_assert_cmpuint(qtest_readw(t->qts, t->common + size), ==, 16);
    lm_free(t);
}

/*
 * A driver must not (virtio 1.3, 4.1.4.3.2), and one of virtio-mmio cannot know
 * better. This is about what the device then keeps of each descriptor.
 */
static void test_ring_above_own_size(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on,in_order=on");
    unsigned num = 512, seq;
    uint16_t size;

    lm_negotiate(t, LM_BIT(VIRTIO_F_RING_PACKED) | LM_BIT(VIRTIO_F_IN_ORDER));
    lm_queue_init(t, LM_TX, num);
    lm_queue_enable(&t->vq[LM_TX]);
    size = qtest_readw(t->qts, t->common +
                       offsetof(struct virtio_pci_common_cfg, queue_size));
    g_assert_cmpuint(size, ==, num);
    lm_driver_ok(t);
    for (seq = 0; seq < 2 * num; seq++) {
        lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, seq));
        lm_expect_tx(t, 60, seq);
    }
    lm_free(t);
}

/*
 * The guest chooses the length of a table, so 4 GiB of it may be there: nothing
 * looks beyond what a buffer can have
 */
static void test_indirect_table_too_long(const void *opaque)
{
    const uint64_t *ring = opaque;
    const unsigned max = 1024;  /* VIRTQUEUE_MAX_SIZE */
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    g_autofree LMSeg *segs = g_new0(LMSeg, max + 1);
    uint64_t out = lm_pages(t, 1), in = lm_pages(t, 1);
    LMQueue *q = &t->vq[LM_RX];
    unsigned i;
    uint16_t id;

    /* Without mergeable buffers, none is counted */
    lm_start(t, *ring | LM_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
             LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    for (i = 0; i <= max; i++) {
        segs[i] = (LMSeg) { out, 1, false };
    }
    segs[max - 1] = (LMSeg) { in, LM_PAGE, true };
    id = lm_add(q, segs, max, true);
    lm_kick(q);
    lm_send(t, 60, 0);
    lm_expect_rx(t, in, id, 60, 0);

    segs[max - 1] = segs[0];
    lm_add(q, segs, max + 1, true);
    lm_kick(q);
    lm_send(t, 60, 1);
    while (!(lm_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    lm_free(t);
}

/* A frame over @num receive buffers of 100 bytes, all there at once */
static void lm_rx_merged(LMTest *t, unsigned len, unsigned num, uint32_t seq)
{
    const unsigned size = 100;
    LMQueue *q = &t->vq[LM_RX];
    g_autofree uint8_t *want = g_malloc(len);
    g_autofree uint8_t *got = g_malloc(num * size);
    g_autofree uint64_t *addr = g_new(uint64_t, num);
    g_autofree uint16_t *id = g_new(uint16_t, num);
    unsigned i, left = LM_HDR_LEN + len;

    for (i = 0; i < num; i++) {
        addr[i] = lm_add_rx(t, size, &id[i]);
    }
    lm_kick(q);
    lm_send(t, len, seq);
    for (i = 0; i < num; i++) {
        unsigned part = MIN(left, size);

        g_assert_cmpuint(lm_wait_used(q, id[i]), ==, part);
        memcpy(got + i * size, lm_ptr(t, addr[i]), part);
        left -= part;
    }
    g_assert_cmpuint(left, ==, 0);
    lm_fill(want, len, seq);
    g_assert_cmpmem(got + LM_HDR_LEN, len, want, len);
}

/* One frame in all buffers that the ring can hold, more than once */
static void test_in_order_whole_ring(const void *opaque)
{
    const uint64_t *ring = opaque;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on,in_order=on");
    unsigned seq;

    lm_negotiate(t, *ring | LM_BIT(VIRTIO_F_IN_ORDER) |
                 LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    lm_queue_init(t, LM_RX, 16);
    lm_queue_enable(&t->vq[LM_RX]);
    lm_driver_ok(t);
    for (seq = 0; seq < 4; seq++) {
        lm_rx_merged(t, 1514, 16, seq);
        /* From there on somewhere else */
        lm_rx_merged(t, 60, 1, seq);
    }
    lm_free(t);
}

/* A packed ring may have any size; frames lie across its end */
static void test_in_order_odd_ring(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on,in_order=on");
    unsigned seq;

    lm_negotiate(t, LM_BIT(VIRTIO_F_RING_PACKED) | LM_BIT(VIRTIO_F_IN_ORDER) |
                 LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    lm_queue_init(t, LM_RX, 11);
    lm_queue_enable(&t->vq[LM_RX]);
    lm_driver_ok(t);
    for (seq = 0; seq < 40; seq++) {
        unsigned num = 1 + seq % 11;

        lm_rx_merged(t, num * 100 - LM_HDR_LEN, num, seq);
    }
    lm_free(t);
}

/*
 * A packet in as many descriptors as the queue has, its header in one of its
 * own or not: all of it is sent. More than those are an error of the driver.
 */
static void lm_tx_longest_chain(LMTest *t, uint64_t ring)
{
    const unsigned max = 1024;  /* VIRTQUEUE_MAX_SIZE */
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    g_autofree LMSeg *segs = g_new0(LMSeg, max + 1);
    LMQueue *q = &t->vq[LM_TX];
    unsigned extra, i;

    lm_negotiate(t, ring | LM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    lm_queue_init(t, LM_TX, max);
    lm_queue_enable(q);
    lm_driver_ok(t);
    for (extra = 0; extra < 2; extra++) {
        uint64_t addr = lm_pages(t, 1);
        unsigned len = max - 1 + extra;

        memset(lm_ptr(t, addr), 0, LM_HDR_LEN);
        lm_fill(lm_ptr(t, addr + LM_HDR_LEN), len, extra);
        segs[0] = (LMSeg) { addr, LM_HDR_LEN + extra, false };
        for (i = 1; i < max; i++) {
            segs[i] = (LMSeg) { addr + LM_HDR_LEN + extra + i - 1, 1, false };
        }
        for (i = 0; i < 2; i++) {
            uint16_t id = lm_add(q, segs, max, i);

            lm_kick(q);
            lm_wait_used(q, id);
            lm_expect_tx(t, len, extra);
        }
    }

    segs[max] = segs[0];
    lm_add(q, segs, max + 1, true);
    lm_kick(q);
    while (!(lm_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    lm_expect_no_tx(t);
    lm_start(t, ring);
    lm_wait_used(q, lm_tx(t, 60, 0));
    lm_expect_tx(t, 60, 0);
}

#define LONG_QUEUES "vdpa=on,packed=on,rx_queue_size=1024,tx_queue_size=1024"

static void test_longest_chain(const void *ring)
{
    const uint64_t size = offsetof(struct virtio_pci_common_cfg, queue_size);
    LMTest *t = lm_new(LM_ON_ROOT_BUS, LONG_QUEUES);
    unsigned n;

    for (n = LM_RX; n <= LM_TX; n++) {
        qtest_writew(t->qts, t->common +
                     offsetof(struct virtio_pci_common_cfg, queue_select), n);
        g_assert_cmpuint(qtest_readw(t->qts, t->common + size), ==, 1024);
    }
    lm_tx_longest_chain(t, *(const uint64_t *)ring);
    lm_free(t);
}

/* The same to a backend that is given the descriptors as they are */
static void test_longest_chain_to_tap(const void *ring)
{
    LMTest *t = lm_new_tap(LM_ON_ROOT_BUS, LONG_QUEUES);

    if (t) {
        lm_tx_longest_chain(t, *(const uint64_t *)ring);
        lm_free(t);
    }
}

/* With one packet that the backend does not take, and others behind it */
static void test_queue_reset_while_blocked(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    unsigned sent, seq;

    lm_start(t, LM_BIT(VIRTIO_F_RING_RESET));
    sent = lm_block_backend(t, 0, 1);
    for (seq = 1; seq <= 4; seq++) {
        lm_add_tx(t, 60, sent + seq, 1);
    }
    qtest_writew(t->qts, t->common + offsetof(struct virtio_pci_common_cfg,
                                              queue_select), LM_TX);
    qtest_writew(t->qts,
                 t->common + offsetof(struct virtio_pci_modern_common_cfg,
                                      queue_reset), 1);
    for (seq = 0; seq < sent; seq++) {
        lm_expect_tx(t, 60, seq);
    }
    lm_expect_no_tx(t);

    lm_queue_init(t, LM_TX, 256);
    lm_queue_enable(&t->vq[LM_TX]);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_expect_tx(t, 60, 0);
    lm_free(t);
}

/* A segment of TCP that is there to be coalesced with those behind it */
static void lm_send_tcp(LMTest *t, uint8_t *frame, unsigned len, uint32_t seq)
{
    static const uint8_t headers[54] = {
        0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x52, 0x54, 0x00, 0x12, 0x34, 0x57,
        0x08, 0x00,
        0x45, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0x00, 0x00,
        10, 0, 0, 1, 10, 0, 0, 2,
        0x30, 0x39, 0x00, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x50, 0x10, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00,
    };

    lm_fill(frame, len, seq);
    memcpy(frame, headers, sizeof(headers));
    stw_be_p(frame + 16, len - 14);
    g_assert_cmpint(send(t->net, frame, len, 0), ==, len);
}

/* What waits to be coalesced goes with the driver that it was received for */
static void test_coalesced_until_reset(void)
{
    const uint64_t rsc = LM_BIT(VIRTIO_NET_F_GUEST_CSUM) |
                         LM_BIT(VIRTIO_NET_F_GUEST_TSO4) |
                         LM_BIT(VIRTIO_NET_F_RSC_EXT);
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    LMTest *t = lm_new_tap(LM_ON_ROOT_BUS, "vdpa=on,guest_rsc_ext=on");
    LMQueue *q = &t->vq[LM_RX];
    uint8_t frame[154];
    uint64_t addr;
    uint32_t len;
    uint16_t id;

    if (!t) {
        return;
    }
    lm_start(t, rsc);
    addr = lm_add_rx(t, 2000, &id);
    lm_kick(q);
    lm_send_tcp(t, frame, sizeof(frame), 0);
    /* It is there when the one behind it is */
    lm_send(t, 100, 1);
    lm_expect_rx(t, addr, id, 100, 1);

    lm_start(t, rsc);
    lm_add_rx(t, 2000, &id);
    lm_kick(q);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_settle(t);
    g_assert_false(lm_get_used(q, &id, &len));

    /* It is coalesced for the next driver, too */
    lm_start(t, rsc);
    addr = lm_add_rx(t, 2000, &id);
    lm_kick(q);
    lm_send_tcp(t, frame, sizeof(frame), 2);
    lm_settle(t);
    g_assert_false(lm_get_used(q, &id, &len));
    while (!lm_get_used(q, &id, &len)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    }
    g_assert_cmpmem(lm_ptr(t, addr + LM_HDR_LEN), len - LM_HDR_LEN,
                    frame, sizeof(frame));
    lm_free(t);
}

/* What is accepted without being offered is not there: headers are no longer */
static void test_features_not_offered(void)
{
    const uint64_t more = LM_BIT(VIRTIO_NET_F_HASH_REPORT);
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    unsigned n;

    g_assert_cmphex(lm_host_features(t) & more, ==, 0);
    lm_negotiate(t, 0);
    lm_set_features(t, t->features | more);
    for (n = LM_RX; n <= LM_TX; n++) {
        lm_queue_init(t, n, 256);
        lm_queue_enable(&t->vq[n]);
    }
    lm_driver_ok(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_expect_tx(t, 60, 0);
    lm_free(t);
}

static void test_unplug_in_use(void)
{
    LMTest *t = lm_new(LM_ON_PC, "vdpa=on");

    lm_dirty_block(t, true);
    qpci_unplug_acpi_device_test(t->qts, "net0", 4);
    qtest_qmp_assert_success(t->qts, "{'execute': 'device_add', 'arguments': {"
                             "'driver': 'virtio-net-pci', 'id': 'net0',"
                             "'vdpa': true, 'addr': '4', 'romfile': ''}}");
    lm_pci_map(t);
    lm_assert_clear(t);
    lm_free(t);
}

/* What is refused */

static void lm_assert_refused(LMTest *t, const char *netdev, const char *prop,
                              QObject *val, const char *why)
{
    QDict *args = qdict_new();
    QDict *rsp, *err;

    qdict_put_str(args, "driver", "virtio-net-pci");
    qdict_put_str(args, "netdev", netdev);
    qdict_put_str(args, "id", "refused");
    qdict_put_str(args, "romfile", "");
    qdict_put_bool(args, "vdpa", true);
    if (prop) {
        qdict_put_obj(args, prop, val);
    }
    rsp = qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': %p}",
                    qobject_ref(args));
    err = qdict_get_qdict(rsp, "error");
    g_assert_nonnull(err);
    g_assert_cmpstr(qdict_get_str(err, "desc"), ==, why);
    qobject_unref(rsp);

    /* It is refused for nothing else */
    qdict_put_bool(args, "vdpa", false);
    qtest_qmp_assert_success(t->qts,
                             "{'execute': 'device_add', 'arguments': %p}",
                             args);
}

static void test_legacy_is_refused(void)
{
    LMTest *t = lm_new(LM_ON_PC, NULL);

    lm_assert_refused(t, "hs0", "disable-legacy",
                      QOBJECT(qstring_from_str("off")),
                      "vdpa=on needs a virtio 1 device");
    lm_free(t);

    t = lm_new(LM_ON_PC, NULL);
    lm_assert_refused(t, "hs0", "disable-modern",
                      QOBJECT(qbool_from_bool(true)),
                      "vdpa=on needs a virtio 1 device");
    lm_free(t);
}

static void test_alone_is_modern(void)
{
    /* Where a device without vdpa=on is a transitional one */
    LMTest *t = lm_new(LM_ON_PC, "vdpa=on");

    g_assert_cmphex(qpci_config_readb(t->dev, PCI_REVISION_ID), ==, 1);
    lm_free(t);
}

/* A vhost-user backend that says enough for a netdev to come up */
static void *lm_vhost_user_backend(void *opaque)
{
    int server = GPOINTER_TO_INT(opaque);
    int fd = accept(server, NULL, NULL);
    struct QEMU_PACKED {
        uint32_t request, flags, size;
        uint64_t payload[64];
    } msg;

    g_assert_cmpint(fd, >=, 0);
    while (recv(fd, &msg, 12, MSG_WAITALL) == 12) {
        g_assert_cmpuint(msg.size, <=, sizeof(msg.payload));
        if (msg.size) {
            g_assert_cmpint(recv(fd, msg.payload, msg.size, MSG_WAITALL), ==,
                            msg.size);
        }
        switch (msg.request) {
        case 1:     /* VHOST_USER_GET_FEATURES */
            msg.payload[0] = LM_BIT(VIRTIO_F_VERSION_1) |
                             LM_BIT(30 /* VHOST_USER_F_PROTOCOL_FEATURES */);
            break;
        case 15:    /* VHOST_USER_GET_PROTOCOL_FEATURES */
            msg.payload[0] = 0;
            break;
        default:
            continue;
        }
        msg.flags = 1 | 1 << 2 /* a reply */;
        msg.size = 8;
        g_assert_cmpint(send(fd, &msg, 20, MSG_NOSIGNAL), ==, 20);
    }
    close(fd);
    return NULL;
}

static void test_vhost_user_is_refused(void)
{
    g_autofree char *path = g_strdup_printf("%s/virtio-lm-%d.sock",
                                            g_get_tmp_dir(), getpid());
    LMTest *t = lm_new(LM_ON_PC, NULL);
    int server = qtest_socket_server(path);
    GThread *backend = g_thread_new("vhost-user", lm_vhost_user_backend,
                                    GINT_TO_POINTER(server));

    qtest_qmp_assert_success(t->qts, "{'execute': 'chardev-add', 'arguments': {"
                             "'id': 'vu', 'backend': {'type': 'socket', 'data':"
                             "{'addr': {'type': 'unix', 'data': {'path': %s}},"
                             "'server': false}}}}", path);
    qtest_qmp_assert_success(t->qts, "{'execute': 'netdev_add', 'arguments': {"
                             "'type': 'vhost-user', 'id': 'vu',"
                             "'chardev': 'vu'}}");
    lm_assert_refused(t, "vu", NULL, NULL,
                      "vdpa=on cannot log what the vhost backend of netdev "
                      "'vu' writes");
    lm_free(t);
    g_thread_join(backend);
    close(server);
    unlink(path);
}

int main(int argc, char **argv)
{
    static const uint64_t split, packed = LM_BIT(VIRTIO_F_RING_PACKED);

    g_test_init(&argc, &argv, NULL);

    qtest_add_data_func("/virtio-lm/block/follows-notify", "vdpa=on",
                        test_block_follows_notify);
    qtest_add_data_func("/virtio-lm/block/follows-notify-page-per-vq",
                        "vdpa=on,page-per-vq=on", test_block_follows_notify);
    qtest_add_func("/virtio-lm/block/bar-holds-it", test_bar_holds_block);
    qtest_add_func("/virtio-lm/block/subsystem-id", test_subsystem_id);
    qtest_add_func("/virtio-lm/block/off-by-default", test_off_by_default);
    qtest_add_func("/virtio-lm/access/only-aligned-32-bit",
                   test_only_aligned_32_bit);
    qtest_add_func("/virtio-lm/access/no-register-takes-other-widths",
                   test_no_register_takes_other_widths);
    qtest_add_func("/virtio-lm/access/pci-cfg-window", test_pci_cfg_window);
    qtest_add_func("/virtio-lm/register/logging-ctrl", test_logging_ctrl);
    qtest_add_func("/virtio-lm/register/empty-range-does-not-enable",
                   test_empty_range_does_not_enable);
    qtest_add_func("/virtio-lm/register/base-and-end", test_base_and_end);
    qtest_add_func("/virtio-lm/register/caps-is-read-only",
                   test_caps_is_read_only);
    qtest_add_func("/virtio-lm/register/dev-ctrl", test_dev_ctrl);
    qtest_add_func("/virtio-lm/register/status", test_status);
    qtest_add_func("/virtio-lm/register/ring-state-beyond-queues",
                   test_ring_state_beyond_queues);
    qtest_add_data_func("/virtio-lm/life/reset-clears", NULL,
                        test_reset_clears_block);
    qtest_add_data_func("/virtio-lm/life/reset-clears-suspended", "suspended",
                        test_reset_clears_block);
    qtest_add_data_func("/virtio-lm/life/flr-clears", NULL,
                        test_flr_clears_block);
    qtest_add_data_func("/virtio-lm/life/flr-clears-suspended", "suspended",
                        test_flr_clears_block);
    qtest_add_func("/virtio-lm/life/system-reset-clears",
                   test_system_reset_clears_block);
    qtest_add_func("/virtio-lm/life/features-stay-with-rings",
                   test_features_stay_with_rings);
    qtest_add_data_func("/virtio-lm/life/size-stays-with-ring/on",
                        "vdpa=on,packed=on", test_size_stays_with_ring);
    qtest_add_data_func("/virtio-lm/life/size-stays-with-ring/off",
                        "vdpa=off,packed=on,disable-legacy=on",
                        test_size_stays_with_ring);
    qtest_add_func("/virtio-lm/life/ring-above-own-size",
                   test_ring_above_own_size);
    qtest_add_data_func("/virtio-lm/life/indirect-table-too-long/split",
                        &split, test_indirect_table_too_long);
    qtest_add_data_func("/virtio-lm/life/indirect-table-too-long/packed",
                        &packed, test_indirect_table_too_long);
    qtest_add_data_func("/virtio-lm/life/in-order-whole-ring/split",
                        &split, test_in_order_whole_ring);
    qtest_add_data_func("/virtio-lm/life/in-order-whole-ring/packed",
                        &packed, test_in_order_whole_ring);
    qtest_add_func("/virtio-lm/life/in-order-odd-ring", test_in_order_odd_ring);
    qtest_add_data_func("/virtio-lm/life/longest-chain/split", &split,
                        test_longest_chain);
    qtest_add_data_func("/virtio-lm/life/longest-chain/packed", &packed,
                        test_longest_chain);
    qtest_add_data_func("/virtio-lm/life/longest-chain-to-tap/split", &split,
                        test_longest_chain_to_tap);
    qtest_add_data_func("/virtio-lm/life/longest-chain-to-tap/packed", &packed,
                        test_longest_chain_to_tap);
    qtest_add_func("/virtio-lm/life/coalesced-until-reset",
                   test_coalesced_until_reset);
    qtest_add_func("/virtio-lm/life/queue-reset-while-blocked",
                   test_queue_reset_while_blocked);
    qtest_add_func("/virtio-lm/life/features-not-offered",
                   test_features_not_offered);
    qtest_add_func("/virtio-lm/life/unplug-in-use", test_unplug_in_use);
    qtest_add_func("/virtio-lm/refuse/legacy", test_legacy_is_refused);
    qtest_add_func("/virtio-lm/refuse/nothing-alone", test_alone_is_modern);
    qtest_add_func("/virtio-lm/refuse/vhost-user",
                   test_vhost_user_is_refused);
    lm_add_log_tests();
    lm_add_suspend_tests();
    lm_add_migrate_tests();
    lm_add_iommu_tests();
    lm_add_hostile_tests();
    lm_add_ctrl_tests();

    return g_test_run();
}
