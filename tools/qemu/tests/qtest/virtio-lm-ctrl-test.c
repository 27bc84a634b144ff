/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: the control
 * mailbox
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "virtio-lm-common.h"

#define OK VIRTIO_LM_CTRL_OK
#define ERR VIRTIO_LM_CTRL_ERR

#define FILTERS (LM_BIT(VIRTIO_NET_F_CTRL_VQ) | LM_BIT(VIRTIO_NET_F_CTRL_RX) | \
                 LM_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | \
                 LM_BIT(VIRTIO_NET_F_CTRL_VLAN) | \
                 LM_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR))

#define PAIRS (LM_BIT(VIRTIO_NET_F_CTRL_VQ) | LM_BIT(VIRTIO_NET_F_MQ))

/* One whose data queues run, and whose control queue has no ring */
static void lm_start_data(LMTest *t, uint64_t features)
{
    unsigned n;

    lm_negotiate(t, features);
    for (n = LM_RX; n <= LM_TX; n++) {
        lm_queue_init(t, n, 256);
        lm_queue_enable(&t->vq[n]);
    }
    lm_driver_ok(t);
}

static uint8_t lm_ctrl_u8(LMTest *t, uint8_t class, uint8_t cmd, uint8_t val)
{
    return lm_ctrl(t, class, cmd, &val, sizeof(val));
}

static uint8_t lm_ctrl_u16(LMTest *t, uint8_t class, uint8_t cmd, uint16_t val)
{
    val = cpu_to_le16(val);
    return lm_ctrl(t, class, cmd, &val, sizeof(val));
}

static uint8_t lm_ctrl_pairs(LMTest *t, uint16_t pairs)
{
    return lm_ctrl_u16(t, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
                       pairs);
}

static void lm_assert_filter(LMTest *t, const char *key, const char *val)
{
    QDict *filter = lm_rx_filter(t);

    g_assert_cmpstr(qdict_get_str(filter, key), ==, val);
    qobject_unref(filter);
}

/* Registers */

static void test_capability(void)
{
    static const char *const without[] = {
        "vdpa=on,lm-ctrl=off",
        "vdpa=on,ctrl_vq=off,ctrl_rx=off,ctrl_vlan=off,ctrl_rx_extra=off,"
        "ctrl_mac_addr=off,ctrl_guest_offloads=off,guest_announce=off",
    };
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t reg;
    unsigned i;

    g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS) & VIRTIO_LM_CAP_CTRL, !=, 0);
    g_assert_cmpuint(lm_read(t, VIRTIO_LM_CTRL_SIZE), >=, 1024);
    lm_free(t);

    for (i = 0; i < ARRAY_SIZE(without); i++) {
        t = lm_new(LM_ON_ROOT_BUS, without[i]);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_CAPS), ==, 0x4d4c0107);
        for (reg = VIRTIO_LM_SIZE; reg < VIRTIO_LM_CTRL_DATA + 1024; reg += 4) {
            lm_write(t, reg, 2);
            g_assert_cmphex(lm_read(t, reg), ==, 0);
        }
        lm_free(t);
    }
}

static void test_registers(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint32_t size = lm_read(t, VIRTIO_LM_CTRL_SIZE);
    uint64_t reg, end = VIRTIO_LM_CTRL_DATA + size;

    /* Nothing was asked for yet */
    for (reg = VIRTIO_LM_CTRL_RUN; reg < end; reg += 4) {
        g_assert_cmphex(lm_read(t, reg), ==, 0);
    }
    for (reg = VIRTIO_LM_CTRL_DATA; reg < end; reg += 4) {
        lm_write(t, reg, 0xabcd0000 | reg);
    }
    for (reg = VIRTIO_LM_CTRL_DATA; reg < end; reg += 4) {
        g_assert_cmphex(lm_read(t, reg), ==, 0xabcd0000 | reg);
    }
    /* The ring states before them are others */
    g_assert_cmphex(lm_ring_state(t, VIRTIO_LM_MAX_VQS - 1), ==, 0);

    for (reg = VIRTIO_LM_CTRL_SIZE; reg < VIRTIO_LM_CTRL_DATA; reg += 4) {
        if (reg != VIRTIO_LM_CTRL_RUN) {
            lm_write(t, reg, 0xffffffff);
        }
        qtest_writeb(t->qts, t->lm + reg, 2);
        qtest_writew(t->qts, t->lm + reg, 2);
        qtest_writeq(t->qts, t->lm + reg, 2);
        g_assert_cmphex(lm_read(t, reg), ==,
                        reg == VIRTIO_LM_CTRL_SIZE ? size : 0);
    }
    qtest_writeb(t->qts, t->lm + VIRTIO_LM_CTRL_DATA, 2);
    qtest_writeq(t->qts, t->lm + end - 8, 2);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_DATA), ==,
                    0xabcd0000 | VIRTIO_LM_CTRL_DATA);
    g_assert_cmphex(lm_read(t, end - 4), ==, 0xabcd0000 | (end - 4));
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_STATUS), ==, 0);
    lm_free(t);
}

