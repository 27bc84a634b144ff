/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: the dirty
 * log
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include "qemu/atomic.h"
#include "virtio-lm-common.h"

/* Kinds of rings, each of which writes to different places */
typedef struct LMRing {
    const char *name;
    const char *props;
    uint64_t features;
} LMRing;

static const LMRing rings[] = {
    { "split", "vdpa=on", 0 },
    { "split-event-idx", "vdpa=on", LM_BIT(VIRTIO_RING_F_EVENT_IDX) },
    { "split-in-order", "vdpa=on,in_order=on", LM_BIT(VIRTIO_F_IN_ORDER) },
    { "packed", "vdpa=on,packed=on", LM_BIT(VIRTIO_F_RING_PACKED) },
    { "packed-event-idx", "vdpa=on,packed=on",
      LM_BIT(VIRTIO_F_RING_PACKED) | LM_BIT(VIRTIO_RING_F_EVENT_IDX) },
    { "packed-in-order", "vdpa=on,packed=on,in_order=on",
      LM_BIT(VIRTIO_F_RING_PACKED) | LM_BIT(VIRTIO_F_IN_ORDER) },
};

static LMTest *lm_new_logging(const LMRing *ring, uint64_t features)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, ring->props);

    lm_start(t, ring->features | features |
             LM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    lm_log_start(t);
    return t;
}

static void lm_assert_no_fault(LMTest *t)
{
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS) & VIRTIO_LM_STATUS_LOG_FAULT,
                    ==, 0);
}

static void lm_set_link(LMTest *t, bool up)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'set_link', 'arguments':"
                             " {'name': 'net0', 'up': %i}}", up);
}

/* Each kind of write */

static void test_tx(const void *ring)
{
    LMTest *t = lm_new_logging(ring, 0);
    LMQueue *q = &t->vq[LM_TX];
    uint64_t addr = lm_pages(t, 3);
    const LMSeg segs[] = {
        { addr + LM_PAGE - 5, LM_HDR_LEN, false },
        { addr + LM_PAGE + 1000, 7, false },
        { addr + 2 * LM_PAGE + 1, 53, false },
    };
    unsigned i;
    uint16_t id;

    for (i = 0; i < 4; i++) {
        switch (i) {
        case 0:
            id = lm_add_tx(t, 60, i, 1);
            break;
        case 1:
            id = lm_add_tx(t, 3 * LM_PAGE, i, 1);
            break;
        default:
            id = lm_add(q, segs, ARRAY_SIZE(segs), i == 2);
            break;
        }
        lm_poison(t);
        lm_snapshot(t);
        lm_kick(q);
        lm_wait_used(q, id);
        g_assert_cmpuint(lm_check_log(t), >=, 1);
        lm_assert_no_fault(t);
    }
    lm_free(t);
}

static void test_rx(const void *ring)
{
    LMTest *t = lm_new_logging(ring, 0);
    LMQueue *q = &t->vq[LM_RX];
    static const unsigned lens[] = { 1, 14, 60, 1514, 4096 - 12, 4097, 9000 };
    uint16_t id;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(lens); i++) {
        /* More than is needed: what is behind the packet is not written */
        uint64_t addr = lm_add_rx(t, 5 * LM_PAGE, &id);

        lm_kick(q);
        lm_poison(t);
        lm_snapshot(t);
        lm_send(t, lens[i], i);
        lm_expect_rx(t, addr, id, lens[i], i);
        g_assert_true(lm_written(t, addr + LM_HDR_LEN + lens[i] - 1));
        g_assert_false(lm_written(t, addr + LM_HDR_LEN + lens[i] - 1 +
                                  LM_PAGE));
        lm_check_log(t);
        lm_assert_no_fault(t);
    }
    lm_free(t);
}

