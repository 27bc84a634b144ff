/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: migration
 * of the machine that the device is part of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "virtio-lm-common.h"

#define PACKED LM_BIT(VIRTIO_F_RING_PACKED)

/* Files */

static char *lm_state_file(void)
{
    static unsigned count;

    return g_strdup_printf("%s/virtio-lm-%d-%u.state", g_get_tmp_dir(),
                           getpid(), count++);
}

static bool lm_wait_migration(LMTest *t)
{
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;

    for (;;) {
        QDict *rsp = qtest_qmp_assert_success_ref(t->qts,
                                                  "{'execute':"
                                                  " 'query-migrate'}");
        const char *status = qdict_get_try_str(rsp, "status");
        bool completed = !g_strcmp0(status, "completed");
        bool failed = !g_strcmp0(status, "failed");

        qobject_unref(rsp);
        if (completed || failed) {
            return completed;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(1000);
    }
}

static void lm_save(LMTest *t, const char *path)
{
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    qtest_qmp_assert_success(t->qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
    g_assert_true(lm_wait_migration(t));
}

/* A QEMU with @props loads what @src saved in @path; false if it refuses */
static bool lm_load(LMTest **t, LMTest *src, const char *props,
                    const char *path)
{
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    *t = lm_new_incoming(src, props);
    /* No packets but those of the test */
    qtest_qmp_assert_success((*t)->qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'announce-rounds': 0}}");
    qtest_qmp_assert_success((*t)->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s,"
                             " 'exit-on-error': false}}", uri);
    return lm_wait_migration(*t);
}

/* Registers, device status and memory of a device that was not touched since */
static void lm_assert_same(LMTest *t, LMTest *src, const uint32_t *regs,
                           uint8_t status)
{
    unsigned n;

    for (n = 0; n < VIRTIO_LM_RING_STATE(8) / 4; n++) {
        if (lm_read(t, n * 4) != regs[n]) {
            g_error("register 0x%x is 0x%x and was 0x%x", n * 4,
                    lm_read(t, n * 4), regs[n]);
        }
    }
    g_assert_cmphex(lm_status(t), ==, status);
    g_assert_cmpmem(t->ram, LM_RAM_SIZE, src->ram, LM_RAM_SIZE);
}

/* Save @src, and go on with what loads it */
static LMTest *lm_migrate(LMTest *src)
{
    g_autofree char *path = lm_state_file();
    uint32_t regs[VIRTIO_LM_RING_STATE(8) / 4];
    uint8_t status = lm_status(src);
    LMTest *t;
    unsigned n;

    for (n = 0; n < ARRAY_SIZE(regs); n++) {
        regs[n] = lm_read(src, n * 4);
    }
    lm_save(src, path);
    g_assert_true(lm_load(&t, src, src->props, path));
    lm_assert_same(t, src, regs, status);
    unlink(path);
    lm_free(src);
    return t;
}

/* In every state */

static void lm_traffic(LMTest *t, unsigned num)
{
    unsigned i;

    for (i = 0; i < num; i++) {
        uint16_t id;
        uint64_t addr = lm_add_rx(t, 200, &id);

        lm_kick(&t->vq[LM_RX]);
        lm_send(t, 100, i);
        lm_expect_rx(t, addr, id, 100, i);
        lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, i));
        lm_expect_tx(t, 60, i);
    }
}

static void test_fresh(void)
{
    LMTest *t = lm_migrate(lm_new(LM_ON_ROOT_BUS, "vdpa=on"));

    lm_start(t, 0);
    lm_traffic(t, 3);
    lm_free(t);
}

/* @features of the ring; both are in the middle of it */
static void test_running(const void *features)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");

    lm_start(t, *(const uint64_t *)features);
    lm_traffic(t, 300);
    t = lm_migrate(t);
    lm_traffic(t, 300);
    lm_free(t);
}