static void test_pci_cfg_window(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint8_t cap = lm_pci_cap(t, VIRTIO_PCI_CAP_PCI_CFG);

    qpci_config_writeb(t->dev, cap + offsetof(struct virtio_pci_cap, bar), 4);
    qpci_config_writel(t->dev, cap + offsetof(struct virtio_pci_cap, offset),
                       (t->lm & 0xffff) + VIRTIO_LM_CTRL_SIZE);
    qpci_config_writel(t->dev, cap + offsetof(struct virtio_pci_cap, length),
                       4);
    g_assert_cmphex(qpci_config_readl(t->dev,
                                      cap + sizeof(struct virtio_pci_cap)), ==,
                    lm_read(t, VIRTIO_LM_CTRL_SIZE));
    lm_free(t);
}

/* When */

static void test_from_features_ok(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 0), ==, ERR);
    lm_set_status(t, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 0), ==, ERR);
    lm_negotiate(t, FILTERS);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 0), ==, OK);
    lm_free(t);
}

/* The features are negotiated, but no control queue */
static void test_without_feature(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,mq=on");
    const uint64_t offloads = 0;

    lm_start_data(t, 0);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 0), ==, ERR);
    lm_start_data(t, LM_BIT(VIRTIO_NET_F_CTRL_VQ));
    g_assert_cmphex(lm_ctrl_pairs(t, 1), ==, ERR);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
                            VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads,
                            sizeof(offloads)), ==, ERR);
    lm_start_data(t, PAIRS);
    g_assert_cmphex(lm_ctrl_pairs(t, 1), ==, OK);
    lm_free(t);
}

/* Its control queue would not answer either */
static void test_needs_reset(void)
{
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start_data(t, FILTERS);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 0), ==, OK);
    /* No header, and no memory */
    lm_add_buf(&t->vq[LM_TX], LM_RAM_SIZE * 2, 4, false);
    lm_kick(&t->vq[LM_TX]);
    while (!(lm_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 1), ==, ERR);
    lm_start_data(t, FILTERS);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 1), ==, OK);
    lm_free(t);
}

/* It is executed, and nothing is touched but what it is about */
static void test_suspended(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t addr;
    uint16_t id;

    lm_start_data(t, FILTERS);
    addr = lm_add_rx(t, 200, &id);
    lm_kick(&t->vq[LM_RX]);
    lm_suspend(t);
    lm_add_tx(t, 60, 1, 1);
    lm_snapshot(t);
    lm_send(t, 100, 2);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_ALLMULTI, 1), ==, OK);
    lm_assert_filter(t, "multicast", "all");
    lm_expect_no_tx(t);
    lm_assert_untouched(t);
    g_assert_cmphex(lm_ring_state(t, LM_RX), ==, 0);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0);

    lm_resume(t);
    lm_expect_tx(t, 60, 1);
    lm_expect_rx(t, addr, id, 100, 2);
    lm_assert_filter(t, "multicast", "all");
    lm_free(t);
}

/* Commands write nothing to guest memory, so there is nothing to log */
static void test_no_dma(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    unsigned i;

    lm_start_data(t, FILTERS);
    lm_log_start(t);
    lm_snapshot(t);
    for (i = 0; i < 300; i++) {
        g_assert_cmphex(lm_ctrl_u16(t, VIRTIO_NET_CTRL_VLAN,
                                    VIRTIO_NET_CTRL_VLAN_ADD, i), ==, OK);
    }
    g_assert_cmpuint(lm_check_log(t), ==, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, VIRTIO_LM_STATUS_LOGGING);
    g_assert_cmphex(qtest_readb(t->qts, t->isr), ==, 0);
    lm_free(t);
}

