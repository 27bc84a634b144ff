/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: suspend,
 * resume and ring state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-lm-common.h"

#define PACKED LM_BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX LM_BIT(VIRTIO_RING_F_EVENT_IDX)

/* Features to negotiate, and properties that make them available */
typedef struct LMVariant {
    const char *name;
    const char *props;
    uint64_t features;
} LMVariant;

static const LMVariant variants[] = {
    { "split", "vdpa=on", 0 },
    { "split-event-idx", "vdpa=on", EVENT_IDX },
    { "split-in-order", "vdpa=on,in_order=on", LM_BIT(VIRTIO_F_IN_ORDER) },
    { "packed", "vdpa=on,packed=on", PACKED },
    { "packed-event-idx", "vdpa=on,packed=on", PACKED | EVENT_IDX },
    /* A timer in place of a bottom half */
    { "split-tx-timer", "vdpa=on,tx=timer", 0 },
    /* Kicks that are taken at once, not from an eventfd */
    { "split-no-ioeventfd", "vdpa=on,ioeventfd=off", 0 },
};

static LMTest *lm_new_started(const void *opaque)
{
    const LMVariant *v = opaque;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, v->props);

    lm_start(t, v->features);
    return t;
}

/* What LM_RING_STATE says for @q if all that the driver saw used is all */
static uint32_t lm_driver_state(LMQueue *q)
{
    uint32_t used = q->used_idx;

    if (q->t->features & PACKED) {
        used |= q->used_wrap << 15;
    }
    return used | used << 16;
}

/* Suspend */

static void test_suspend_idle(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    unsigned i;

    for (i = 0; i < 3; i++) {
        uint16_t id, tx;
        uint64_t addr = lm_add_rx(t, 200, &id);

        lm_kick(&t->vq[LM_RX]);
        lm_send(t, 100, i);
        lm_expect_rx(t, addr, id, 100, i);
        tx = lm_tx(t, 100, i);
        lm_tx_timer(t);
        lm_wait_used(&t->vq[LM_TX], tx);
        lm_expect_tx(t, 100, i);
    }
    lm_suspend(t);
    for (i = LM_RX; i <= LM_TX; i++) {
        g_assert_cmphex(lm_ring_state(t, i), ==, lm_driver_state(&t->vq[i]));
    }
    lm_free(t);
}

/* Resumed, the device sends packets @i to @num, each once and in order */
static void lm_resume_sends(LMTest *t, unsigned i, unsigned num)
{
    LMQueue *q = &t->vq[LM_TX];
    uint32_t len;

    lm_resume(t);
    lm_tx_timer(t);
    for (; i < num; i++) {
        lm_expect_tx(t, 60, i);
        lm_next_used(q, &len);
    }
    lm_expect_no_tx(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, lm_driver_state(q));
}

/*
 * A backend that takes no more: one packet is in flight, more are available.
 * Suspended, the device has none; resumed, each is sent once and in order.
 */
static void lm_suspend_in_flight(LMTest *t, unsigned segs)
{
    LMQueue *q = &t->vq[LM_TX];
    unsigned sent = lm_block_backend(t, 0, segs), num = sent + 1, i, round;
    uint16_t id;
    uint32_t len;

    for (i = 0; i < 5; i++) {
        lm_add_tx(t, 60, num++, segs);
        lm_kick(q);
    }
    g_assert_cmphex(lm_ring_state(t, LM_TX) & 0xffff, !=,
                    lm_ring_state(t, LM_TX) >> 16);

    for (round = 0; round < 3; round++) {
        lm_suspend(t);
        g_assert_cmphex(lm_ring_state(t, LM_TX), ==, lm_driver_state(q));
        g_assert_false(lm_get_used(q, &id, &len));
        if (round < 2) {
            /* The backend takes nothing still: in flight again */
            lm_resume(t);
            lm_tx_timer(t);
            lm_settle(t);
        }
    }

    /* Nothing happens when the backend can take packets again */
    lm_snapshot(t);
    for (i = 0; i < sent; i++) {
        lm_expect_tx(t, 60, i);
    }
    lm_kick(q);
    lm_expect_no_tx(t);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_expect_no_tx(t);
    lm_assert_untouched(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, lm_driver_state(q));

    lm_resume_sends(t, i, num);
}

