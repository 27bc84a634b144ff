/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: the
 * properties that make the device misbehave
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "virtio-lm-common.h"

#define MSIX_BAR_ADDR 0xe1000000u
#define MSIX_MAGIC 0x4d495821u
#define CAPS_TRUE 0x4d4c010fu

#define COMMON(field) (t->common + offsetof(struct virtio_pci_common_cfg, \
                                            field))

static QDict *lm_try_set(LMTest *t, const char *prop, QObject *val)
{
    return qtest_qmp(t->qts, "{'execute': 'qom-set', 'arguments': {"
                     "'path': '/machine/peripheral/net0', 'property': %s,"
                     "'value': %p}}", prop, val);
}

static void lm_set_obj(LMTest *t, const char *prop, QObject *val)
{
    QDict *rsp = lm_try_set(t, prop, val);

    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

static void lm_set(LMTest *t, const char *prop, int64_t val)
{
    lm_set_obj(t, prop, QOBJECT(qnum_from_int(val)));
}

static void lm_switch(LMTest *t, const char *prop, bool on)
{
    lm_set_obj(t, prop, QOBJECT(qbool_from_bool(on)));
}

static void lm_assert_error(QDict *rsp, const char *why)
{
    QDict *err = qdict_get_qdict(rsp, "error");

    g_assert_nonnull(err);
    g_assert_cmpstr(qdict_get_str(err, "desc"), ==, why);
    qobject_unref(rsp);
}

/* A packet in each direction */
static void lm_assert_works(LMTest *t, uint32_t seq)
{
    uint16_t id;
    uint64_t addr = lm_add_rx(t, 200, &id);

    lm_kick(&t->vq[LM_RX]);
    lm_send(t, 100, seq);
    lm_expect_rx(t, addr, id, 100, seq);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, seq));
    lm_expect_tx(t, 60, seq);
}

/* Properties */

static void test_needs_vdpa(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_PORT, "vdpa=off");

    lm_assert_error(lm_try_set(t, "x-lm-caps", QOBJECT(qnum_from_int(0))),
                    "x-lm-caps needs vdpa=on");
    lm_assert_error(lm_try_set(t, "x-lm-gone", QOBJECT(qbool_from_bool(true))),
                    "x-lm-gone needs vdpa=on");
    lm_free(t);

    t = lm_new(LM_ON_PC, NULL);
    lm_assert_error(qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': {"
                              "'driver': 'virtio-net-pci', 'netdev': 'hs0',"
                              "'romfile': '', 'x-lm-resume-fail': true}}"),
                    "x-lm-resume-fail needs vdpa=on");
    lm_assert_error(qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': {"
                              "'driver': 'virtio-net-pci', 'netdev': 'hs0',"
                              "'romfile': '', 'x-lm-truncate': true}}"),
                    "x-lm-truncate needs vdpa=on");
    lm_assert_error(qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': {"
                              "'driver': 'virtio-net-pci', 'netdev': 'hs0',"
                              "'romfile': '', 'vdpa': true,"
                              "'page-per-vq': true, 'x-lm-truncate': true}}"),
                    "x-lm-truncate needs page-per-vq=off");
    lm_free(t);
}

static void test_range(void)
{
    static const struct {
        const char *prop;
        int64_t val;
        const char *why;
    } bad[] = {
        { "x-lm-random", 1001, "x-lm-random is from 0 to 1000, not 1001" },
        { "x-lm-random", -1, "x-lm-random is from 0 to 1000, not -1" },
        { "x-lm-num-queues", 65536,
          "x-lm-num-queues is from -1 to 65535, not 65536" },
        { "x-lm-caps", 1LL << 32,
          "x-lm-caps is from -1 to 4294967295, not 4294967296" },
        { "x-lm-suspend-delay-ms", -2,
          "x-lm-suspend-delay-ms is from -1 to 2147483647, not -2" },
        { "x-lm-ctrl-delay-ms", -2,
          "x-lm-ctrl-delay-ms is from -1 to 2147483647, not -2" },
    };
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        lm_assert_error(lm_try_set(t, bad[i].prop,
                                   QOBJECT(qnum_from_int(bad[i].val))),
                        bad[i].why);
    }
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, CAPS_TRUE);
    lm_free(t);
}