/* Commands on VLANs need no VIRTIO_NET_F_CTRL_VLAN, whose change sets them up */
static void test_vlans_after_reset(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    unsigned all;

    lm_start_data(t, LM_BIT(VIRTIO_NET_F_CTRL_VQ));
    all = lm_filter_len(t, "vlan-table");
    g_assert_cmphex(lm_ctrl_u16(t, VIRTIO_NET_CTRL_VLAN,
                                VIRTIO_NET_CTRL_VLAN_DEL, 100), ==, OK);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, all - 1);
    lm_set_status(t, 0);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, all);
    lm_free(t);
}

/* The block's reset is the mailbox's, the device's is the filters' */
static void test_reset(const void *flr)
{
    LMTest *t = lm_new(LM_ON_ROOT_PORT, "vdpa=on");
    static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
    uint64_t reg, end = VIRTIO_LM_CTRL_DATA + lm_read(t, VIRTIO_LM_CTRL_SIZE);

    lm_start_data(t, FILTERS);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MAC,
                            VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), ==, OK);
    lm_write(t, end - 4, 0x12345678);
    if (flr) {
        uint8_t exp = qpci_find_capability(t->dev, PCI_CAP_ID_EXP, 0);

        qpci_config_writew(t->dev, exp + PCI_EXP_DEVCTL,
                           PCI_EXP_DEVCTL_BCR_FLR);
        lm_pci_map(t);
    } else {
        lm_set_status(t, 0);
    }
    for (reg = VIRTIO_LM_CTRL_RUN; reg < end; reg += 4) {
        g_assert_cmphex(lm_read(t, reg), ==, 0);
    }
    lm_assert_filter(t, "main-mac", "52:54:00:12:34:56");
    lm_free(t);
}

/* What */

static void test_rx_modes(void)
{
    static const struct {
        uint8_t cmd;
        const char *key, *off, *on;
    } modes[] = {
        { VIRTIO_NET_CTRL_RX_ALLMULTI, "multicast", "normal", "all" },
        { VIRTIO_NET_CTRL_RX_ALLUNI, "unicast", "normal", "all" },
        { VIRTIO_NET_CTRL_RX_NOMULTI, "multicast", "normal", "none" },
        { VIRTIO_NET_CTRL_RX_NOUNI, "unicast", "normal", "none" },
    };
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    QDict *filter;
    unsigned i;

    lm_start_data(t, FILTERS);
    for (i = 0; i < ARRAY_SIZE(modes); i++) {
        lm_assert_filter(t, modes[i].key, modes[i].off);
        g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX, modes[i].cmd, 1), ==,
                        OK);
        lm_assert_filter(t, modes[i].key, modes[i].on);
        g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX, modes[i].cmd, 0), ==,
                        OK);
    }
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX,
                               VIRTIO_NET_CTRL_RX_PROMISC, 0), ==, OK);
    filter = lm_rx_filter(t);
    g_assert_false(qdict_get_bool(filter, "promiscuous"));
    qobject_unref(filter);
    g_assert_cmphex(lm_ctrl_u8(t, VIRTIO_NET_CTRL_RX, 6, 1), ==, ERR);
    lm_free(t);
}

/* The configuration shows the address that is in force */
static void test_mac(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
    uint8_t config[6];

    lm_start_data(t, FILTERS);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MAC,
                            VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 5), ==, ERR);
    lm_assert_filter(t, "main-mac", "52:54:00:12:34:56");
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MAC,
                            VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), ==, OK);
    lm_assert_filter(t, "main-mac", "52:54:00:01:02:03");
    qtest_memread(t->qts, t->config, config, sizeof(config));
    g_assert_cmpmem(config, sizeof(config), mac, sizeof(mac));
    lm_free(t);
}

/* @uni and @multi addresses; how long the command's data is */
static unsigned lm_mac_table(uint8_t *data, uint32_t uni, uint32_t multi)
{
    uint8_t *p = data;
    unsigned i;

    stl_le_p(p, uni);
    p += 4;
    for (i = 0; i < uni; i++, p += 6) {
        memcpy(p, "\x52\x54\x01", 3);
        stw_be_p(p + 3, i);
        p[5] = 0;
    }
    stl_le_p(p, multi);
    p += 4;
    for (i = 0; i < multi; i++, p += 6) {
        memcpy(p, "\x01\x00\x5e", 3);
        stw_be_p(p + 3, i);
        p[5] = 0;
    }
    return p - data;
}