static void test_suspend_tx_in_flight(const void *variant)
{
    LMTest *t = lm_new_started(variant);

    lm_suspend_in_flight(t, 1);
    lm_free(t);
}

/* The packet that is in flight has descriptors that go back together */
static void test_suspend_chain_in_flight(const void *variant)
{
    LMTest *t = lm_new_started(variant);

    lm_suspend_in_flight(t, 3);
    lm_free(t);
}

static void lm_set_link(LMTest *t, bool up)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'set_link', 'arguments':"
                             " {'name': 'net0', 'up': %i}}", up);
}

/*
 * Without a link, what is available is dropped at a kick. Not past a packet
 * that is in flight: it would go back to where the last one came from.
 */
static void test_suspend_no_link_in_flight(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    LMQueue *q = &t->vq[LM_TX];
    unsigned sent = lm_block_backend(t, 0, 1), num = sent + 1, i;
    uint16_t id;
    uint32_t len;

    lm_set_link(t, false);
    for (i = 0; i < 3; i++) {
        lm_add_tx(t, 60, num++, 1);
        lm_kick(q);
        lm_settle(t);
    }
    lm_suspend(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, lm_driver_state(q));
    g_assert_false(lm_get_used(q, &id, &len));

    lm_set_link(t, true);
    for (i = 0; i < sent; i++) {
        lm_expect_tx(t, 60, i);
    }
    lm_resume_sends(t, i, num);
    lm_free(t);
}

/* Scheduled and not sent yet, a packet is sent after the resume */
static void lm_assert_pending(LMTest *t)
{
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_SUSPENDED);
    lm_expect_no_tx(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0);
}

static void lm_assert_sent(LMTest *t, uint16_t id)
{
    lm_wait_used(&t->vq[LM_TX], id);
    lm_expect_tx(t, 60, 0);
    lm_expect_no_tx(t);
}

static void lm_pending_tx(LMTest *t, uint16_t id)
{
    lm_assert_pending(t);
    lm_snapshot(t);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_assert_pending(t);
    lm_assert_untouched(t);
    lm_resume(t);
    lm_tx_timer(t);
    lm_assert_sent(t, id);
}

static void test_timer_waits(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,tx=timer");
    uint16_t id;

    lm_start(t, 0);
    /* DRIVER_OK is a kick, too, and the second one sends at once */
    lm_settle(t);
    lm_tx_timer(t);
    id = lm_tx(t, 60, 0);
    lm_settle(t);
    lm_suspend(t);
    lm_pending_tx(t, id);
    lm_free(t);
}

/*
 * QEMU does not get to the bottom half that a kick schedules before it suspends
 * the device, if the two are one write: from the notification of the transmit
 * queue to LM_DEV_CTRL. What is between is for queues that do not exist, and
 * LM registers that take no 64-bit access.
 */
static uint16_t lm_kick_and_suspend(LMTest *t)
{
    uint64_t from = t->notify + t->notify_mult * LM_TX;
    uint64_t len = t->lm + VIRTIO_LM_DEV_CTRL + 4 - from;
    g_autofree uint8_t *data = g_malloc0(len);
    uint16_t id;

    lm_start(t, 0);
    lm_settle(t);
    id = lm_add_tx(t, 60, 0, 1);
    stl_le_p(data + len - 4, VIRTIO_LM_DEV_CTRL_SUSPEND);
    qtest_memwrite(t->qts, from, data, len);
    return id;
}

static void test_bottom_half_waits(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,ioeventfd=off");

    lm_pending_tx(t, lm_kick_and_suspend(t));
    lm_free(t);
}

/*
 * Record/replay has bottom halves called by the thread of the CPU, and cannot
 * cancel them. There has to be a CPU for that, in firmware that is HLT alone.
 */