static void test_logging(const void *features)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");
    uint64_t other;
    uint16_t id;

    lm_start(t, *(const uint64_t *)features);
    lm_log_start(t);
    lm_traffic(t, 3);
    /* What is in force is not what the registers say */
    other = lm_pages(t, 1);
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, other);
    lm_write(t, VIRTIO_LM_END_ADDR_LOW, other + 1);
    t = lm_migrate(t);

    id = lm_add_tx(t, 60, 0, 1);
    lm_poison(t);
    lm_snapshot(t);
    lm_kick(&t->vq[LM_TX]);
    lm_wait_used(&t->vq[LM_TX], id);
    g_assert_cmpuint(lm_check_log(t), >, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, VIRTIO_LM_STATUS_LOGGING);
    lm_free(t);
}

/* Suspended with packets to send, and with room for some to receive */
static void lm_migrate_suspended(const uint64_t *features, bool log, bool fault)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");
    unsigned sent, num, i;
    uint64_t addr[2];
    uint16_t rx[2], id;
    uint32_t len;

    lm_start(t, *features);
    lm_traffic(t, 20);
    if (fault) {
        lm_log_at(t, 0x1000, 0x1001);
        lm_traffic(t, 1);
    }
    if (log) {
        t->end = 0;
        lm_log_start(t);
    }
    sent = lm_block_backend(t, 0, 2);
    num = sent + 1;
    for (i = 0; i < 5; i++) {
        lm_add_tx(t, 60, num++, 2);
    }
    for (i = 0; i < 2; i++) {
        addr[i] = lm_add_rx(t, 200, &rx[i]);
    }
    lm_suspend(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_SUSPENDED |
                    (log ? VIRTIO_LM_STATUS_LOGGING : 0) |
                    (fault ? VIRTIO_LM_STATUS_LOG_FAULT : 0));
    t = lm_migrate(t);

    lm_snapshot(t);
    lm_kick(&t->vq[LM_TX]);
    lm_send(t, 100, 7);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_expect_no_tx(t);
    lm_assert_untouched(t);

    lm_poison(t);
    lm_snapshot(t);
    lm_resume(t);
    for (i = sent; i < num; i++) {
        lm_expect_tx(t, 60, i);
        lm_next_used(&t->vq[LM_TX], &len);
    }
    lm_expect_no_tx(t);
    lm_expect_rx(t, addr[0], rx[0], 100, 7);
    g_assert_false(lm_get_used(&t->vq[LM_RX], &id, &len));
    if (log) {
        g_assert_cmpuint(lm_check_log(t), >, 0);
    }
    lm_free(t);
}

static void test_suspended(const void *features)
{
    lm_migrate_suspended(features, false, false);
}

static void test_suspended_logging(const void *features)
{
    lm_migrate_suspended(features, true, false);
}

static void test_suspended_logging_fault(const void *features)
{
    lm_migrate_suspended(features, true, true);
}

static void test_staged(const void *features)
{
    const uint64_t f = *(const uint64_t *)features;
    const uint32_t rx = f & PACKED ? 0x00050005 : 0xffffffff;
    const uint32_t tx = f & PACKED ? 0x800f800f : 0x12341234;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");

    lm_negotiate(t, f);
    lm_queue_init(t, LM_RX, 16);
    lm_queue_init(t, LM_TX, 16);
    lm_write(t, VIRTIO_LM_RING_STATE(LM_RX), rx);
    lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), tx);
    lm_queue_set_state(&t->vq[LM_RX], rx);
    lm_queue_set_state(&t->vq[LM_TX], tx);
    /* One that is enabled, too */
    lm_queue_enable(&t->vq[LM_TX]);
    t = lm_migrate(t);

    g_assert_cmphex(lm_ring_state(t, LM_RX), ==, rx);
    lm_queue_enable(&t->vq[LM_RX]);
    g_assert_cmphex(lm_ring_state(t, LM_RX), ==, rx);
    lm_driver_ok(t);
    lm_traffic(t, 20);
    lm_free(t);
}

/*
 * A queue that is enabled before FEATURES_OK starts where it was told to, or,
 * where that is outside of a packed ring, at its beginning
 */