static void test_mac_table(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint32_t size = lm_read(t, VIRTIO_LM_CTRL_SIZE);
    g_autofree uint8_t *data = g_malloc(size);
    QDict *filter;
    unsigned len;

    lm_start_data(t, FILTERS);
    len = lm_mac_table(data, 3, 61);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MAC,
                            VIRTIO_NET_CTRL_MAC_TABLE_SET, data, len), ==, OK);
    g_assert_cmpuint(lm_filter_len(t, "unicast-table"), ==, 3);
    g_assert_cmpuint(lm_filter_len(t, "multicast-table"), ==, 61);
    /* It lacks its last byte */
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MAC,
                            VIRTIO_NET_CTRL_MAC_TABLE_SET, data, len - 1), ==,
                    ERR);
    g_assert_cmpuint(lm_filter_len(t, "multicast-table"), ==, 61);

    /* The longest one that has room: more than the device keeps */
    len = lm_mac_table(data, 64, (size - 10) / 6 - 64);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MAC,
                            VIRTIO_NET_CTRL_MAC_TABLE_SET, data, len), ==, OK);
    filter = lm_rx_filter(t);
    g_assert_true(qdict_get_bool(filter, "multicast-overflow"));
    qobject_unref(filter);
    g_assert_cmpuint(lm_filter_len(t, "unicast-table"), ==, 64);
    lm_free(t);
}

static void test_vlan(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    static const uint16_t vid[] = { 1, 100, 4095 };
    unsigned i;

    lm_start_data(t, FILTERS);
    lm_assert_filter(t, "vlan", "none");
    for (i = 0; i < ARRAY_SIZE(vid); i++) {
        g_assert_cmphex(lm_ctrl_u16(t, VIRTIO_NET_CTRL_VLAN,
                                    VIRTIO_NET_CTRL_VLAN_ADD, vid[i]), ==, OK);
    }
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 3);
    g_assert_cmphex(lm_ctrl_u16(t, VIRTIO_NET_CTRL_VLAN,
                                VIRTIO_NET_CTRL_VLAN_DEL, 100), ==, OK);
    g_assert_cmphex(lm_ctrl_u16(t, VIRTIO_NET_CTRL_VLAN,
                                VIRTIO_NET_CTRL_VLAN_ADD, 4096), ==, ERR);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 2);
    lm_free(t);
}

static void lm_announce_self(LMTest *t)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'announce-self', "
                             "'arguments': {'initial': 50, 'max': 50, "
                             "'rounds': 1, 'step': 0}}");
}

static void test_announce(void)
{
    const uint64_t status = offsetof(struct virtio_net_config, status);
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start_data(t, FILTERS | LM_BIT(VIRTIO_NET_F_STATUS) |
                  LM_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_ANNOUNCE,
                            VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0), ==, ERR);
    lm_announce_self(t);
    g_assert_cmphex(qtest_readw(t->qts, t->config + status) &
                    VIRTIO_NET_S_ANNOUNCE, !=, 0);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_ANNOUNCE,
                            VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0), ==, OK);
    g_assert_cmphex(qtest_readw(t->qts, t->config + status) &
                    VIRTIO_NET_S_ANNOUNCE, ==, 0);
    lm_free(t);
}

/* With as many entries as there can be, and the longest key */
static void test_rss(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,rss=on");
    uint8_t data[8 + 128 * 2 + 3 + 40] = {};

    stl_le_p(data, VIRTIO_NET_RSS_HASH_TYPE_UDPv4);
    stw_le_p(data + 4, 128 - 1);
    stw_le_p(data + 8 + 128 * 2, 1);
    data[8 + 128 * 2 + 2] = 40;

    lm_start_data(t, FILTERS);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MQ,
                            VIRTIO_NET_CTRL_MQ_RSS_CONFIG, data, sizeof(data)),
                    ==, ERR);
    lm_start_data(t, FILTERS | LM_BIT(VIRTIO_NET_F_RSS));
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MQ,
                            VIRTIO_NET_CTRL_MQ_RSS_CONFIG, data,
                            sizeof(data) - 1), ==, ERR);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_MQ,
                            VIRTIO_NET_CTRL_MQ_RSS_CONFIG, data, sizeof(data)),
                    ==, OK);
    lm_free(t);
}