static void test_recorded_bottom_half_waits(void)
{
    g_autofree char *log = g_strdup_printf("%s/virtio-lm-%d.replay",
                                           g_get_tmp_dir(), getpid());
    g_autofree char *bios = g_strdup_printf("%s/virtio-lm-%d.bios",
                                            g_get_tmp_dir(), getpid());
    g_autofree char *props = g_strdup_printf("vdpa=on -accel tcg -icount "
                                             "shift=7,rr=record,rrfile=%s "
                                             "-bios %s", log, bios);
    char hlt[64 * KiB];
    LMTest *t;
    uint16_t id;

    memset(hlt, 0xf4, sizeof(hlt));
    g_assert_true(g_file_set_contents(bios, hlt, sizeof(hlt), NULL));
    t = lm_new(LM_ON_ROOT_BUS, props);
    id = lm_kick_and_suspend(t);
    lm_assert_pending(t);
    /* QEMU lives on, whatever is called while it is stopped */
    lm_resume(t);
    qtest_qmp_assert_success(t->qts, "{'execute': 'stop'}");
    qtest_qmp_assert_success(t->qts, "{'execute': 'cont'}");
    lm_assert_sent(t, id);
    lm_free(t);
    unlink(log);
    unlink(bios);
}

static void test_suspended_rx_waits(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    LMQueue *q = &t->vq[LM_RX];
    uint64_t addr[8];
    uint16_t id[8];
    unsigned i;

    for (i = 0; i < 4; i++) {
        addr[i] = lm_add_rx(t, 200, &id[i]);
    }
    lm_kick(q);
    lm_suspend(t);
    lm_snapshot(t);
    for (i = 0; i < 8; i++) {
        lm_send(t, 100 + i, i);
    }
    lm_kick(q);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_assert_untouched(t);
    g_assert_cmphex(lm_ring_state(t, LM_RX), ==, lm_driver_state(q));

    /* More buffers, and no kick */
    for (; i > 4; i--) {
        addr[8 + 4 - i] = lm_add_rx(t, 200, &id[8 + 4 - i]);
    }
    lm_resume(t);
    for (i = 0; i < 8; i++) {
        lm_expect_rx(t, addr[i], id[i], 100 + i, i);
    }
    lm_free(t);
}

static void test_control_vq_waits(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    LMQueue *q = &t->vq[LM_CVQ];
    uint64_t addr = lm_pages(t, 1);
    const LMSeg segs[] = { { addr, 3, false }, { addr + 3, 1, true } };
    uint16_t id;

    lm_start(t, LM_BIT(VIRTIO_NET_F_CTRL_VQ) | LM_BIT(VIRTIO_NET_F_CTRL_RX));
    memcpy(lm_ptr(t, addr), (uint8_t[]) {
        VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0, 0xa5 }, 4);
    lm_suspend(t);
    id = lm_add(q, segs, 2, false);
    lm_snapshot(t);
    lm_kick(q);
    lm_assert_untouched(t);
    lm_resume(t);
    lm_wait_used(q, id);
    g_assert_cmpuint(*(uint8_t *)lm_ptr(t, addr + 3), ==, VIRTIO_NET_OK);
    lm_free(t);
}

/* The monitor's cont does not take the device out of its suspend */
static void test_cont_does_not_resume(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    LMQueue *q = &t->vq[LM_RX];
    uint16_t id, tx;
    uint64_t addr = lm_add_rx(t, 200, &id);

    lm_suspend(t);
    tx = lm_add_tx(t, 60, 1, 1);
    lm_snapshot(t);
    qtest_qmp_assert_success(t->qts, "{'execute': 'stop'}");
    lm_assert_untouched(t);
    qtest_qmp_assert_success(t->qts, "{'execute': 'cont'}");
    lm_send(t, 100, 0);
    lm_kick(q);
    lm_kick(&t->vq[LM_TX]);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_assert_untouched(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_SUSPENDED);
    lm_expect_no_tx(t);
    lm_resume(t);
    lm_expect_rx(t, addr, id, 100, 0);
    lm_tx_timer(t);
    lm_wait_used(&t->vq[LM_TX], tx);
    lm_expect_tx(t, 60, 1);
    lm_free(t);
}