static void lm_enabled_before_features_ok(uint64_t features, bool migrate)
{
    const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE |
                           VIRTIO_CONFIG_S_DRIVER;
    const uint32_t staged = 0x7fff7fff;
    const uint32_t state = features & PACKED ? 0x80008000 : staged;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");
    unsigned n;

    lm_negotiate(t, features);
    lm_set_status(t, driver);
    for (n = LM_RX; n <= LM_TX; n++) {
        lm_queue_init(t, n, 64);
        lm_queue_set_state(&t->vq[n], state);
        lm_write(t, VIRTIO_LM_RING_STATE(n), staged);
        lm_queue_enable(&t->vq[n]);
    }
    if (migrate) {
        t = lm_migrate(t);
    }
    lm_set_status(t, driver | VIRTIO_CONFIG_S_FEATURES_OK);
    lm_driver_ok(t);
    lm_traffic(t, 20);
    lm_free(t);
}

static void test_enabled_before_features_ok(const void *features)
{
    lm_enabled_before_features_ok(*(const uint64_t *)features, false);
    lm_enabled_before_features_ok(*(const uint64_t *)features, true);
}

static void test_config_pending(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start(t, LM_BIT(VIRTIO_NET_F_STATUS) | LM_BIT(VIRTIO_NET_F_CTRL_VQ) |
             LM_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
    lm_suspend(t);
    qtest_readb(t->qts, t->isr);
    qtest_qmp_assert_success(t->qts, "{'execute': 'announce-self', "
                             "'arguments': {'initial': 50, 'max': 50, "
                             "'rounds': 1, 'step': 0}}");
    t = lm_migrate(t);
    g_assert_cmphex(qtest_readb(t->qts, t->isr), ==, 0);
    lm_resume(t);
    g_assert_cmphex(qtest_readb(t->qts, t->isr) & VIRTIO_PCI_ISR_CONFIG, !=, 0);
    lm_free(t);
}

/* The mailbox as it is, with the ack of the last command */
static void test_ctrl(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint32_t status, size = lm_read(t, VIRTIO_LM_CTRL_SIZE);
    unsigned i;

    lm_start(t, LM_BIT(VIRTIO_NET_F_CTRL_VQ) | LM_BIT(VIRTIO_NET_F_CTRL_VLAN));
    g_assert_cmphex(lm_add_vlan(t, 5000), ==, VIRTIO_LM_CTRL_ERR);
    status = lm_read(t, VIRTIO_LM_CTRL_STATUS);
    for (i = 0; i < size; i += 4) {
        lm_write(t, VIRTIO_LM_CTRL_DATA + i, 0xabcd0000 | i);
    }
    t = lm_migrate(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_STATUS), ==, status);
    for (i = 0; i < size; i += 4) {
        g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_DATA + i), ==,
                        0xabcd0000 | i);
    }
    g_assert_cmphex(lm_add_vlan(t, 100), ==, VIRTIO_LM_CTRL_OK);
    t = lm_migrate(t);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 1);
    lm_traffic(t, 5);
    lm_free(t);
}

/* A command that is under way completes where its driver goes on */
static void test_ctrl_busy(void)
{
    g_autofree char *path = lm_state_file();
    const uint16_t vid = cpu_to_le16(100);
    LMTest *src = lm_new(LM_ON_ROOT_BUS, "vdpa=on,x-lm-ctrl-delay-ms=-1"), *t;

    lm_start(src, LM_BIT(VIRTIO_NET_F_CTRL_VQ) |
             LM_BIT(VIRTIO_NET_F_CTRL_VLAN));
    lm_ctrl_run(src, 7, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vid,
                sizeof(vid));
    g_assert_cmphex(lm_read(src, VIRTIO_LM_CTRL_STATUS), ==,
                    7 << VIRTIO_LM_CTRL_TAG_SHIFT | VIRTIO_LM_CTRL_BUSY);
    lm_save(src, path);
    g_assert_true(lm_load(&t, src, "vdpa=on", path));
    qtest_clock_step(t->qts, 1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_CTRL_STATUS), ==,
                    7 << VIRTIO_LM_CTRL_TAG_SHIFT | VIRTIO_LM_CTRL_DONE |
                    VIRTIO_LM_CTRL_OK);
    g_assert_cmpuint(lm_filter_len(t, "vlan-table"), ==, 1);
    unlink(path);
    lm_free(t);
    lm_free(src);
}