static void test_rx_segments(const void *ring)
{
    LMTest *t = lm_new_logging(ring, LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    LMQueue *q = &t->vq[LM_RX];
    unsigned indirect;

    for (indirect = 0; indirect < 2; indirect++) {
        uint64_t addr = lm_pages(t, 20);
        const LMSeg segs[] = {
            /* The header, num_buffers in the second page */
            { addr + LM_PAGE - 10, LM_HDR_LEN, true },
            { addr + 4 * LM_PAGE - 1, 2, true },
            { addr + 7 * LM_PAGE + 3, 2 * LM_PAGE, true },
            { addr + 12 * LM_PAGE + 4090, 1, true },
            /* Not reached by the packet */
            { addr + 14 * LM_PAGE, 100, true },
            { addr + 16 * LM_PAGE, LM_PAGE, true },
        };
        uint16_t id;
        unsigned page;

        memset(lm_ptr(t, addr), 0xa5, 20 * LM_PAGE);
        id = lm_add(q, segs, ARRAY_SIZE(segs), indirect);
        lm_kick(q);
        lm_poison(t);
        lm_snapshot(t);
        lm_send(t, 2 + 2 * LM_PAGE + 1, indirect);
        g_assert_cmpuint(lm_wait_used(q, id), ==,
                         LM_HDR_LEN + 2 + 2 * LM_PAGE + 1);
        for (page = 0; page < 20; page++) {
            bool want = page < 2 || page == 3 || page == 4 ||
                        (page >= 7 && page <= 9) || page == 12;

            g_assert_cmpint(lm_logged(t, addr + page * LM_PAGE), ==, want);
        }
        lm_check_log(t);
        lm_assert_no_fault(t);
    }
    lm_free(t);
}

static void test_rx_mergeable(const void *ring)
{
    LMTest *t = lm_new_logging(ring, LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    LMQueue *q = &t->vq[LM_RX];
    static const unsigned sizes[] = { 13, 1526, LM_PAGE, 7000 };
    uint16_t ids[256];
    unsigned i, n;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        unsigned bufs = 9, len = bufs * sizes[i] - LM_HDR_LEN - sizes[i] / 2;
        uint64_t addr = lm_pages(t, DIV_ROUND_UP(bufs * sizes[i], LM_PAGE) + 1);

        memset(lm_ptr(t, addr), 0xa5, bufs * sizes[i] + 9);
        for (n = 0; n < bufs; n++) {
            ids[n] = lm_add_buf(q, addr + 9 + n * sizes[i], sizes[i], true);
        }
        lm_kick(q);
        lm_poison(t);
        lm_snapshot(t);
        lm_send(t, len, i);
        for (n = 0; n < bufs; n++) {
            lm_wait_used(q, ids[n]);
        }
        g_assert_cmpuint(lduw_le_p(lm_ptr(t, addr + 9 + 10)), ==, bufs);
        lm_check_log(t);
        lm_assert_no_fault(t);
    }
    lm_free(t);
}

/* It is written before the device finds that the packet does not fit */
static void test_rx_too_small(const void *ring)
{
    LMTest *t = lm_new_logging(ring, 0);
    LMQueue *q = &t->vq[LM_RX];
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    uint16_t id;
    uint64_t addr = lm_add_rx(t, 100, &id);

    lm_kick(q);
    /* Not poisoned: notification, which was on, is turned off */
    lm_snapshot(t);
    lm_send(t, 1000, 0);
    while (!lm_written(t, addr)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        lm_read(t, VIRTIO_LM_STATUS);
    }
    g_assert_cmphex(lm_ring_state(t, LM_RX) & 0x7fff, ==, 0);
    lm_check_log(t);
    g_assert_true(lm_logged(t, addr));
    /* It is still available */
    lm_send(t, 88, 1);
    lm_expect_rx(t, addr, id, 88, 1);
    lm_free(t);
}

static void test_control_ack(const void *ring)
{
    LMTest *t = lm_new_logging(ring, LM_BIT(VIRTIO_NET_F_CTRL_VQ) |
                               LM_BIT(VIRTIO_NET_F_CTRL_RX));
    LMQueue *q = &t->vq[LM_CVQ];
    uint64_t cmd = lm_pages(t, 1), ack = lm_pages(t, 3);
    const LMSeg segs[] = {
        { cmd, 3, false },
        { ack + LM_PAGE + 77, 1, true },
    };
    uint16_t id;
    unsigned indirect;

    for (indirect = 0; indirect < 2; indirect++) {
        memcpy(lm_ptr(t, cmd), (uint8_t[]) {
            VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1 }, 3);
        memset(lm_ptr(t, ack), 0xa5, 3 * LM_PAGE);
        id = lm_add(q, segs, 2, indirect);
        lm_poison(t);
        lm_snapshot(t);
        lm_kick(q);
        g_assert_cmpuint(lm_wait_used(q, id), ==, 1);
        g_assert_cmpuint(*(uint8_t *)lm_ptr(t, ack + LM_PAGE + 77), ==,
                         VIRTIO_NET_OK);
        g_assert_true(lm_logged(t, ack + LM_PAGE));
        lm_check_log(t);
    }
    lm_free(t);
}

/* Used flags, avail event, event suppression: written without a buffer */
static void test_notification(const void *ring)
{
    LMTest *t = lm_new_logging(ring, 0);

    /* A kick of an empty ring */
    lm_poison(t);
    lm_snapshot(t);
    lm_kick(&t->vq[LM_TX]);
    lm_expect_no_tx(t);
    g_assert_cmpuint(lm_check_log(t), ==, 1);

    /* A packet that finds no buffer */
    lm_poison(t);
    lm_snapshot(t);
    lm_send(t, 60, 0);
    lm_expect_no_tx(t);
    g_assert_cmpuint(lm_check_log(t), ==, 1);
    lm_assert_no_fault(t);
    lm_free(t);
}

static void test_drop_with_link_down(const void *ring)
{
    LMTest *t = lm_new_logging(ring, 0);
    LMQueue *q = &t->vq[LM_TX];
    uint16_t ids[3];
    unsigned i;

    lm_set_link(t, false);
    for (i = 0; i < ARRAY_SIZE(ids); i++) {
        ids[i] = lm_add_tx(t, 60, i, 1);
    }
    lm_poison(t);
    lm_snapshot(t);
    lm_kick(q);
    for (i = 0; i < ARRAY_SIZE(ids); i++) {
        lm_wait_used(q, ids[i]);
    }
    g_assert_cmpuint(lm_check_log(t), >=, 1);
    lm_expect_no_tx(t);

    /* The ring goes on where the dropped ones end */
    lm_set_link(t, true);
    lm_wait_used(q, lm_tx(t, 60, 9));
    lm_expect_tx(t, 60, 9);
    lm_free(t);
}

/* The order of data and bits */

/*
 * Memory is written by the device alone, so when the last byte of a write is
 * in the bitmap's byte for its first one, that byte tells which of the two came
 * last: the data would clear the bit.
 */
static void lm_assert_bit_is_last(LMTest *t, uint64_t page)
{
    lm_read(t, VIRTIO_LM_STATUS);
    g_assert_true(lm_logged(t, page));
}

static void test_bit_after_buffer(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    LMQueue *q = &t->vq[LM_RX];
    g_autofree uint8_t *zero = g_malloc0(1000);
    uint64_t addr;
    uint16_t id;

    lm_start(t, 0);
    addr = lm_pages(t, 2);
    lm_log_at(t, addr + LM_PAGE, addr + 2 * LM_PAGE);
    lm_snapshot(t);
    id = lm_add_buf(q, t->base - 64, 1064, true);
    lm_kick(q);
    g_assert_cmpint(send(t->net, zero, 1000, 0), ==, 1000);
    lm_wait_used(q, id);
    lm_assert_bit_is_last(t, addr);
    lm_assert_no_fault(t);
    lm_free(t);
}

static LMTest *lm_new_low_tx(const char *props, uint64_t features,
                             uint64_t desc, uint64_t used)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, props);

    lm_negotiate(t, features);
    lm_queue_init(t, LM_TX, 16);
    t->vq[LM_TX].desc = desc ?: t->vq[LM_TX].desc;
    t->vq[LM_TX].used = used ?: t->vq[LM_TX].used;
    lm_queue_enable(&t->vq[LM_TX]);
    lm_driver_ok(t);
    return t;
}