/* A backend that puts headers before its packets is what they need */
static void test_offloads(void)
{
    LMTest *t = lm_new_tap(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t offloads = cpu_to_le64(LM_BIT(VIRTIO_NET_F_GUEST_CSUM));

    if (!t) {
        return;
    }
    lm_start_data(t, FILTERS | LM_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
                  LM_BIT(VIRTIO_NET_F_GUEST_CSUM));
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
                            VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads,
                            sizeof(offloads)), ==, OK);
    offloads = cpu_to_le64(LM_BIT(VIRTIO_NET_F_GUEST_TSO4));
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
                            VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads,
                            sizeof(offloads)), ==, ERR);
    lm_free(t);
}

/* What no command is: an error, and no reason for a reset */
static void test_no_command(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint32_t size = lm_read(t, VIRTIO_LM_CTRL_SIZE);
    const uint32_t len[] = { 0, 1, size + 1, VIRTIO_LM_CTRL_LEN_MASK };
    unsigned i;

    lm_start_data(t, FILTERS);
    for (i = 0; i < ARRAY_SIZE(len); i++) {
        lm_write(t, VIRTIO_LM_CTRL_RUN, 0xabcd0000 | len[i]);
        g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_STATUS), ==, 0xabcd0000 |
                        VIRTIO_LM_CTRL_DONE | VIRTIO_LM_CTRL_ERR);
    }
    g_assert_cmphex(lm_ctrl_u8(t, 99, 0, 0), ==, ERR);
    g_assert_cmphex(lm_ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC,
                            NULL, 0), ==, ERR);
    g_assert_cmphex(lm_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_expect_tx(t, 60, 0);
    lm_free(t);
}

/* As the control queue */

static uint8_t lm_cvq(LMTest *t, uint8_t class, uint8_t cmd,
                      const void *data, unsigned len)
{
    uint64_t addr = lm_pages(t, 1);
    const LMSeg segs[] = {
        { addr, 2 + len, false },
        { addr + LM_PAGE - 1, 1, true },
    };
    uint16_t id;

    *(uint8_t *)lm_ptr(t, addr) = class;
    *(uint8_t *)lm_ptr(t, addr + 1) = cmd;
    memcpy(lm_ptr(t, addr + 2), data, len);
    id = lm_add(&t->vq[LM_CVQ], segs, ARRAY_SIZE(segs), false);
    lm_kick(&t->vq[LM_CVQ]);
    lm_wait_used(&t->vq[LM_CVQ], id);
    return *(uint8_t *)lm_ptr(t, addr + LM_PAGE - 1);
}

/* A command that may be right; how long its data is */
static unsigned lm_random_command(GRand *rand, uint8_t *class, uint8_t *cmd,
                                  uint8_t *data)
{
    unsigned i, len = 0;

    for (i = 0; i < 1200; i++) {
        data[i] = g_rand_int(rand);
    }
    *class = g_rand_int_range(rand, 0, 7);
    *cmd = g_rand_int_range(rand, 0, 3);
    switch (*class) {
    case VIRTIO_NET_CTRL_RX:
        *cmd = g_rand_int_range(rand, 0, 7);
        len = 1;
        break;
    case VIRTIO_NET_CTRL_MAC:
        len = *cmd ? 6 : lm_mac_table(data, g_rand_int_range(rand, 0, 80),
                                      g_rand_int_range(rand, 0, 80));
        break;
    case VIRTIO_NET_CTRL_VLAN:
        stw_le_p(data, g_rand_int_range(rand, 0, 5000));
        len = 2;
        break;
    case VIRTIO_NET_CTRL_MQ:
        stw_le_p(data, g_rand_int_range(rand, 0, 3));
        len = 2;
        if (*cmd == VIRTIO_NET_CTRL_MQ_RSS_CONFIG) {
            memset(data, 0, 8 + 2 + 3);
            data[0] = 2;
            data[10] = 1;
            data[12] = 40;
            len = 8 + 2 + 3 + 40;
        }
        break;
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        len = 8;
        break;
    }
    return g_rand_int_range(rand, 0, 8) ? len : g_rand_int_range(rand, 0, 60);
}