/* A driver that is told to kick does so; suspended or not, it is told */
static void test_suspend_arms_notification(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    LMQueue *q = &t->vq[LM_TX];

    lm_start(t, 0);
    lm_block_backend(t, 0, 1);
    g_assert_cmphex(lduw_le_p(lm_ptr(t, q->used)), ==, VRING_USED_F_NO_NOTIFY);
    lm_suspend(t);
    g_assert_cmphex(lduw_le_p(lm_ptr(t, q->used)), ==, 0);
    lm_free(t);
}

/* What counts as a kick */

static void test_resume_is_a_kick(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    uint16_t tx, rx;
    uint64_t addr;

    lm_suspend(t);
    tx = lm_add_tx(t, 60, 1, 1);
    lm_send(t, 100, 2);
    addr = lm_add_rx(t, 200, &rx);
    lm_expect_no_tx(t);
    lm_resume(t);
    lm_tx_timer(t);
    lm_wait_used(&t->vq[LM_TX], tx);
    lm_expect_tx(t, 60, 1);
    lm_expect_rx(t, addr, rx, 100, 2);
    lm_free(t);
}

static void lm_queues_with_buffers(LMTest *t, const LMVariant *v,
                                   uint16_t *tx, uint64_t *addr, uint16_t *rx)
{
    lm_negotiate(t, v->features);
    lm_queue_init(t, LM_RX, 16);
    lm_queue_init(t, LM_TX, 16);
    *tx = lm_add_tx(t, 60, 1, 1);
    *addr = lm_add_rx(t, 200, rx);
}

static void test_driver_ok_is_a_kick(const void *variant)
{
    const LMVariant *v = variant;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, v->props);
    uint64_t addr;
    uint16_t tx, rx;

    lm_queues_with_buffers(t, v, &tx, &addr, &rx);
    lm_queue_enable(&t->vq[LM_RX]);
    lm_queue_enable(&t->vq[LM_TX]);
    lm_expect_no_tx(t);
    lm_driver_ok(t);
    lm_send(t, 100, 2);
    lm_tx_timer(t);
    lm_wait_used(&t->vq[LM_TX], tx);
    lm_expect_tx(t, 60, 1);
    lm_expect_rx(t, addr, rx, 100, 2);
    lm_free(t);
}

static void test_enable_is_a_kick(const void *variant)
{
    const LMVariant *v = variant;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, v->props);
    uint64_t addr;
    uint16_t tx, rx;

    lm_queues_with_buffers(t, v, &tx, &addr, &rx);
    lm_driver_ok(t);
    lm_send(t, 100, 2);
    lm_expect_no_tx(t);
    lm_queue_enable(&t->vq[LM_RX]);
    lm_expect_rx(t, addr, rx, 100, 2);
    lm_queue_enable(&t->vq[LM_TX]);
    lm_tx_timer(t);
    lm_wait_used(&t->vq[LM_TX], tx);
    lm_expect_tx(t, 60, 1);
    lm_free(t);
}

/* Enabled while it is suspended, a queue starts at the resume */
static void test_enable_while_suspended(const void *variant)
{
    const LMVariant *v = variant;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, v->props);
    uint64_t addr;
    uint16_t tx, rx;

    lm_queues_with_buffers(t, v, &tx, &addr, &rx);
    lm_suspend(t);
    lm_driver_ok(t);
    lm_snapshot(t);
    lm_queue_enable(&t->vq[LM_RX]);
    lm_queue_enable(&t->vq[LM_TX]);
    lm_send(t, 100, 2);
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND);
    lm_expect_no_tx(t);
    lm_assert_untouched(t);
    lm_resume(t);
    lm_expect_rx(t, addr, rx, 100, 2);
    lm_tx_timer(t);
    lm_wait_used(&t->vq[LM_TX], tx);
    lm_expect_tx(t, 60, 1);
    lm_free(t);
}

/* Ring state */