static void test_bit_after_used_element(void)
{
    /* Element 1 starts a page, and nothing else that is written is in it */
    LMTest *t = lm_new_low_tx("vdpa=on", 0, 0, 0x10000 - 12);

    lm_log_at(t, 0x10004, 0x10008);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 1));
    lm_assert_bit_is_last(t, 0x10000);
    lm_free(t);
}

static void test_bit_after_used_idx(void)
{
    LMTest *t = lm_new_low_tx("vdpa=on", LM_BIT(VIRTIO_RING_F_EVENT_IDX), 0,
                              0x8000 - 4 - 16 * 8);

    lm_log_at(t, t->vq[LM_TX].used + 3, t->vq[LM_TX].used + 4);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_assert_bit_is_last(t, 0x7000);
    lm_free(t);
}

static void test_bit_after_avail_event(void)
{
    LMTest *t = lm_new_low_tx("vdpa=on", LM_BIT(VIRTIO_RING_F_EVENT_IDX), 0,
                              0x7000 - 4 - 16 * 8);

    lm_log_at(t, 0x7001, 0x7002);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_assert_bit_is_last(t, 0x7000);
    lm_free(t);
}

static void test_bit_after_used_flags(void)
{
    LMTest *t = lm_new_low_tx("vdpa=on", 0, 0, 0x7000);

    /* Without a buffer, flags are all that is written */
    lm_log_at(t, 0x7001, 0x7002);
    lm_snapshot(t);
    lm_kick(&t->vq[LM_TX]);
    lm_expect_no_tx(t);
    lm_assert_bit_is_last(t, 0x7000);
    lm_free(t);
}

static void test_bit_after_packed_descriptor(void)
{
    LMTest *t = lm_new_low_tx("vdpa=on,packed=on",
                              LM_BIT(VIRTIO_F_RING_PACKED), 0x10000, 0);

    /* The length, which for a sent packet is written as 0 */
    lm_log_at(t, 0x10008, 0x1000c);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_assert_bit_is_last(t, 0x10000);
    lm_free(t);
}

static void test_bit_after_event_suppression(void)
{
    LMTest *t = lm_new_low_tx("vdpa=on,packed=on",
                              LM_BIT(VIRTIO_F_RING_PACKED), 0, 0x7000);

    lm_log_at(t, 0x7003, 0x7004);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    lm_assert_bit_is_last(t, 0x7000);
    lm_free(t);
}

/* A VMM that reads and clears the log, and copies what it says, at any time */
static void lm_harvest(LMTest *t, uint8_t *copy)
{
    uint64_t byte, bit;

    for (byte = t->base; byte < t->end; byte++) {
        uint8_t bits = qatomic_xchg((uint8_t *)lm_ptr(t, byte), 0);

        for (bit = 0; bit < 8; bit++) {
            uint64_t addr = ((byte - t->base) * 8 + bit) * LM_PAGE;

            if (bits & 1 << bit) {
                memcpy(copy + addr, t->ram + addr, LM_PAGE);
            }
        }
    }
}