/* Whatever is asked for: the same ack, and the same state */
static void test_as_control_queue(void)
{
    const uint64_t features = FILTERS | LM_BIT(VIRTIO_NET_F_MQ) |
                              LM_BIT(VIRTIO_NET_F_RSS) |
                              LM_BIT(VIRTIO_NET_F_STATUS) |
                              LM_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);
    LMTest *queue = lm_new(LM_ON_ROOT_BUS, "vdpa=on,mq=on,rss=on");
    LMTest *mailbox = lm_new(LM_ON_ROOT_BUS, "vdpa=on,mq=on,rss=on");
    g_autoptr(GRand) rand = lm_rand();
    unsigned i, ok = 0, num = 500;

    lm_start(queue, features);
    lm_start_data(mailbox, features);
    lm_announce_self(queue);
    lm_announce_self(mailbox);
    for (i = 0; i < num; i++) {
        uint8_t class, cmd, data[1200], config_queue[12], config_mailbox[12];
        unsigned len = lm_random_command(rand, &class, &cmd, data);
        uint8_t ack = lm_cvq(queue, class, cmd, data, len);

        if (lm_ctrl(mailbox, class, cmd, data, len) != ack) {
            g_error("command %u of class %u with %u bytes: the control queue "
                    "acks it with %u", cmd, class, len, ack);
        }
        ok += ack == OK;
        if (i % 20 == 0) {
            QDict *of_queue = lm_rx_filter(queue);
            QDict *of_mailbox = lm_rx_filter(mailbox);

            g_assert_true(qobject_is_equal(QOBJECT(of_queue),
                                           QOBJECT(of_mailbox)));
            qobject_unref(of_queue);
            qobject_unref(of_mailbox);
            qtest_memread(queue->qts, queue->config, config_queue, 12);
            qtest_memread(mailbox->qts, mailbox->config, config_mailbox, 12);
            g_assert_cmpmem(config_queue, 12, config_mailbox, 12);
        }
    }
    g_assert_cmpuint(ok, >, num / 10);
    g_assert_cmpuint(ok, <, num);
    lm_free(queue);
    lm_free(mailbox);
}

/* Queue pairs */

#define RX_BUFS 240
#define RX_LEN 2048

static void lm_start_pairs(LMTest *t, unsigned num)
{
    unsigned n, i;

    for (n = 0; n < num; n++) {
        lm_queue_init(t, n, 256);
        lm_queue_enable(&t->vq[n]);
    }
    for (n = 0; n < num; n += 2) {
        uint64_t addr = lm_pages(t, RX_BUFS * RX_LEN / LM_PAGE);

        for (i = 0; i < RX_BUFS; i++) {
            lm_add_buf(&t->vq[n], addr + i * RX_LEN, RX_LEN, true);
        }
    }
}

/* Packets of as many flows; the tap spreads them over its queues */
static void lm_send_flows(LMTest *t, unsigned num)
{
    static const uint8_t headers[42] = {
        0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x52, 0x54, 0x00, 0x12, 0x34, 0x57,
        0x08, 0x00,
        0x45, 0x00, 0x00, 46, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00,
        10, 0, 0, 1, 10, 0, 0, 2,
        0x00, 0x00, 0x30, 0x39, 0x00, 26, 0x00, 0x00,
    };
    static uint16_t port;
    unsigned i;

    for (i = 0; i < num; i++) {
        uint8_t frame[60] = {};

        memcpy(frame, headers, sizeof(headers));
        stw_be_p(frame + 34, 1024 + port++);
        g_assert_cmpint(send(t->net, frame, sizeof(frame), 0), ==,
                        sizeof(frame));
    }
}

static unsigned lm_used(LMTest *t, unsigned n)
{
    return lm_ring_state(t, n) >> 16;
}

/* Send them, and see how many of them each receive queue gets */
static void lm_flows(LMTest *t, unsigned num, unsigned got[2])
{
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    unsigned first = lm_used(t, LM_RX), second = lm_used(t, LM_RX1);

    lm_send_flows(t, num);
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        got[0] = lm_used(t, LM_RX) - first;
        got[1] = lm_used(t, LM_RX1) - second;
    } while (got[0] + got[1] < num);
    g_assert_cmpuint(got[0] + got[1], ==, num);
}