/* For more than a turn of a ring of 16 */
static void lm_traffic(LMTest *t)
{
    unsigned i;

    for (i = 0; i < 40; i++) {
        uint16_t rx, tx;
        uint64_t addr = lm_add_rx(t, 200, &rx);

        g_assert_cmphex(lm_ring_state(t, LM_RX), ==,
                        lm_driver_state(&t->vq[LM_RX]));
        g_assert_cmphex(lm_ring_state(t, LM_TX), ==,
                        lm_driver_state(&t->vq[LM_TX]));
        lm_kick(&t->vq[LM_RX]);
        lm_send(t, 100, i);
        lm_expect_rx(t, addr, rx, 100, i);
        tx = lm_tx(t, 60, i);
        lm_tx_timer(t);
        lm_wait_used(&t->vq[LM_TX], tx);
        lm_expect_tx(t, 60, i);
    }
}

static const uint16_t indices[] = {
    1, 7, 15, 16, 17, 32767, 32768, 65520, 65534, 65535,
};

static uint32_t lm_state_at(const LMVariant *v, unsigned i)
{
    uint16_t idx = indices[i];

    if (v->features & PACKED) {
        idx = idx % 16 | (i % 2 ? VIRTIO_LM_RING_STATE_WRAP : 0);
    }
    return idx | (uint32_t)idx << 16;
}

/* Written before the queue is enabled, it is where the queue starts */
static void test_state_is_staged(const void *variant)
{
    const LMVariant *v = variant;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, v->props);
    uint64_t start = t->next_page;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(indices); i++) {
        uint32_t rx = lm_state_at(v, i);
        uint32_t tx = lm_state_at(v, ARRAY_SIZE(indices) - 1 - i);

        t->next_page = start;
        memset(lm_ptr(t, start), 0, MiB);
        lm_negotiate(t, v->features);
        lm_queue_init(t, LM_RX, 16);
        lm_queue_init(t, LM_TX, 16);
        lm_queue_set_state(&t->vq[LM_RX], rx);
        lm_queue_set_state(&t->vq[LM_TX], tx);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_RX), 0x12345678);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_RX), rx);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), tx);
        g_assert_cmphex(lm_ring_state(t, LM_RX), ==, rx);
        g_assert_cmphex(lm_ring_state(t, LM_TX), ==, tx);
        lm_queue_enable(&t->vq[LM_RX]);
        lm_queue_enable(&t->vq[LM_TX]);
        g_assert_cmphex(lm_ring_state(t, LM_RX), ==, rx);
        g_assert_cmphex(lm_ring_state(t, LM_TX), ==, tx);
        lm_driver_ok(t);
        lm_traffic(t);
    }
    lm_free(t);
}

static void test_state_while_suspended(const void *variant)
{
    const LMVariant *v = variant;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, v->props);
    uint64_t start = t->next_page;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(indices); i++) {
        uint32_t rx = lm_state_at(v, i);
        uint32_t tx = lm_state_at(v, ARRAY_SIZE(indices) - 1 - i);

        t->next_page = start;
        memset(lm_ptr(t, start), 0, MiB);
        lm_negotiate(t, v->features);
        lm_queue_init(t, LM_RX, 16);
        lm_queue_init(t, LM_TX, 16);
        lm_queue_enable(&t->vq[LM_RX]);
        lm_queue_enable(&t->vq[LM_TX]);
        lm_driver_ok(t);
        lm_suspend(t);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_RX), rx);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), tx);
        g_assert_cmphex(lm_ring_state(t, LM_RX), ==, rx);
        g_assert_cmphex(lm_ring_state(t, LM_TX), ==, tx);
        lm_queue_set_state(&t->vq[LM_RX], rx);
        lm_queue_set_state(&t->vq[LM_TX], tx);
        lm_resume(t);
        lm_traffic(t);
    }
    lm_free(t);
}

static void test_state_of_running_queue_is_fixed(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    LMQueue *q = &t->vq[LM_TX];
    uint32_t state;
    uint16_t id;

    id = lm_tx(t, 60, 0);
    lm_tx_timer(t);
    lm_wait_used(q, id);
    state = lm_driver_state(q);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, state);
    lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), 0x50005);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, state);
    lm_suspend(t);
    lm_resume(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, state);
    id = lm_tx(t, 60, 1);
    lm_tx_timer(t);
    lm_wait_used(q, id);
    lm_free(t);
}