static void test_harvest_under_load(const void *ring)
{
    LMTest *t = lm_new_logging(ring, LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    LMQueue *q = &t->vq[LM_RX];
    g_autofree uint8_t *copy = g_malloc(LM_RAM_SIZE);
    unsigned round, i, left;
    uint64_t start = t->next_page;

    for (round = 0; round < 30; round++) {
        int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
        uint16_t id;
        uint32_t len;

        t->next_page = start;
        for (i = 0; i < 120; i++) {
            lm_add_rx(t, 2 * LM_PAGE, &id);
        }
        lm_kick(q);
        lm_snapshot(t);
        memcpy(copy, t->ram, LM_RAM_SIZE);
        left = 60;
        for (i = 0; left; i++) {
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
            lm_harvest(t, copy);
            if (i < 60) {
                while (send(t->net, copy, 9000, 0) < 0) {
                    g_assert_cmpint(errno, ==, EAGAIN);
                    g_assert_cmpint(g_get_monotonic_time(), <, deadline);
                    lm_harvest(t, copy);
                }
            }
            while (lm_get_used(q, &id, &len)) {
                left -= len < 2 * LM_PAGE;
            }
        }
        lm_suspend(t);
        lm_harvest(t, copy);
        memset(copy + t->base, 0, t->end - t->base);
        for (i = 0; i < LM_RAM_SIZE; i += LM_PAGE) {
            if (memcmp(copy + i, t->ram + i, LM_PAGE)) {
                g_error("page 0x%x was written after its bit was read", i);
            }
        }
        lm_resume(t);
    }
    lm_free(t);
}

/* What goes where */

static void test_off_logs_nothing(void)
{
    LMTest *t = lm_new_logging(&rings[0], 0);

    lm_snapshot(t);
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 0);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    g_assert_false(lm_logged(t, t->vq[LM_TX].used));

    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 3);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    g_assert_true(lm_logged(t, t->vq[LM_TX].used));
    lm_free(t);
}

static void test_bits_are_only_set(void)
{
    LMTest *t = lm_new_logging(&rings[1], 0);
    LMQueue *q = &t->vq[LM_TX];
    uint64_t byte;
    uint16_t id;

    memset(lm_ptr(t, t->base), 0x5a, t->end - t->base);
    id = lm_tx(t, 60, 0);
    lm_wait_used(q, id);
    g_assert_true(lm_logged(t, q->used));
    for (byte = t->base; byte < t->end; byte++) {
        g_assert_cmphex(*(uint8_t *)lm_ptr(t, byte) & 0x5a, ==, 0x5a);
    }
    lm_free(t);
}

/* The test on one CPU, the device's thread on another; false if there is one */
static bool lm_part_cpus(LMTest *t)
{
    pid_t pids[] = { 0, qtest_pid(t->qts) };
    cpu_set_t all, one;
    unsigned i, cpu = 0;

    g_assert_no_errno(sched_getaffinity(0, sizeof(all), &all));
    if (CPU_COUNT(&all) < ARRAY_SIZE(pids)) {
        return false;
    }
    for (i = 0; i < ARRAY_SIZE(pids); i++, cpu++) {
        while (!CPU_ISSET(cpu, &all)) {
            cpu++;
        }
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        g_assert_no_errno(sched_setaffinity(pids[i], sizeof(one), &one));
    }
    return true;
}

/*
 * Others write to the bitmap, too: whatever they do to bits of a byte while the
 * device sets another one in it, none of them is lost and none comes back. That
 * takes both of them at work at the same time, which a busy machine seldom has:
 * go on until the device was seen to make progress often enough.
 */
static void test_bits_are_set_atomically(void)
{
    LMTest *t = lm_new_logging(&rings[0], 0);
    LMQueue *q = &t->vq[LM_TX];
    uint64_t page = q->used / LM_PAGE, addr = lm_pages(t, 1);
    uint8_t *byte = lm_ptr(t, t->base + page / 8);
    uint8_t mine = ~(1 << page % 8), bits = 0;
    unsigned round, i, seen = 0;
    cpu_set_t cpus;

    g_assert_no_errno(sched_getaffinity(0, sizeof(cpus), &cpus));
    if (!lm_part_cpus(t)) {
        g_test_skip("one CPU never does two things at the same time");
        lm_free(t);
        return;
    }
    /* What is sent is dropped at once: many writes in a short time */
    lm_set_link(t, false);
    qatomic_set(byte, 0);
    for (round = 0; round < 10000 && seen < 50000; round++) {
        int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
        unsigned left = q->num;
        bool waited = true;
        uint16_t id;
        uint32_t len;

        for (i = 0; i < left; i++) {
            lm_add_buf(q, addr, 60, false);
        }
        lm_kick(q);
        for (i = 0; left; i++) {
            uint8_t bit = 1 << i % 8 & mine;

            g_assert_cmphex(qatomic_fetch_xor(byte, bit) & mine, ==, bits);
            bits ^= bit;
            if (lm_get_used(q, &id, &len)) {
                left--;
                seen += waited;
                waited = false;
            } else {
                waited = true;
                g_assert_cmpint(g_get_monotonic_time(), <, deadline);
            }
        }
    }
    g_test_message("%u rounds, progress seen %u times", round, seen);
    g_assert_cmphex(qatomic_read(byte), ==, 0xff & (bits | ~mine));
    lm_assert_no_fault(t);
    lm_free(t);
    g_assert_no_errno(sched_setaffinity(0, sizeof(cpus), &cpus));
}