static void lm_assert_settled(LMTest *t, unsigned num)
{
    unsigned n;

    for (n = 0; n < num; n++) {
        uint32_t state = lm_ring_state(t, n);

        g_assert_cmphex(state & VIRTIO_LM_RING_STATE_AVAIL_MASK, ==,
                        state >> VIRTIO_LM_RING_STATE_USED_SHIFT);
    }
}

/* Each of them receives, sends, is suspended and logged */
static void test_pairs(void)
{
    const uint64_t max = offsetof(struct virtio_net_config,
                                  max_virtqueue_pairs);
    LMTest *t = lm_new_tap_pairs(LM_ON_ROOT_BUS, "vdpa=on,mq=on");
    int64_t deadline = g_get_monotonic_time() + 2 * LM_DEADLINE_US;
    unsigned got[2], n, before;
    uint64_t tx;

    if (!t) {
        return;
    }
    lm_negotiate(t, PAIRS);
    g_assert_cmpuint(qtest_readw(t->qts, t->config + max), ==, 2);
    lm_start_pairs(t, 4);
    tx = lm_pages(t, 1);
    memset(lm_ptr(t, tx), 0, LM_HDR_LEN);
    lm_fill(lm_ptr(t, tx + LM_HDR_LEN), 60, 1);
    lm_add_buf(&t->vq[LM_TX1], tx, LM_HDR_LEN + 60, false);
    lm_log_start(t);
    lm_poison(t);
    lm_snapshot(t);
    g_assert_cmphex(lm_ctrl_pairs(t, 2), ==, OK);
    lm_driver_ok(t);
    lm_expect_tx(t, 60, 1);
    lm_flows(t, 40, got);
    g_assert_cmpuint(got[0], >, 0);
    g_assert_cmpuint(got[1], >, 0);

    g_assert_cmphex(lm_ctrl_pairs(t, 1), ==, OK);
    lm_flows(t, 40, got);
    g_assert_cmpuint(got[1], ==, 0);
    g_assert_cmphex(lm_ctrl_pairs(t, 0), ==, ERR);
    g_assert_cmphex(lm_ctrl_pairs(t, 3), ==, ERR);
    g_assert_cmphex(lm_ctrl_pairs(t, 2), ==, OK);
    lm_flows(t, 40, got);
    g_assert_cmpuint(got[0], >, 0);
    g_assert_cmpuint(got[1], >, 0);
    g_assert_cmpuint(qtest_readw(t->qts, t->config + max), ==, 2);

    lm_suspend(t);
    lm_assert_settled(t, 4);
    g_assert_cmpuint(lm_used(t, LM_TX1), ==, 1);
    g_assert_cmpuint(lm_check_log(t), >, 0);
    for (n = 0; n < 4; n += 2) {
        g_assert_true(lm_logged(t, t->vq[n].used));
    }
    before = lm_used(t, LM_RX) + lm_used(t, LM_RX1);

    /* More and fewer of them, and packets: all that waits for the resume */
    lm_send_flows(t, 20);
    g_assert_cmphex(lm_ctrl_pairs(t, 1), ==, OK);
    g_assert_cmphex(lm_ctrl_pairs(t, 2), ==, OK);
    lm_send_flows(t, 20);
    lm_settle(t);
    g_assert_cmpuint(lm_used(t, LM_RX) + lm_used(t, LM_RX1), ==, before);
    g_assert_cmphex(lm_ctrl_pairs(t, 1), ==, OK);
    lm_resume(t);
    before = lm_used(t, LM_RX1);
    n = lm_used(t, LM_RX);
    lm_send_flows(t, 20);
    while (lm_used(t, LM_RX) - n < 20) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    g_assert_cmpuint(lm_used(t, LM_RX1), ==, before);

    lm_suspend(t);
    lm_assert_settled(t, 4);
    g_assert_cmpuint(lm_check_log(t), >, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_LOGGING | VIRTIO_LM_STATUS_SUSPENDED);
    lm_free(t);
}