static void test_command_line(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,x-lm-caps=0x4d4c0200,"
                       "x-lm-num-queues=7,x-lm-reset-fail=on");

    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0x4d4c0200);
    g_assert_cmpuint(qtest_readw(t->qts, COMMON(num_queues)), ==, 7);
    lm_set_status(t, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    lm_set_status(t, 0);
    g_assert_cmphex(lm_status(t), ==, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    lm_free(t);
}

/* Registers */

static void test_num_queues(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint16_t num = qtest_readw(t->qts, COMMON(num_queues));

    lm_set(t, "x-lm-num-queues", 0);
    g_assert_cmpuint(qtest_readw(t->qts, COMMON(num_queues)), ==, 0);
    lm_set(t, "x-lm-num-queues", 65535);
    g_assert_cmpuint(qtest_readw(t->qts, COMMON(num_queues)), ==, 65535);
    lm_set(t, "x-lm-num-queues", -1);
    g_assert_cmpuint(qtest_readw(t->qts, COMMON(num_queues)), ==, num);
    lm_start(t, 0);
    lm_assert_works(t, 0);
    lm_free(t);
}

static void test_notify_off(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_set(t, "x-lm-notify-off", 65535);
    qtest_writew(t->qts, COMMON(queue_select), 1);
    g_assert_cmpuint(qtest_readw(t->qts, COMMON(queue_notify_off)), ==, 65535);
    lm_set(t, "x-lm-notify-off", -1);
    g_assert_cmpuint(qtest_readw(t->qts, COMMON(queue_notify_off)), ==, 1);
    lm_free(t);
}

static void test_caps(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_set(t, "x-lm-caps", 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0);
    lm_set(t, "x-lm-caps", 0xffffffff);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0xffffffff);
    lm_set(t, "x-lm-caps", -1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, CAPS_TRUE);
    lm_free(t);
}

static void test_truncate(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,x-lm-truncate=on,mq=off");

    g_assert_cmphex(t->bar_size, ==, 0x4000);
    g_assert_cmphex(t->lm & 0xffff, ==, 0x4000);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_SUBSYSTEM_ID), ==,
                    VIRTIO_LM_SUBSYS_DEVICE_ID);
    lm_set(t, "x-lm-ring-drift", 1);
    g_assert_cmphex(lm_ring_state(t, 0), ==, 0);
    lm_free(t);
}

static void test_config_unsettled(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint8_t last = qtest_readb(t->qts, COMMON(config_generation));
    unsigned i;

    g_assert_cmphex(qtest_readb(t->qts, COMMON(config_generation)), ==, last);
    lm_switch(t, "x-lm-config-unsettled", true);
    last = qtest_readb(t->qts, COMMON(config_generation));
    for (i = 0; i < 1000; i++) {
        uint8_t now = qtest_readb(t->qts, COMMON(config_generation));

        g_assert_cmphex(now, !=, last);
        last = now;
    }
    lm_switch(t, "x-lm-config-unsettled", false);
    last = qtest_readb(t->qts, COMMON(config_generation));
    g_assert_cmphex(qtest_readb(t->qts, COMMON(config_generation)), ==, last);
    lm_free(t);
}

/* All that a driver sees is ones, and nothing it does arrives */
static void test_gone(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_PORT, "vdpa=on");
    uint16_t id;

    lm_start(t, 0);
    lm_add_rx(t, 200, &id);
    lm_kick(&t->vq[LM_RX]);
    lm_settle(t);
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, 0x1234);

    lm_switch(t, "x-lm-gone", true);
    lm_snapshot(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0xffffffff);
    g_assert_cmphex(lm_status(t), ==, 0xff);
    g_assert_cmphex(qtest_readw(t->qts, COMMON(num_queues)), ==, 0xffff);
    g_assert_cmphex(qtest_readw(t->qts, t->notify), ==, 0xffff);
    g_assert_cmphex(qtest_readl(t->qts, t->config), ==, 0xffffffff);
    g_assert_cmphex(qpci_config_readl(t->dev, PCI_VENDOR_ID), ==, 0xffffffff);
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, 0x5678);
    lm_set_status(t, 0);
    qpci_config_writew(t->dev, PCI_COMMAND, 0);
    qtest_writew(t->qts, t->notify + t->notify_mult, LM_TX);
    lm_send(t, 100, 0);
    lm_assert_untouched(t);

    lm_switch(t, "x-lm-gone", false);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, CAPS_TRUE);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_BASE_ADDR_LOW), ==, 0);
    g_assert_cmphex(lm_status(t), ==, 0);
    lm_assert_untouched(t);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_COMMAND) & PCI_COMMAND_MASTER,
                    !=, 0);
    lm_start(t, 0);
    lm_assert_works(t, 1);
    lm_free(t);
}