static void test_behind_iommu(void)
{
    LMTest *t = lm_new(LM_BEHIND_IOMMU, "vdpa=on");

    /* Nothing is programmed: no address can be translated on either side */
    lm_negotiate(t, 0);
    lm_write(t, VIRTIO_LM_RING_STATE(LM_RX), 0x20002);
    lm_suspend(t);
    lm_free(lm_migrate(t));
}

/* Another device, which has a buffer in use */

#define BALLOON_BAR_ADDR 0xe2000000u
#define BALLOON_STATS LM_CVQ    /* virtqueue 2 */

/* The driver of a virtio-balloon beside the device of @t */
static LMTest *lm_balloon(LMTest *t)
{
    LMTest *b = g_memdup2(t, sizeof(*t));
    uint8_t common, notify;
    unsigned bar;

    b->dev = qpci_device_find(t->bus, QPCI_DEVFN(5, 0));
    g_assert_nonnull(b->dev);
    common = lm_pci_cap(b, VIRTIO_PCI_CAP_COMMON_CFG);
    notify = lm_pci_cap(b, VIRTIO_PCI_CAP_NOTIFY_CFG);
    bar = qpci_config_readb(b->dev, common +
                            offsetof(struct virtio_pci_cap, bar));
    qpci_config_writel(b->dev, PCI_BASE_ADDRESS_0 + 4 * bar, BALLOON_BAR_ADDR);
    qpci_config_writel(b->dev, PCI_BASE_ADDRESS_0 + 4 * bar + 4, 0);
    qpci_config_writew(b->dev, PCI_COMMAND,
                       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    b->common = BALLOON_BAR_ADDR +
                qpci_config_readl(b->dev, common +
                                  offsetof(struct virtio_pci_cap, offset));
    b->notify = BALLOON_BAR_ADDR +
                qpci_config_readl(b->dev, notify +
                                  offsetof(struct virtio_pci_cap, offset));
    b->notify_mult = qpci_config_readl(b->dev, notify +
                                       sizeof(struct virtio_pci_cap));
    return b;
}

static uint64_t lm_balloon_stat(LMTest *b, const char *name)
{
    QDict *rsp = qtest_qmp_assert_success_ref(b->qts, "{'execute': 'qom-get',"
                     " 'arguments': {'path': '/machine/peripheral/balloon',"
                     " 'property': 'guest-stats'}}");
    QObject *val = qdict_get(qdict_get_qdict(rsp, "stats"), name);
    uint64_t stat = qnum_get_uint(qobject_to(QNum, val));

    qobject_unref(rsp);
    return stat;
}

/* The driver's answer, in a chain of two: what memory is free, and all of it */
static void lm_balloon_answer(LMTest *b, uint64_t free, uint64_t total)
{
    uint64_t addr = lm_pages(b, 1);
    LMSeg segs[2];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(segs); i++) {
        segs[i] = (LMSeg) { addr + i * 100, 10, false };
        stw_le_p(lm_ptr(b, segs[i].addr), i ? VIRTIO_BALLOON_S_MEMTOT :
                                              VIRTIO_BALLOON_S_MEMFREE);
        stq_le_p(lm_ptr(b, segs[i].addr + 2), i ? total : free);
    }
    lm_add(&b->vq[BALLOON_STATS], segs, ARRAY_SIZE(segs), false);
    lm_kick(&b->vq[BALLOON_STATS]);
}

static void lm_balloon_expect(LMTest *b, uint64_t free, uint64_t total)
{
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;

    while (lm_balloon_stat(b, "stat-total-memory") != total) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(1000);
    }
    g_assert_cmphex(lm_balloon_stat(b, "stat-free-memory"), ==, free);
}