static void test_range_takes_effect_when_enabled(void)
{
    LMTest *t = lm_new_logging(&rings[0], 0);
    uint64_t base = t->base, end = t->end, other = lm_pages(t, 2);

    /* Written, but not told to be used */
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, other);
    lm_write(t, VIRTIO_LM_END_ADDR_LOW, other + 1);
    lm_poison(t);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    g_assert_true(lm_logged(t, t->vq[LM_TX].used));
    lm_assert_no_fault(t);

    lm_log_at(t, other, other + end - base);
    memset(lm_ptr(t, base), 0, end - base);
    lm_poison(t);
    lm_snapshot(t);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 1));
    g_assert_true(lm_logged(t, t->vq[LM_TX].used));
    g_assert_false(lm_written(t, base));
    lm_free(t);
}

/* A property of the device that tells of the LM block */
static QDict *lm_property(LMTest *t, const char *name)
{
    QDict *answer = qtest_qmp(t->qts, "{'execute': 'qom-get', 'arguments':"
                              " {'path': '/machine/peripheral/net0',"
                              " 'property': %s}}", name);

    g_assert_true(qdict_haskey(answer, "return"));
    return answer;
}

static bool lm_flag(LMTest *t, const char *name)
{
    QDict *answer = lm_property(t, name);
    bool value = qdict_get_bool(answer, "return");

    qobject_unref(answer);
    return value;
}

static uint64_t lm_address(LMTest *t, const char *name)
{
    QDict *answer = lm_property(t, name);
    uint64_t value = qdict_get_int(answer, "return");

    qobject_unref(answer);
    return value;
}

static void test_properties(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    uint64_t base;

    lm_start(t, 0);
    g_assert_false(lm_flag(t, "lm-suspended"));
    g_assert_false(lm_flag(t, "lm-logging"));
    g_assert_false(lm_flag(t, "lm-log-fault"));

    base = lm_pages(t, 1);
    lm_log_at(t, base, base + 1);
    g_assert_true(lm_flag(t, "lm-logging"));
    g_assert_cmphex(lm_address(t, "lm-log-base"), ==, base);
    g_assert_cmphex(lm_address(t, "lm-log-end"), ==, base + 1);

    /* Written, but not told to be used */
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, base + 2);
    g_assert_cmphex(lm_address(t, "lm-log-base"), ==, base);

    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 60, 0));
    g_assert_true(lm_flag(t, "lm-log-fault"));

    lm_suspend(t);
    g_assert_true(lm_flag(t, "lm-suspended"));
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, VIRTIO_LM_LOGGING_OFF);
    lm_write(t, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
    g_assert_false(lm_flag(t, "lm-logging"));
    g_assert_false(lm_flag(t, "lm-log-fault"));
    lm_free(t);
}

static void test_base_switch_under_load(const void *ring)
{
    LMTest *t = lm_new_logging(ring, LM_BIT(VIRTIO_NET_F_MRG_RXBUF));
    LMQueue *q = &t->vq[LM_RX];
    uint64_t size = t->end - t->base;
    uint64_t bitmap[2] = { t->base, lm_pages(t, 2) + 33 };
    g_autofree uint8_t *old = g_malloc(size);
    unsigned round, i;

    for (round = 0; round < 20; round++) {
        uint64_t from = bitmap[round % 2], to = bitmap[!(round % 2)];
        uint16_t ids[40];

        for (i = 0; i < ARRAY_SIZE(ids); i++) {
            lm_add_rx(t, 1600, &ids[i]);
        }
        lm_kick(q);
        lm_poison(t);
        lm_snapshot(t);
        /* Some before, some any time, some after */
        lm_send(t, 1500, 0);
        lm_wait_used(q, ids[0]);
        for (i = 1; i < 9; i++) {
            lm_send(t, 1500, i);
        }
        lm_log_at(t, to, to + size);
        memcpy(old, lm_ptr(t, from), size);
        for (; i < ARRAY_SIZE(ids); i++) {
            lm_send(t, 1500, i);
        }
        for (i = 1; i < ARRAY_SIZE(ids); i++) {
            lm_wait_used(q, ids[i]);
        }

        g_assert_cmpmem(lm_ptr(t, from), size, old, size);
        g_assert_true(lm_logged(t, q->used));
        for (i = 0; i < size; i++) {
            *(uint8_t *)lm_ptr(t, to + i) |= old[i];
        }
        memset(lm_ptr(t, from), 0, size);
        g_assert_cmpuint(lm_check_log(t), >, ARRAY_SIZE(ids));
        lm_assert_no_fault(t);
    }
    lm_free(t);
}

/* Faults */