/* The same from its first moment; back, it is a function like any other */
static void test_gone_from_start(void)
{
    LMTest *t = lm_new_unmapped(LM_ON_ROOT_PORT, "vdpa=on,x-lm-gone=on");
    uint8_t exp;

    lm_pci_map_root_port(t);
    g_assert_null(qpci_device_find(t->bus, QPCI_DEVFN(32, 0)));

    lm_switch(t, "x-lm-gone", false);
    lm_pci_map(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, CAPS_TRUE);
    lm_start(t, 0);
    lm_assert_works(t, 0);

    /* What is written to its configuration space has effect */
    qpci_config_writew(t->dev, PCI_COMMAND, PCI_COMMAND_MEMORY);
    g_assert_cmphex(lm_status(t) & VIRTIO_CONFIG_S_DRIVER_OK, ==, 0);
    exp = qpci_find_capability(t->dev, PCI_CAP_ID_EXP, 0);
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, 0x1234);
    qpci_config_writew(t->dev, exp + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    lm_pci_map(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_BASE_ADDR_LOW), ==, 0);
    g_assert_cmphex(lm_status(t), ==, 0);
    lm_start(t, 0);
    lm_assert_works(t, 1);
    lm_free(t);
}

static void test_unplug_gone(void)
{
    LMTest *t = lm_new(LM_ON_PC, "vdpa=on,x-lm-irq-spurious-ms=1");
    uint16_t id;

    lm_start(t, 0);
    lm_add_rx(t, 200, &id);
    lm_tx(t, 60, 0);
    lm_switch(t, "x-lm-gone", true);
    qpci_unplug_acpi_device_test(t->qts, "net0", 4);
    qtest_clock_step(t->qts, 10 * SCALE_MS);
    qtest_qmp_assert_success(t->qts, "{'execute': 'device_add', 'arguments': {"
                             "'driver': 'virtio-net-pci', 'id': 'net0',"
                             "'vdpa': true, 'addr': '4', 'romfile': ''}}");
    lm_pci_map(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, CAPS_TRUE);
    lm_free(t);
}

static void lm_read_caps(LMTest *t, uint32_t *caps, unsigned num)
{
    unsigned i;

    for (i = 0; i < num; i++) {
        caps[i] = lm_read(t, VIRTIO_LM_CAPS);
    }
}

static void test_random(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint32_t first[1000], again[1000];
    unsigned i, wrong = 0;

    lm_set(t, "x-lm-random", 250);
    lm_set(t, "x-lm-seed", 1);
    lm_read_caps(t, first, ARRAY_SIZE(first));
    lm_set(t, "x-lm-seed", 1);
    lm_read_caps(t, again, ARRAY_SIZE(again));
    g_assert_cmpmem(first, sizeof(first), again, sizeof(again));
    lm_set(t, "x-lm-seed", 2);
    lm_read_caps(t, again, ARRAY_SIZE(again));
    g_assert_cmpint(memcmp(first, again, sizeof(first)), !=, 0);
    for (i = 0; i < ARRAY_SIZE(first); i++) {
        wrong += first[i] != CAPS_TRUE;
    }
    g_assert_cmpuint(wrong, >, 150);
    g_assert_cmpuint(wrong, <, 350);

    lm_set(t, "x-lm-random", 1000);
    lm_read_caps(t, first, ARRAY_SIZE(first));
    for (i = 0; i < ARRAY_SIZE(first); i++) {
        g_assert_cmphex(first[i], !=, CAPS_TRUE);
    }
    lm_set(t, "x-lm-random", 0);
    lm_start(t, 0);
    lm_assert_works(t, 0);
    lm_free(t);
}