/* It has a chain in use, and takes that again when it is loaded */
static void test_balloon(const void *features)
{
    g_autofree char *path = lm_state_file();
    LMTest *src = lm_new(LM_ON_ROOT_BUS, "vdpa=on -device virtio-balloon-pci,"
                         "id=balloon,addr=5,disable-legacy=on,packed=on");
    LMTest *b = lm_balloon(src), *dst;
    LMQueue *q = &b->vq[BALLOON_STATS];
    uint32_t len;
    unsigned i;

    lm_negotiate(b, *(const uint64_t *)features |
                 LM_BIT(VIRTIO_BALLOON_F_STATS_VQ));
    lm_queue_init(b, BALLOON_STATS, 16);
    lm_queue_enable(q);
    lm_driver_ok(b);
    lm_balloon_answer(b, 0x1000, 0x2000);
    lm_balloon_expect(b, 0x1000, 0x2000);

    lm_save(src, path);
    g_assert_true(lm_load(&dst, src, src->props, path));
    unlink(path);
    b->qts = dst->qts;
    b->ram = dst->ram;
    lm_balloon_expect(b, 0x1000, 0x2000);

    /* It gives it back when it asks for the next one: more than a turn */
    qtest_qmp_assert_success(b->qts, "{'execute': 'qom-set', 'arguments': {"
                             "'path': '/machine/peripheral/balloon',"
                             "'property': 'guest-stats-polling-interval',"
                             "'value': 1}}");
    for (i = 1; i < 20; i++) {
        qtest_clock_step(b->qts, 2 * NANOSECONDS_PER_SECOND);
        lm_next_used(q, &len);
        lm_balloon_answer(b, 0x1000 + i, 0x2000 + i);
        lm_balloon_expect(b, 0x1000 + i, 0x2000 + i);
    }
    g_free(b->dev);
    g_free(b);
    lm_free(dst);
    lm_free(src);
}

/* Between devices that differ */

static void lm_assert_load_refused(const char *from, const char *to)
{
    g_autofree char *path = lm_state_file();
    LMTest *src = lm_new(LM_ON_ROOT_PORT, from), *t;

    lm_start(src, 0);
    lm_traffic(src, 5);
    lm_save(src, path);
    g_assert_false(lm_load(&t, src, to, path));
    /* It has not crashed */
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    lm_free(t);

    /* Nothing else is in the way */
    g_assert_true(lm_load(&t, src, from, path));
    lm_traffic(t, 5);
    lm_free(t);
    unlink(path);
    lm_free(src);
}

static void test_on_to_off_is_refused(void)
{
    lm_assert_load_refused("vdpa=on", "vdpa=off");
}

static void test_ctrl_to_none_is_refused(void)
{
    lm_assert_load_refused("vdpa=on", "vdpa=on,lm-ctrl=off");
}

/* LM_CAPS would change under the driver */
static void test_none_to_ctrl_is_refused(void)
{
    lm_assert_load_refused("vdpa=on,lm-ctrl=off", "vdpa=on");
}

static void test_off_to_on_is_refused(void)
{
    lm_assert_load_refused("vdpa=off", "vdpa=on");
}

/* What vdpa=off sends */

#define CTRL_WINDOW 4096

#define VMDESC_MARK 0x06    /* QEMU_VM_VMDESCRIPTION */

typedef struct LMStream {
    char *data;
    gsize len;
    QDict *vmdesc;
} LMStream;

static LMStream lm_stream(const char *props)
{
    g_autofree char *path = lm_state_file();
    LMTest *t = lm_new(LM_ON_ROOT_PORT, props);
    LMStream s;
    gsize i;

    lm_start(t, 0);
    lm_traffic(t, 3);
    lm_save(t, path);
    lm_free(t);
    g_assert_true(g_file_get_contents(path, &s.data, &s.len, NULL));
    unlink(path);

    /* The description of the stream ends it: a mark, a length, JSON */
    for (i = s.len - 6; i; i--) {
        if (s.data[i] == VMDESC_MARK &&
            ldl_be_p(s.data + i + 1) == s.len - i - 5) {
            break;
        }
    }
    g_assert_cmpuint(i, !=, 0);
    s.vmdesc = qobject_to(QDict, qobject_from_json(s.data + i + 5, NULL));
    g_assert_nonnull(s.vmdesc);
    return s;
}