/* An index that a packed ring does not have: QEMU and the ring live on */
static void test_packed_state_is_checked(void)
{
    static const uint32_t bad[] = {
        0x00100010, 0x00000010, 0x00100000, 0x7fff7fff, 0xffffffff, 0x80108000,
    };
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on,packed=on");
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        lm_negotiate(t, PACKED);
        lm_queue_init(t, LM_RX, 16);
        lm_queue_init(t, LM_TX, 16);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_RX), bad[i]);
        lm_queue_enable(&t->vq[LM_RX]);
        lm_queue_enable(&t->vq[LM_TX]);
        g_assert_cmphex(lm_ring_state(t, LM_RX), ==, 0x80008000);
        lm_driver_ok(t);
        lm_suspend(t);
        lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), bad[i]);
        g_assert_cmphex(lm_ring_state(t, LM_TX), ==, 0x80008000);
        lm_resume(t);
        lm_traffic(t);
    }
    lm_free(t);
}

/* It was interrupted for an index before: now for the same one again */
static void test_rewound_ring_interrupts(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    LMQueue *q = &t->vq[LM_TX];
    uint32_t state = 0;
    unsigned i;

    for (i = 0; i < 5; i++) {
        state = lm_driver_state(q);
        lm_wait_used(q, lm_tx(t, 60, i));
    }
    lm_suspend(t);
    lm_write(t, VIRTIO_LM_RING_STATE(LM_TX), state);
    lm_queue_set_state(q, state);
    /* Ask for an interrupt for the next one */
    if (t->features & PACKED) {
        stw_le_p(lm_ptr(t, q->avail), state);
        stw_le_p(lm_ptr(t, q->avail + 2), VRING_PACKED_EVENT_FLAG_DESC);
    } else {
        stw_le_p(lm_ptr(t, q->avail + 4 + q->num * 2), state);
    }
    lm_resume(t);
    qtest_readb(t->qts, t->isr);
    lm_wait_used(q, lm_tx(t, 60, 9));
    g_assert_cmphex(qtest_readb(t->qts, t->isr) & 1, !=, 0);
    lm_free(t);
}

/* After a bug of the guest, what was in flight counts as not seen */
static void test_state_of_broken_device(const void *variant)
{
    LMTest *t = lm_new_started(variant);
    LMQueue *q = &t->vq[LM_TX];
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    uint32_t state;

    lm_block_backend(t, 0, 1);
    state = lm_ring_state(t, LM_TX);
    g_assert_cmphex(state & 0xffff, !=, state >> 16);

    /* A receive buffer without a byte */
    lm_add_buf(&t->vq[LM_RX], lm_pages(t, 1), 0, true);
    lm_kick(&t->vq[LM_RX]);
    lm_send(t, 60, 0);
    while (!(lm_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    state = state >> 16 | (state & 0xffff0000);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, state);
    lm_suspend(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, state);
    lm_resume(t);
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==, state);
    g_assert_cmphex(lm_driver_state(q), ==, state);

    /* A reset brings it back */
    lm_negotiate(t, t->features & ~LM_BIT(VIRTIO_F_VERSION_1));
    g_assert_cmphex(lm_ring_state(t, LM_TX), ==,
                    t->features & PACKED ? 0x80008000 : 0);
    lm_free(t);
}

/* Link state */

static bool lm_link_up(LMTest *t)
{
    return qtest_readw(t->qts, t->config +
                       offsetof(struct virtio_net_config, status)) &
           VIRTIO_NET_S_LINK_UP;
}

static void test_link_change_waits(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint16_t id;

    lm_start(t, LM_BIT(VIRTIO_NET_F_STATUS));
    qtest_readb(t->qts, t->isr);
    g_assert_true(lm_link_up(t));

    lm_suspend(t);
    lm_snapshot(t);
    lm_set_link(t, false);
    g_assert_false(lm_link_up(t));
    g_assert_cmphex(qtest_readb(t->qts, t->isr), ==, 0);
    lm_assert_untouched(t);
    lm_resume(t);
    g_assert_false(lm_link_up(t));
    g_assert_cmphex(qtest_readb(t->qts, t->isr) & VIRTIO_PCI_ISR_CONFIG, !=, 0);

    lm_suspend(t);
    lm_set_link(t, true);
    id = lm_add_tx(t, 60, 0, 1);
    lm_expect_no_tx(t);
    lm_resume(t);
    g_assert_true(lm_link_up(t));
    lm_wait_used(&t->vq[LM_TX], id);
    lm_expect_tx(t, 60, 0);
    lm_free(t);
}