static void test_ring_drift(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), 0x50005);
    lm_set(t, "x-lm-ring-drift", 1);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0x50006);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0x50007);
    lm_set(t, "x-lm-ring-drift", 0x10001);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0x60006);
    lm_set(t, "x-lm-ring-drift", 0);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0x50005);
    lm_free(t);
}

static void test_reset_fail(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint8_t status;

    lm_start(t, 0);
    status = lm_status(t);
    lm_switch(t, "x-lm-reset-fail", true);
    lm_set_status(t, 0);
    g_assert_cmphex(lm_status(t), ==, status);
    lm_assert_works(t, 0);
    lm_switch(t, "x-lm-reset-fail", false);
    lm_set_status(t, 0);
    g_assert_cmphex(lm_status(t), ==, 0);
    lm_free(t);
}

/* Suspend and resume */

static bool lm_is_suspended(LMTest *t)
{
    return lm_read(t, VIRTIO_LM_STATUS) & VIRTIO_LM_STATUS_SUSPENDED;
}

static void lm_ask_to_suspend(LMTest *t)
{
    lm_write(t, VIRTIO_LM_DEV_CTRL, VIRTIO_LM_DEV_CTRL_SUSPEND);
}

static void test_suspend_delay(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start(t, 0);
    lm_set(t, "x-lm-suspend-delay-ms", 20);
    lm_ask_to_suspend(t);
    g_assert_false(lm_is_suspended(t));
    qtest_clock_step(t->qts, 19 * SCALE_MS);
    g_assert_false(lm_is_suspended(t));
    lm_assert_works(t, 0);
    qtest_clock_step(t->qts, 1 * SCALE_MS);
    g_assert_true(lm_is_suspended(t));
    lm_resume(t);
    lm_assert_works(t, 1);

    /* Taken back in time, by a resume and by a reset */
    lm_ask_to_suspend(t);
    lm_resume(t);
    qtest_clock_step(t->qts, 100 * SCALE_MS);
    g_assert_false(lm_is_suspended(t));
    lm_ask_to_suspend(t);
    lm_start(t, 0);
    qtest_clock_step(t->qts, 100 * SCALE_MS);
    g_assert_false(lm_is_suspended(t));
    lm_assert_works(t, 2);

    lm_set(t, "x-lm-suspend-delay-ms", -1);
    lm_ask_to_suspend(t);
    qtest_clock_step(t->qts, 1000 * NANOSECONDS_PER_SECOND);
    g_assert_false(lm_is_suspended(t));
    lm_assert_works(t, 3);
    lm_set(t, "x-lm-suspend-delay-ms", 0);
    lm_suspend(t);
    lm_free(t);
}

static void test_resume_fail(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start(t, 0);
    lm_suspend(t);
    lm_switch(t, "x-lm-resume-fail", true);
    lm_write(t, VIRTIO_LM_DEV_CTRL, 0);
    g_assert_true(lm_is_suspended(t));
    lm_tx(t, 60, 0);
    lm_expect_no_tx(t);

    lm_switch(t, "x-lm-resume-fail", false);
    lm_resume(t);
    lm_expect_tx(t, 60, 0);

    /* A reset does what the resume does not */
    lm_switch(t, "x-lm-resume-fail", true);
    lm_suspend(t);
    lm_start(t, 0);
    g_assert_false(lm_is_suspended(t));
    lm_assert_works(t, 1);
    lm_free(t);
}

/* Control commands */

static void test_ctrl_needs_mailbox(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,lm-ctrl=off");

    lm_assert_error(lm_try_set(t, "x-lm-ctrl-delay-ms",
                               QOBJECT(qnum_from_int(1))),
                    "x-lm-ctrl-delay-ms needs lm-ctrl=on and ctrl_vq=on");
    lm_set(t, "x-lm-ctrl-delay-ms", 0);
    lm_free(t);

    t = lm_new(LM_ON_PC, NULL);
    lm_assert_error(qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': {"
                              "'driver': 'virtio-net-pci', 'netdev': 'hs0',"
                              "'romfile': '', 'vdpa': true, 'lm-ctrl': false,"
                              "'x-lm-ctrl-error-every': 1}}"),
                    "x-lm-ctrl-error-every needs lm-ctrl=on and ctrl_vq=on");
    lm_free(t);
}