static void lm_traffic(LMTest *t, uint32_t seq)
{
    uint16_t id;
    uint64_t addr = lm_add_rx(t, 2000, &id);

    lm_kick(&t->vq[LM_RX]);
    lm_send(t, 1000, seq);
    lm_expect_rx(t, addr, id, 1000, seq);
    lm_wait_used(&t->vq[LM_TX], lm_tx(t, 1000, seq));
    lm_expect_tx(t, 1000, seq);
}

/* What cannot be logged is said, until it is acknowledged, and works */
static void lm_assert_faults(LMTest *t, uint64_t base, uint64_t end)
{
    const uint32_t fault = VIRTIO_LM_STATUS_LOG_FAULT;

    lm_log_at(t, base, end);
    lm_assert_no_fault(t);
    lm_traffic(t, base);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_LOGGING | fault);

    /* Neither a good bitmap, nor none, nor a suspend takes it away */
    t->end = 0;
    lm_log_start(t);
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, 0);
    lm_suspend(t);
    lm_resume(t);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, fault);
    lm_write(t, VIRTIO_LM_STATUS, fault);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==, 0);

    lm_log_at(t, base, end);
    lm_traffic(t, base + 1);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS), ==,
                    VIRTIO_LM_STATUS_LOGGING | fault);
    lm_write(t, VIRTIO_LM_STATUS, fault);

    t->end = 0;
    lm_log_start(t);
    lm_traffic(t, base + 2);
    lm_assert_no_fault(t);
}

static void test_fault(const void *where)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    const char *name = where;
    uint64_t size = LM_RAM_SIZE / LM_PAGE / 8, base, end;

    lm_start(t, 0);
    if (!strcmp(name, "past-end")) {
        base = lm_pages(t, 1);
        end = base + 1;
    } else if (!strcmp(name, "mmio")) {
        /* Of all registers, those that the test reads afterwards */
        base = t->lm + VIRTIO_LM_BASE_ADDR_LOW;
        end = base + size;
    } else if (!strcmp(name, "rom")) {
        base = 0xfffc0000;
        end = base + size;
    } else if (!strcmp(name, "nothing")) {
        base = 0xd0000000;
        end = base + size;
    } else if (!strcmp(name, "end-of-memory")) {
        base = LM_RAM_SIZE - 1;
        end = base + size;
    } else {
        base = UINT64_MAX - size;
        end = UINT64_MAX;
    }
    lm_assert_faults(t, base, end);
    lm_free(t);
}

static void test_last_page_that_fits(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    LMQueue *q = &t->vq[LM_RX];
    uint64_t base, last;
    uint16_t id;

    lm_start(t, 0);
    base = lm_pages(t, 1);
    do {
        last = lm_pages(t, 1);
    } while (last / LM_PAGE % 8 != 7);
    lm_log_at(t, base, base + last / LM_PAGE / 8 + 1);
    lm_snapshot(t);

    /* Ends with the last byte of the page that the last bit is for */
    id = lm_add_buf(q, last, LM_PAGE, true);
    lm_kick(q);
    lm_send(t, LM_PAGE - LM_HDR_LEN, 0);
    lm_wait_used(q, id);
    lm_assert_no_fault(t);
    g_assert_true(lm_logged(t, last));

    id = lm_add_buf(q, last, LM_PAGE + 1, true);
    lm_kick(q);
    lm_send(t, LM_PAGE + 1 - LM_HDR_LEN, 0);
    lm_wait_used(q, id);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS) & VIRTIO_LM_STATUS_LOG_FAULT,
                    !=, 0);
    g_assert_cmphex(*(uint8_t *)lm_ptr(t, t->end), ==, 0);
    lm_free(t);
}

static void test_bitmap_is_not_logged(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    LMQueue *q = &t->vq[LM_RX];
    uint64_t addr;
    uint16_t id;

    lm_start(t, 0);
    addr = lm_pages(t, 5);

    /* All within the bitmap, which has a page before and behind it */
    lm_log_at(t, addr + LM_PAGE, addr + 4 * LM_PAGE);
    lm_snapshot(t);
    id = lm_add_buf(q, addr + 2 * LM_PAGE, 1000, true);
    lm_kick(q);
    lm_send(t, 900, 0);
    lm_wait_used(q, id);
    g_assert_false(lm_logged(t, addr + 2 * LM_PAGE));
    lm_assert_no_fault(t);

    /* It reaches out of both ends */
    lm_snapshot(t);
    id = lm_add_buf(q, addr + LM_PAGE - 20, 3 * LM_PAGE + 40, true);
    lm_kick(q);
    lm_send(t, 3 * LM_PAGE + 40 - LM_HDR_LEN, 0);
    lm_wait_used(q, id);
    lm_assert_no_fault(t);
    g_assert_true(lm_logged(t, addr));
    g_assert_true(lm_logged(t, addr + 4 * LM_PAGE));
    lm_free(t);
}