static bool lm_stream_has(const LMStream *s, const char *str)
{
    return memmem(s->data, s->len, str, strlen(str));
}

/* The field that holds the virtio device, in which LM registers are */
static QDict *lm_virtio_field(const LMStream *s)
{
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(s->vmdesc, "devices"), entry) {
        QDict *dev = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(dev, "vmsd_name"), "virtio-net")) {
            return qobject_to(QDict, qlist_entry_obj(
                              qlist_first(qdict_get_qlist(dev, "fields"))));
        }
    }
    g_assert_not_reached();
}

static void test_off_sends_nothing_new(void)
{
    LMStream off = lm_stream("vdpa=off");
    LMStream on = lm_stream("vdpa=on");
    int64_t size = qdict_get_int(lm_virtio_field(&off), "size");

    g_assert_false(lm_stream_has(&off, "virtio/lm"));
    g_assert_true(lm_stream_has(&on, "virtio/lm"));

    /* But for that subsection, the two describe the same */
    g_assert_cmpint(qdict_get_int(lm_virtio_field(&on), "size"), ==, size +
                    2 + strlen("virtio/lm") + 4 +
                    4 * 8 + 4 + VIRTIO_LM_MAX_VQS * (1 + 4) +
                    2 + strlen("virtio-lm/ctrl") + 4 + 2 + 4 + CTRL_WINDOW);
    qdict_put_int(lm_virtio_field(&on), "size", size);
    g_assert_true(qobject_is_equal(QOBJECT(on.vmdesc), QOBJECT(off.vmdesc)));

    qobject_unref(on.vmdesc);
    qobject_unref(off.vmdesc);
    g_free(on.data);
    g_free(off.data);
}

static void lm_add_split_and_packed(const char *name, void (*fn)(const void *))
{
    static const uint64_t split, packed = PACKED;
    g_autofree char *of_split = g_strdup_printf("/virtio-lm/migrate/%s/split",
                                                name);
    g_autofree char *of_packed = g_strdup_printf("/virtio-lm/migrate/%s/packed",
                                                 name);

    qtest_add_data_func(of_split, &split, fn);
    qtest_add_data_func(of_packed, &packed, fn);
}

void lm_add_migrate_tests(void)
{
    qtest_add_func("/virtio-lm/migrate/fresh", test_fresh);
    lm_add_split_and_packed("running", test_running);
    lm_add_split_and_packed("logging", test_logging);
    lm_add_split_and_packed("suspended", test_suspended);
    lm_add_split_and_packed("suspended-logging", test_suspended_logging);
    lm_add_split_and_packed("suspended-logging-fault",
                            test_suspended_logging_fault);
    lm_add_split_and_packed("staged", test_staged);
    lm_add_split_and_packed("enabled-before-features-ok",
                            test_enabled_before_features_ok);
    qtest_add_func("/virtio-lm/migrate/config-pending", test_config_pending);
    qtest_add_func("/virtio-lm/migrate/behind-iommu", test_behind_iommu);
    qtest_add_func("/virtio-lm/migrate/ctrl", test_ctrl);
    qtest_add_func("/virtio-lm/migrate/ctrl-busy", test_ctrl_busy);
    qtest_add_func("/virtio-lm/migrate/ctrl-to-none-is-refused",
                   test_ctrl_to_none_is_refused);
    qtest_add_func("/virtio-lm/migrate/none-to-ctrl-is-refused",
                   test_none_to_ctrl_is_refused);
    lm_add_split_and_packed("balloon", test_balloon);
    qtest_add_func("/virtio-lm/migrate/on-to-off-is-refused",
                   test_on_to_off_is_refused);
    qtest_add_func("/virtio-lm/migrate/off-to-on-is-refused",
                   test_off_to_on_is_refused);
    qtest_add_func("/virtio-lm/migrate/off-sends-nothing-new",
                   test_off_sends_nothing_new);
}