static void test_ctrl_error(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    unsigned i, errors = 0;

    lm_start(t, LM_BIT(VIRTIO_NET_F_CTRL_VQ) | LM_BIT(VIRTIO_NET_F_CTRL_VLAN));
    lm_set(t, "x-lm-ctrl-error-every", 3);
    for (i = 0; i < 9; i++) {
        errors += lm_add_vlan(t, i) == VIRTIO_LM_CTRL_ERR;
    }
    g_assert_cmpuint(errors, ==, 3);
    /* The number of VLANs is how many commands were executed */
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 6);
    lm_set(t, "x-lm-ctrl-error-every", 1);
    g_assert_cmphex(lm_add_vlan(t, 100), ==, VIRTIO_LM_CTRL_ERR);
    lm_set(t, "x-lm-ctrl-error-every", 0);
    g_assert_cmphex(lm_add_vlan(t, 100), ==, VIRTIO_LM_CTRL_OK);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 7);
    lm_free(t);
}

static void lm_ask_for_vlan(LMTest *t, uint16_t tag, uint16_t vid)
{
    vid = cpu_to_le16(vid);
    lm_ctrl_run(t, tag, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vid,
                sizeof(vid));
}

#define CTRL_STATUS(t) lm_read(t, VIRTIO_LM_CTRL_STATUS)
#define BUSY(tag) ((tag) << VIRTIO_LM_CTRL_TAG_SHIFT | VIRTIO_LM_CTRL_BUSY)
#define DONE(tag) ((tag) << VIRTIO_LM_CTRL_TAG_SHIFT | VIRTIO_LM_CTRL_DONE)

/* While one is under way there is no other, and the window stays as it is */
static void test_ctrl_delay(void)
{
    const uint64_t features = LM_BIT(VIRTIO_NET_F_CTRL_VQ) |
                              LM_BIT(VIRTIO_NET_F_CTRL_VLAN);
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint32_t window;

    lm_start(t, features);
    lm_set(t, "x-lm-ctrl-delay-ms", 20);
    lm_ask_for_vlan(t, 1, 100);
    g_assert_cmphex(CTRL_STATUS(t), ==, BUSY(1));
    window = lm_read(t, VIRTIO_LM_CTRL_DATA);
    lm_ask_for_vlan(t, 2, 200);
    lm_write(t, VIRTIO_LM_CTRL_DATA + 512, 1);
    g_assert_cmphex(CTRL_STATUS(t), ==, BUSY(1));
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_DATA), ==, window);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_DATA + 512), ==, 0);
    qtest_clock_step(t->qts, 19 * SCALE_MS);
    g_assert_cmphex(CTRL_STATUS(t), ==, BUSY(1));
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 0);
    qtest_clock_step(t->qts, 1 * SCALE_MS);
    g_assert_cmphex(CTRL_STATUS(t), ==, DONE(1));
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 1);
    lm_assert_works(t, 0);

    /* A reset ends it, and a suspend does not */
    lm_ask_for_vlan(t, 3, 300);
    lm_suspend(t);
    qtest_clock_step(t->qts, 20 * SCALE_MS);
    g_assert_cmphex(CTRL_STATUS(t), ==, DONE(3));
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 2);
    lm_ask_for_vlan(t, 4, 400);
    lm_start(t, features);
    g_assert_cmphex(CTRL_STATUS(t), ==, 0);
    qtest_clock_step(t->qts, 100 * SCALE_MS);
    g_assert_cmphex(CTRL_STATUS(t), ==, 0);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 0);

    lm_set(t, "x-lm-ctrl-delay-ms", -1);
    lm_ask_for_vlan(t, 5, 500);
    qtest_clock_step(t->qts, 1000 * NANOSECONDS_PER_SECOND);
    g_assert_cmphex(CTRL_STATUS(t), ==, BUSY(5));
    lm_set(t, "x-lm-ctrl-delay-ms", 0);
    lm_start(t, features);
    g_assert_cmphex(lm_add_vlan(t, 600), ==, VIRTIO_LM_CTRL_OK);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 1);
    lm_free(t);
}

/* DMA */