/* A bitmap with no room for its own pages does not fault for them */
static void test_bitmap_has_no_bits_for_itself(void)
{
    LMTest *t = lm_new(LM_ON_ROOT_BUS, "vdpa=on");
    LMQueue *q = &t->vq[LM_RX];
    uint64_t base = LM_RAM_SIZE - LM_PAGE;
    uint16_t id;

    lm_start(t, 0);
    lm_log_at(t, base, base + t->next_page / LM_PAGE / 8 + 1);
    id = lm_add_buf(q, base, 30, true);
    lm_kick(q);
    lm_send(t, 30 - LM_HDR_LEN, 0);
    lm_wait_used(q, id);
    lm_assert_no_fault(t);
    lm_free(t);
}

/*
 * Bits where a ring is are what the driver has asked for: the device takes them
 * for what they are not, or finds them wrong and stops. It is there all the
 * same, and a reset makes it as good as new.
 */
static void test_bitmap_over_ring(const void *opaque)
{
    const LMRing *ring = opaque;
    LMTest *t = lm_new(LM_ON_ROOT_BUS, ring->props);
    uint64_t size = LM_RAM_SIZE / LM_PAGE / 8, start = t->next_page;
    uint8_t packet[100] = { 0 };
    unsigned n, part, i;

    for (n = LM_RX; n <= LM_TX; n++) {
        for (part = 0; part < 3; part++) {
            LMQueue *q = &t->vq[n];
            int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
            uint64_t base, *parts[] = { &q->desc, &q->avail, &q->used };
            uint16_t id;
            int left;

            lm_start(t, ring->features);
            base = *parts[part];
            lm_log_at(t, base, base + size);
            for (i = 0; i < 20; i++) {
                lm_add_rx(t, 2000, &id);
                lm_kick(&t->vq[LM_RX]);
                /* It need not get anywhere */
                send(t->net, packet, sizeof(packet), MSG_DONTWAIT);
                lm_tx(t, 60, i);
                lm_settle(t);
            }
            g_assert_cmphex(lm_read(t, VIRTIO_LM_BASE_ADDR_LOW), ==, base);
            lm_suspend(t);
            lm_resume(t);

            lm_set_status(t, 0);
            do {
                g_assert_cmpint(g_get_monotonic_time(), <, deadline);
                lm_settle(t);
                g_assert_no_errno(ioctl(t->net, SIOCOUTQ, &left));
            } while (left);
            while (recv(t->net, packet, sizeof(packet), MSG_DONTWAIT) >= 0) {
                continue;
            }
            memset(t->ram, 0, LM_RAM_SIZE);
            t->next_page = start;
            t->end = 0;
            lm_start(t, ring->features);
            lm_log_start(t);
            lm_traffic(t, n * 3 + part);
            lm_assert_no_fault(t);
            lm_set_status(t, 0);
        }
    }
    lm_free(t);
}

/* Random layouts */

/* @head: bytes that are in one page, at least */
static unsigned lm_random_segs(LMTest *t, GRand *rand, LMSeg *segs,
                               unsigned max, uint32_t len, uint32_t head,
                               bool in)
{
    unsigned num = 0;

    while (len) {
        LMSeg *seg = &segs[num++];
        uint32_t offset = g_rand_int_range(rand, 0, LM_PAGE - head + 1);

        seg->len = num == max ? len : g_rand_int_range(rand, head, len + 1);
        head = 1;
        seg->in = in;
        seg->addr = lm_pages(t, DIV_ROUND_UP(offset + seg->len, LM_PAGE)) +
                    offset;
        memset(lm_ptr(t, seg->addr), 0xa5, seg->len);
        len -= seg->len;
    }
    return num;
}

static void lm_random_tx(LMTest *t, GRand *rand)
{
    LMQueue *q = &t->vq[LM_TX];
    uint16_t ids[4];
    unsigned i, num = g_rand_int_range(rand, 1, 5);

    for (i = 0; i < num; i++) {
        LMSeg segs[4];
        unsigned n = lm_random_segs(t, rand, segs, 4, LM_HDR_LEN +
                                    g_rand_int_range(rand, 1, 9000), 1, false);

        ids[i] = lm_add(q, segs, n, g_rand_boolean(rand));
    }
    lm_poison(t);
    lm_snapshot(t);
    lm_kick(q);
    for (i = 0; i < num; i++) {
        uint8_t byte;

        lm_wait_used(q, ids[i]);
        g_assert_cmpint(recv(t->net, &byte, 1, 0), ==, 1);
    }
}

static void lm_random_rx(LMTest *t, GRand *rand)
{
    LMQueue *q = &t->vq[LM_RX];
    bool merge = t->features & LM_BIT(VIRTIO_NET_F_MRG_RXBUF);
    uint32_t len = g_rand_int_range(rand, 1, 20000), room = 0, used = 0;
    uint16_t ids[16];
    unsigned i, num = 0;

    /* Room for the packet, whole or in pieces, and perhaps too much */
    while (room < LM_HDR_LEN + len) {
        uint32_t left = LM_HDR_LEN + len - room;
        uint32_t size = left + g_rand_int_range(rand, 0, 9000);
        LMSeg segs[4];
        unsigned n;

        if (merge && num < ARRAY_SIZE(ids) - 1) {
            size = g_rand_int_range(rand, LM_HDR_LEN, size + LM_HDR_LEN);
        }
        n = lm_random_segs(t, rand, segs, 4, size, 1, true);
        ids[num++] = lm_add(q, segs, n, g_rand_boolean(rand));
        room += size;
    }
    lm_kick(q);
    lm_poison(t);
    lm_snapshot(t);
    lm_send(t, len, num);
    for (i = 0; i < num; i++) {
        used += lm_wait_used(q, ids[i]);
    }
    g_assert_cmpuint(used, ==, LM_HDR_LEN + len);
}