/* The number is in force for the driver that starts now, and ends with it */
static void test_pairs_before_driver_ok(void)
{
    LMTest *t = lm_new_tap_pairs(LM_ON_ROOT_BUS, "vdpa=on,mq=on");
    unsigned got[2];

    if (!t) {
        return;
    }
    lm_negotiate(t, PAIRS);
    g_assert_cmphex(lm_ctrl_pairs(t, 2), ==, OK);
    lm_start_pairs(t, 4);
    lm_driver_ok(t);
    lm_flows(t, 40, got);
    g_assert_cmpuint(got[0], >, 0);
    g_assert_cmpuint(got[1], >, 0);

    lm_negotiate(t, PAIRS);
    lm_start_pairs(t, 4);
    lm_driver_ok(t);
    lm_flows(t, 40, got);
    g_assert_cmpuint(got[1], ==, 0);
    lm_free(t);
}

/*
 * Without a reset a driver may negotiate anew while no queue has a ring. Where
 * the second pair was, there is the control queue then.
 */
static void test_pairs_end_with_feature(void)
{
    LMTest *t = lm_new_tap_pairs(LM_ON_ROOT_BUS, "vdpa=on,mq=on");
    const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
    unsigned got[2];

    if (!t) {
        return;
    }
    lm_negotiate(t, PAIRS);
    g_assert_cmphex(lm_ctrl_pairs(t, 2), ==, OK);
    lm_set_status(t, driver);
    qtest_writel(t->qts, t->common + offsetof(struct virtio_pci_common_cfg,
                                              guest_feature_select), 0);
    qtest_writel(t->qts, t->common + offsetof(struct virtio_pci_common_cfg,
                                              guest_feature),
                 LM_BIT(VIRTIO_NET_F_CTRL_VQ));
    t->features &= ~LM_BIT(VIRTIO_NET_F_MQ);
    lm_set_status(t, driver | VIRTIO_CONFIG_S_FEATURES_OK);
    lm_start_pairs(t, 2);
    lm_queue_init(t, LM_CVQ, 64);
    lm_queue_enable(&t->vq[LM_CVQ]);
    lm_driver_ok(t);
    lm_flows(t, 40, got);
    g_assert_cmpuint(got[1], ==, 0);
    lm_free(t);
}

void lm_add_ctrl_tests(void)
{
    qtest_add_func("/virtio-lm/ctrl/capability", test_capability);
    qtest_add_func("/virtio-lm/ctrl/registers", test_registers);
    qtest_add_func("/virtio-lm/ctrl/pci-cfg-window", test_pci_cfg_window);
    qtest_add_func("/virtio-lm/ctrl/from-features-ok", test_from_features_ok);
    qtest_add_func("/virtio-lm/ctrl/without-feature", test_without_feature);
    qtest_add_func("/virtio-lm/ctrl/needs-reset", test_needs_reset);
    qtest_add_func("/virtio-lm/ctrl/suspended", test_suspended);
    qtest_add_func("/virtio-lm/ctrl/no-dma", test_no_dma);
    qtest_add_func("/virtio-lm/ctrl/vlans-after-reset",
                   test_vlans_after_reset);
    qtest_add_data_func("/virtio-lm/ctrl/reset", NULL, test_reset);
    qtest_add_data_func("/virtio-lm/ctrl/flr", "flr", test_reset);
    qtest_add_func("/virtio-lm/ctrl/rx-modes", test_rx_modes);
    qtest_add_func("/virtio-lm/ctrl/mac", test_mac);
    qtest_add_func("/virtio-lm/ctrl/mac-table", test_mac_table);
    qtest_add_func("/virtio-lm/ctrl/vlan", test_vlan);
    qtest_add_func("/virtio-lm/ctrl/announce", test_announce);
    qtest_add_func("/virtio-lm/ctrl/rss", test_rss);
    qtest_add_func("/virtio-lm/ctrl/offloads", test_offloads);
    qtest_add_func("/virtio-lm/ctrl/no-command", test_no_command);
    qtest_add_func("/virtio-lm/ctrl/as-control-queue", test_as_control_queue);
    qtest_add_func("/virtio-lm/ctrl/pairs", test_pairs);
    qtest_add_func("/virtio-lm/ctrl/pairs-before-driver-ok",
                   test_pairs_before_driver_ok);
    qtest_add_func("/virtio-lm/ctrl/pairs-end-with-feature",
                   test_pairs_end_with_feature);
}