/* The driver gets a used buffer that nobody has written */
static void test_dma_fault(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t addr[4];
    uint16_t id[4];
    unsigned i, wrong = 0;

    lm_start(t, 0);
    lm_set(t, "x-lm-dma-fault-every", 4);
    for (i = 0; i < ARRAY_SIZE(addr); i++) {
        addr[i] = lm_add_rx(t, 200, &id[i]);
        lm_kick(&t->vq[LM_RX]);
        lm_send(t, 100, i);
        lm_wait_used(&t->vq[LM_RX], id[i]);
        wrong += *(uint8_t *)lm_ptr(t, addr[i] + LM_HDR_LEN) == 0xa5;
    }
    g_assert_cmpuint(wrong, ==, 1);

    lm_set(t, "x-lm-dma-fault-every", 0);
    lm_start(t, 0);
    lm_assert_works(t, 4);
    lm_free(t);
}

/* Interrupts */

/* Each MSI-X vector writes to a word of the page that this returns */
static uint64_t lm_enable_msix(LMTest *t)
{
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_MSIX, 0);
    uint64_t page = lm_pages(t, 1);
    uint32_t table = qpci_config_readl(t->dev, cap + PCI_MSIX_TABLE);
    unsigned i;

    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_0 +
                       4 * (table & PCI_MSIX_TABLE_BIR), MSIX_BAR_ADDR);
    for (i = 0; i < 3; i++) {
        uint64_t entry = MSIX_BAR_ADDR + (table & PCI_MSIX_TABLE_OFFSET) +
                         i * PCI_MSIX_ENTRY_SIZE;

        qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_LOWER_ADDR, page + 4 * i);
        qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
        qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_DATA, MSIX_MAGIC);
        qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
    }
    qpci_config_writew(t->dev, cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);

    lm_negotiate(t, 0);
    for (i = 0; i < 2; i++) {
        lm_queue_init(t, i, 256);
        qtest_writew(t->qts, COMMON(queue_select), i);
        qtest_writew(t->qts, COMMON(queue_msix_vector), i);
        lm_queue_enable(&t->vq[i]);
    }
    qtest_writew(t->qts, COMMON(msix_config), 2);
    lm_driver_ok(t);
    return page;
}

/* Whether vector @n was raised since the last time */
static bool lm_interrupted(LMTest *t, uint64_t page, unsigned n)
{
    uint32_t *word = (uint32_t *)lm_ptr(t, page) + n;
    bool raised = *word == MSIX_MAGIC;

    *word = 0;
    return raised;
}

static void test_irq_drop(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t page = lm_enable_msix(t);
    unsigned i, raised = 0;

    for (i = 0; i < 3; i++) {
        lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, i));
        g_assert_true(lm_interrupted(t, page, LM_TX));
    }
    lm_set(t, "x-lm-irq-drop-every", 3);
    for (i = 0; i < 9; i++) {
        lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, i));
        raised += lm_interrupted(t, page, LM_TX);
    }
    g_assert_cmpuint(raised, ==, 6);
    lm_set(t, "x-lm-irq-drop-every", 1);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, i));
    g_assert_false(lm_interrupted(t, page, LM_TX));
    lm_free(t);
}

static void test_irq_spurious(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t page = lm_enable_msix(t);
    unsigned i, n;

    lm_set(t, "x-lm-irq-spurious-ms", 10);
    for (i = 0; i < 3; i++) {
        qtest_clock_step(t->qts, 9 * SCALE_MS);
        for (n = 0; n < 3; n++) {
            g_assert_false(lm_interrupted(t, page, n));
        }
        qtest_clock_step(t->qts, 1 * SCALE_MS);
        for (n = 0; n < 3; n++) {
            g_assert_true(lm_interrupted(t, page, n));
        }
    }
    lm_set(t, "x-lm-irq-spurious-ms", 0);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    for (n = 0; n < 3; n++) {
        g_assert_false(lm_interrupted(t, page, n));
    }
    lm_free(t);
}

/* Dirty log */

/* A packet over 9 pages that are written in order; its first page */
static uint64_t lm_rx_9_pages(LMTest *t, uint32_t seq)
{
    uint32_t len = 9 * LM_PAGE - LM_HDR_LEN;
    uint16_t id;
    uint64_t addr = lm_add_rx(t, 9 * LM_PAGE, &id);

    lm_kick(&t->vq[LM_RX]);
    lm_send(t, len, seq);
    lm_expect_rx(t, addr, id, len, seq);
    return addr;
}