static void test_random(const void *opaque)
{
    const LMRing *ring = opaque;
    g_autoptr(GRand) rand = lm_rand();
    LMTest *t = lm_new(LM_ON_ROOT_BUS, ring->props);
    uint64_t start = t->next_page;
    unsigned round, step;

    for (round = 0; round < 25; round++) {
        bool merge = g_rand_boolean(rand);

        t->next_page = start;
        t->end = 0;
        memset(lm_ptr(t, start), 0, 16 * MiB);
        lm_negotiate(t, ring->features | LM_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                     (merge ? LM_BIT(VIRTIO_NET_F_MRG_RXBUF) : 0));
        lm_queue_init(t, LM_RX, 64 << g_rand_int_range(rand, 0, 3));
        lm_queue_init(t, LM_TX, 64 << g_rand_int_range(rand, 0, 3));
        lm_queue_enable(&t->vq[LM_RX]);
        lm_queue_enable(&t->vq[LM_TX]);
        lm_driver_ok(t);
        lm_log_start(t);

        for (step = 0; step < 12; step++) {
            switch (g_rand_int_range(rand, 0, 5)) {
            case 0:
            case 1:
                lm_random_tx(t, rand);
                break;
            case 2:
            case 3:
                lm_random_rx(t, rand);
                break;
            default:
                lm_poison(t);
                lm_snapshot(t);
                lm_suspend(t);
                lm_resume(t);
                break;
            }
            g_assert_cmpuint(lm_check_log(t), >, 0);
            lm_assert_no_fault(t);
        }
    }
    lm_free(t);
}

static void lm_add_per_ring(const char *name, void (*fn)(const void *))
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(rings); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-lm/log/%s/%s", name,
                                                rings[i].name);

        qtest_add_data_func(path, &rings[i], fn);
    }
}

void lm_add_log_tests(void)
{
    static const char *const faults[] = {
        "past-end", "mmio", "rom", "nothing", "end-of-memory", "end-of-space",
    };
    unsigned i;

    lm_add_per_ring("tx", test_tx);
    lm_add_per_ring("rx", test_rx);
    lm_add_per_ring("rx-segments", test_rx_segments);
    lm_add_per_ring("rx-mergeable", test_rx_mergeable);
    lm_add_per_ring("rx-too-small", test_rx_too_small);
    lm_add_per_ring("control-ack", test_control_ack);
    lm_add_per_ring("notification", test_notification);
    lm_add_per_ring("drop-with-link-down", test_drop_with_link_down);

    qtest_add_func("/virtio-lm/log/bit-after/buffer", test_bit_after_buffer);
    qtest_add_func("/virtio-lm/log/bit-after/used-element",
                   test_bit_after_used_element);
    qtest_add_func("/virtio-lm/log/bit-after/used-idx",
                   test_bit_after_used_idx);
    qtest_add_func("/virtio-lm/log/bit-after/used-flags",
                   test_bit_after_used_flags);
    qtest_add_func("/virtio-lm/log/bit-after/avail-event",
                   test_bit_after_avail_event);
    qtest_add_func("/virtio-lm/log/bit-after/packed-descriptor",
                   test_bit_after_packed_descriptor);
    qtest_add_func("/virtio-lm/log/bit-after/event-suppression",
                   test_bit_after_event_suppression);
    lm_add_per_ring("harvest-under-load", test_harvest_under_load);

    qtest_add_func("/virtio-lm/log/off-logs-nothing", test_off_logs_nothing);
    qtest_add_func("/virtio-lm/log/bits-are-only-set",
                   test_bits_are_only_set);
    qtest_add_func("/virtio-lm/log/bits-are-set-atomically",
                   test_bits_are_set_atomically);
    qtest_add_func("/virtio-lm/log/range-takes-effect-when-enabled",
                   test_range_takes_effect_when_enabled);
    qtest_add_func("/virtio-lm/log/properties", test_properties);
    lm_add_per_ring("base-switch-under-load", test_base_switch_under_load);

    for (i = 0; i < ARRAY_SIZE(faults); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-lm/log/fault/%s",
                                                faults[i]);

        qtest_add_data_func(path, faults[i], test_fault);
    }
    qtest_add_func("/virtio-lm/log/last-page-that-fits",
                   test_last_page_that_fits);
    qtest_add_func("/virtio-lm/log/bitmap-is-not-logged",
                   test_bitmap_is_not_logged);
    qtest_add_func("/virtio-lm/log/bitmap-has-no-bits-for-itself",
                   test_bitmap_has_no_bits_for_itself);
    lm_add_per_ring("bitmap-over-ring", test_bitmap_over_ring);
    lm_add_per_ring("random", test_random);
}