/* Another change of the configuration: an announcement */
static void test_config_interrupt_waits(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");

    lm_start(t, LM_BIT(VIRTIO_NET_F_STATUS) | LM_BIT(VIRTIO_NET_F_CTRL_VQ) |
             LM_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
    lm_suspend(t);
    qtest_readb(t->qts, t->isr);
    qtest_qmp_assert_success(t->qts, "{'execute': 'announce-self', "
                             "'arguments': {'initial': 50, 'max': 50, "
                             "'rounds': 1, 'step': 0}}");
    lm_read(t, VIRTIO_LM_STATUS);
    g_assert_cmphex(qtest_readb(t->qts, t->isr), ==, 0);
    lm_resume(t);
    g_assert_cmphex(qtest_readb(t->qts, t->isr) & VIRTIO_PCI_ISR_CONFIG, !=, 0);
    lm_suspend(t);
    lm_resume(t);
    g_assert_cmphex(qtest_readb(t->qts, t->isr) & VIRTIO_PCI_ISR_CONFIG, ==, 0);
    lm_free(t);
}

static void lm_add_per_variant(const char *name, void (*fn)(const void *))
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(variants); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-lm/%s/%s", name,
                                                variants[i].name);

        qtest_add_data_func(path, &variants[i], fn);
    }
}

void lm_add_suspend_tests(void)
{
    lm_add_per_variant("suspend/idle", test_suspend_idle);
    lm_add_per_variant("suspend/tx-in-flight", test_suspend_tx_in_flight);
    lm_add_per_variant("suspend/chain-in-flight",
                       test_suspend_chain_in_flight);
    lm_add_per_variant("suspend/no-link-in-flight",
                       test_suspend_no_link_in_flight);
    qtest_add_func("/virtio-lm/suspend/timer-waits", test_timer_waits);
    qtest_add_func("/virtio-lm/suspend/bottom-half-waits",
                   test_bottom_half_waits);
    qtest_add_func("/virtio-lm/suspend/recorded-bottom-half-waits",
                   test_recorded_bottom_half_waits);
    lm_add_per_variant("suspend/rx-waits", test_suspended_rx_waits);
    qtest_add_func("/virtio-lm/suspend/control-vq-waits",
                   test_control_vq_waits);
    lm_add_per_variant("suspend/cont-does-not-resume",
                       test_cont_does_not_resume);
    qtest_add_func("/virtio-lm/suspend/arms-notification",
                   test_suspend_arms_notification);
    qtest_add_func("/virtio-lm/suspend/link-change-waits",
                   test_link_change_waits);
    qtest_add_func("/virtio-lm/suspend/config-interrupt-waits",
                   test_config_interrupt_waits);

    lm_add_per_variant("kick/resume", test_resume_is_a_kick);
    lm_add_per_variant("kick/driver-ok", test_driver_ok_is_a_kick);
    lm_add_per_variant("kick/enable", test_enable_is_a_kick);
    lm_add_per_variant("kick/enable-while-suspended",
                       test_enable_while_suspended);

    lm_add_per_variant("ring-state/staged", test_state_is_staged);
    lm_add_per_variant("ring-state/suspended", test_state_while_suspended);
    lm_add_per_variant("ring-state/running",
                       test_state_of_running_queue_is_fixed);
    qtest_add_func("/virtio-lm/ring-state/packed-is-checked",
                   test_packed_state_is_checked);
    qtest_add_data_func("/virtio-lm/ring-state/rewound-interrupts/split",
                        &variants[1], test_rewound_ring_interrupts);
    qtest_add_data_func("/virtio-lm/ring-state/rewound-interrupts/packed",
                        &variants[4], test_rewound_ring_interrupts);
    lm_add_per_variant("ring-state/broken", test_state_of_broken_device);
}