static unsigned lm_logged_of_9(LMTest *t, uint64_t addr)
{
    unsigned i, logged = 0;

    for (i = 0; i < 9; i++) {
        logged += lm_logged(t, addr + i * LM_PAGE);
    }
    return logged;
}

static void test_drop_log(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start(t, 0);
    lm_log_start(t);
    g_assert_cmpuint(lm_logged_of_9(t, lm_rx_9_pages(t, 0)), ==, 9);
    lm_set(t, "x-lm-drop-log-every", 3);
    g_assert_cmpuint(lm_logged_of_9(t, lm_rx_9_pages(t, 1)), ==, 6);
    lm_set(t, "x-lm-drop-log-every", 1);
    g_assert_cmpuint(lm_logged_of_9(t, lm_rx_9_pages(t, 2)), ==, 0);
    /* It does not know */
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, VIRTIO_LM_STATUS_LOGGING);
    lm_set(t, "x-lm-drop-log-every", 0);
    g_assert_cmpuint(lm_logged_of_9(t, lm_rx_9_pages(t, 3)), ==, 9);
    lm_free(t);
}

static unsigned lm_bits(LMTest *t)
{
    unsigned bits = 0;
    uint64_t byte;

    for (byte = t->base; byte < t->end; byte++) {
        bits += ctpop8(*(uint8_t *)lm_ptr(t, byte));
    }
    return bits;
}

static void test_log_fault_after(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,x-lm-log-fault-after=5");
    unsigned round;

    lm_start(t, 0);
    for (round = 0; round < 2; round++) {
        /* Each log has as many */
        lm_log_start(t);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                        VIRTIO_LM_STATUS_LOGGING);
        lm_rx_9_pages(t, round);
        g_assert_cmpuint(lm_bits(t), ==, 5);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                        VIRTIO_LM_STATUS_LOGGING | VIRTIO_LM_STATUS_LOG_FAULT);
        lm_write(t, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
    }
    lm_free(t);
}

void lm_add_hostile_tests(void)
{
    qtest_add_func("/virtio-lm/hostile/needs-vdpa", test_needs_vdpa);
    qtest_add_func("/virtio-lm/hostile/range", test_range);
    qtest_add_func("/virtio-lm/hostile/command-line", test_command_line);
    qtest_add_func("/virtio-lm/hostile/num-queues", test_num_queues);
    qtest_add_func("/virtio-lm/hostile/notify-off", test_notify_off);
    qtest_add_func("/virtio-lm/hostile/caps", test_caps);
    qtest_add_func("/virtio-lm/hostile/truncate", test_truncate);
    qtest_add_func("/virtio-lm/hostile/config-unsettled",
                   test_config_unsettled);
    qtest_add_func("/virtio-lm/hostile/gone", test_gone);
    qtest_add_func("/virtio-lm/hostile/gone-from-start", test_gone_from_start);
    qtest_add_func("/virtio-lm/hostile/unplug-gone", test_unplug_gone);
    qtest_add_func("/virtio-lm/hostile/random", test_random);
    qtest_add_func("/virtio-lm/hostile/ring-drift", test_ring_drift);
    qtest_add_func("/virtio-lm/hostile/reset-fail", test_reset_fail);
    qtest_add_func("/virtio-lm/hostile/suspend-delay", test_suspend_delay);
    qtest_add_func("/virtio-lm/hostile/resume-fail", test_resume_fail);
    qtest_add_func("/virtio-lm/hostile/ctrl-needs-mailbox",
                   test_ctrl_needs_mailbox);
    qtest_add_func("/virtio-lm/hostile/ctrl-error", test_ctrl_error);
    qtest_add_func("/virtio-lm/hostile/ctrl-delay", test_ctrl_delay);
    qtest_add_func("/virtio-lm/hostile/dma-fault", test_dma_fault);
    qtest_add_func("/virtio-lm/hostile/irq-drop", test_irq_drop);
    qtest_add_func("/virtio-lm/hostile/irq-spurious", test_irq_spurious);
    qtest_add_func("/virtio-lm/hostile/drop-log", test_drop_log);
    qtest_add_func("/virtio-lm/hostile/log-fault-after", test_log_fault_after);
}
