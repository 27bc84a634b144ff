/*
 * The rings and packets of the driver in virtio-lm-common.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include "qemu/atomic.h"
#include "virtio-lm-common.h"

/* virtio */

#define COMMON(field) (t->common + \
                       offsetof(struct virtio_pci_common_cfg, field))

uint8_t lm_status(LMTest *t)
{
    return qtest_readb(t->qts, COMMON(device_status));
}

void lm_set_status(LMTest *t, uint8_t status)
{
    qtest_writeb(t->qts, COMMON(device_status), status);
}

uint64_t lm_host_features(LMTest *t)
{
    uint64_t features;

    qtest_writel(t->qts, COMMON(device_feature_select), 1);
    features = (uint64_t)qtest_readl(t->qts, COMMON(device_feature)) << 32;
    qtest_writel(t->qts, COMMON(device_feature_select), 0);
    return features | qtest_readl(t->qts, COMMON(device_feature));
}

/* From a reset up to FEATURES_OK, with @features, offered or not */
void lm_set_features(LMTest *t, uint64_t features)
{
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    lm_set_status(t, 0);
    lm_set_status(t, status);
    qtest_writel(t->qts, COMMON(guest_feature_select), 0);
    qtest_writel(t->qts, COMMON(guest_feature), features);
    qtest_writel(t->qts, COMMON(guest_feature_select), 1);
    qtest_writel(t->qts, COMMON(guest_feature), features >> 32);
    lm_set_status(t, status | VIRTIO_CONFIG_S_FEATURES_OK);
    g_assert_cmphex(lm_status(t), ==, status | VIRTIO_CONFIG_S_FEATURES_OK);
}

/* The same with @features and what cannot be left out, all of them offered */
void lm_negotiate(LMTest *t, uint64_t features)
{
    unsigned n;

    features |= LM_BIT(VIRTIO_F_VERSION_1);
    if (t->place == LM_BEHIND_IOMMU) {
        features |= LM_BIT(VIRTIO_F_ACCESS_PLATFORM);
    }
    g_assert_cmphex(features & ~lm_host_features(t), ==, 0);
    t->features = features;
    for (n = 0; n < LM_MAX_QUEUES; n++) {
        t->vq[n].num = 0;
    }
    lm_set_features(t, features);
}

bool lm_packed(LMTest *t)
{
    return t->features & LM_BIT(VIRTIO_F_RING_PACKED);
}

bool lm_event_idx(LMTest *t)
{
    return t->features & LM_BIT(VIRTIO_RING_F_EVENT_IDX);
}

/*
 * Lay out queue @n. A page boundary is in its used ring, so that what is on the
 * two sides has bits of its own: of the receive queue, index and flags are on
 * one side, of the others the avail event.
 */
void lm_queue_init(LMTest *t, unsigned n, unsigned num)
{
    LMQueue *q = &t->vq[n];
    unsigned before = offsetof(struct vring_used, ring) +
                      (n == LM_RX ? 0 : num * sizeof(struct vring_used_elem));
    unsigned boundary = ROUND_UP(before, LM_PAGE) - before;

    memset(q, 0, sizeof(*q));
    q->t = t;
    q->n = n;
    q->num = num;
    q->avail_wrap = true;
    q->used_wrap = true;
    q->desc = lm_pages(t, DIV_ROUND_UP(num * sizeof(struct vring_desc),
                                       LM_PAGE));
    q->avail = lm_pages(t, DIV_ROUND_UP(num * 2 + 6, LM_PAGE));
    q->used = lm_pages(t, DIV_ROUND_UP(boundary + num * 8 + 6, LM_PAGE));
    if (!lm_packed(t)) {
        q->used += boundary;
    }
}

void lm_queue_enable(LMQueue *q)
{
    LMTest *t = q->t;

    qtest_writew(t->qts, COMMON(queue_select), q->n);
    qtest_writew(t->qts, COMMON(queue_size), q->num);
    qtest_writel(t->qts, COMMON(queue_desc_lo), q->desc);
    qtest_writel(t->qts, COMMON(queue_desc_hi), q->desc >> 32);
    qtest_writel(t->qts, COMMON(queue_avail_lo), q->avail);
    qtest_writel(t->qts, COMMON(queue_avail_hi), q->avail >> 32);
    qtest_writel(t->qts, COMMON(queue_used_lo), q->used);
    qtest_writel(t->qts, COMMON(queue_used_hi), q->used >> 32);
    qtest_writew(t->qts, COMMON(queue_enable), 1);
}

void lm_driver_ok(LMTest *t)
{
    lm_set_status(t, lm_status(t) | VIRTIO_CONFIG_S_DRIVER_OK);
}

void lm_start(LMTest *t, uint64_t features)
{
    unsigned n, num = features & LM_BIT(VIRTIO_NET_F_CTRL_VQ) ? 3 : 2;

    lm_negotiate(t, features);
    for (n = 0; n < num; n++) {
        lm_queue_init(t, n, n == LM_CVQ ? 64 : 256);
        lm_queue_enable(&t->vq[n]);
    }
    lm_driver_ok(t);
}

/* Go on where a LM_RING_STATE of @state says, for a ring that is all used */
void lm_queue_set_state(LMQueue *q, uint32_t state)
{
    q->avail_idx = state;
    q->used_idx = state >> 16;
    if (lm_packed(q->t)) {
        q->avail_wrap = q->avail_idx >> 15;
        q->avail_idx &= 0x7fff;
        q->used_wrap = q->used_idx >> 15;
        q->used_idx &= 0x7fff;
    } else {
        stw_le_p(lm_ptr(q->t, q->avail + 2), q->avail_idx);
        stw_le_p(lm_ptr(q->t, q->used + 2), q->used_idx);
    }
}

/* Write descriptor @i of @table, split or packed; the flags of a packed last */
static void lm_put_desc(LMTest *t, uint64_t table, unsigned i,
                        const LMSeg *seg, uint16_t flags, uint16_t id_or_next)
{
    if (seg->in) {
        flags |= VRING_DESC_F_WRITE;
    }
    if (lm_packed(t)) {
        struct vring_packed_desc *desc = lm_ptr(t, table + i * sizeof(*desc));

        desc->addr = cpu_to_le64(seg->addr);
        desc->len = cpu_to_le32(seg->len);
        desc->id = cpu_to_le16(id_or_next);
        qatomic_store_release(&desc->flags, cpu_to_le16(flags));
    } else {
        struct vring_desc *desc = lm_ptr(t, table + i * sizeof(*desc));

        desc->addr = cpu_to_le64(seg->addr);
        desc->len = cpu_to_le32(seg->len);
        desc->flags = cpu_to_le16(flags);
        desc->next = cpu_to_le16(id_or_next);
    }
}

static uint16_t lm_add_split(LMQueue *q, const LMSeg *segs, unsigned num,
                             uint16_t flags)
{
    uint16_t head = q->next_desc;
    unsigned i;

    for (i = 0; i < num; i++) {
        uint16_t next = (q->next_desc + 1) % q->num;

        lm_put_desc(q->t, q->desc, q->next_desc, &segs[i],
                    flags | (i < num - 1 ? VRING_DESC_F_NEXT : 0), next);
        q->next_desc = next;
    }
    stw_le_p(lm_ptr(q->t, q->avail + 4 + q->avail_idx % q->num * 2), head);
    q->avail_idx++;
    qatomic_store_release((uint16_t *)lm_ptr(q->t, q->avail + 2),
                          cpu_to_le16(q->avail_idx));
    return head;
}

/* The buffer ID is the index of its first descriptor */
static uint16_t lm_add_packed(LMQueue *q, const LMSeg *segs, unsigned num,
                              uint16_t flags)
{
    uint16_t head = q->avail_idx;
    unsigned i;

    /* The device goes by the flags of the first: write that last */
    for (i = num; i-- > 0;) {
        unsigned idx = (head + i) % q->num;
        bool wrap = q->avail_wrap ^ (head + i >= q->num);

        lm_put_desc(q->t, q->desc, idx, &segs[i],
                    flags | (i < num - 1 ? VRING_DESC_F_NEXT : 0) |
                    wrap << VRING_PACKED_DESC_F_AVAIL |
                    !wrap << VRING_PACKED_DESC_F_USED, head);
    }
    q->ndescs[head] = num;
    q->avail_idx += num;
    if (q->avail_idx >= q->num) {
        q->avail_idx -= q->num;
        q->avail_wrap ^= 1;
    }
    return head;
}

/* Make a buffer of @num segments available, out ones first; returns its ID */
uint16_t lm_add(LMQueue *q, const LMSeg *segs, unsigned num, bool indirect)
{
    uint16_t flags = 0;
    LMSeg table;
    unsigned i;

    if (indirect) {
        table.len = num * sizeof(struct vring_desc);
        table.addr = lm_pages(q->t, DIV_ROUND_UP(table.len, LM_PAGE));
        table.in = false;
        for (i = 0; i < num; i++) {
            lm_put_desc(q->t, table.addr, i, &segs[i],
                        i < num - 1 ? VRING_DESC_F_NEXT : 0, i + 1);
        }
        segs = &table;
        num = 1;
        flags = VRING_DESC_F_INDIRECT;
    }

    return lm_packed(q->t) ? lm_add_packed(q, segs, num, flags) :
                             lm_add_split(q, segs, num, flags);
}

uint16_t lm_add_buf(LMQueue *q, uint64_t addr, uint32_t len, bool in)
{
    const LMSeg seg = { addr, len, in };

    return lm_add(q, &seg, 1, false);
}

void lm_kick(LMQueue *q)
{
    LMTest *t = q->t;

    qtest_writew(t->qts, COMMON(queue_select), q->n);
    qtest_writew(t->qts, t->notify + t->notify_mult *
                 qtest_readw(t->qts, COMMON(queue_notify_off)), q->n);
}

static bool lm_get_used_split(LMQueue *q, uint16_t *id, uint32_t *len)
{
    uint8_t *used = lm_ptr(q->t, q->used);
    uint8_t *elem = used + offsetof(struct vring_used, ring) +
                    q->used_idx % q->num * sizeof(struct vring_used_elem);

    if (le16_to_cpu(qatomic_load_acquire((uint16_t *)(used + 2))) ==
        q->used_idx) {
        return false;
    }
    *id = ldl_le_p(elem);
    *len = ldl_le_p(elem + 4);
    q->used_idx++;
    return true;
}

static bool lm_get_used_packed(LMQueue *q, uint16_t *id, uint32_t *len)
{
    struct vring_packed_desc *desc = lm_ptr(q->t, q->desc +
                                            q->used_idx * sizeof(*desc));
    uint16_t flags = le16_to_cpu(qatomic_load_acquire(&desc->flags));
    bool avail = flags & BIT(VRING_PACKED_DESC_F_AVAIL);
    bool used = flags & BIT(VRING_PACKED_DESC_F_USED);

    if (avail != used || used != q->used_wrap) {
        return false;
    }
    *id = le16_to_cpu(desc->id);
    *len = le32_to_cpu(desc->len);
    g_assert_cmpuint(*id, <, q->num);
    q->used_idx += q->ndescs[*id];
    if (q->used_idx >= q->num) {
        q->used_idx -= q->num;
        q->used_wrap ^= 1;
    }
    return true;
}

bool lm_get_used(LMQueue *q, uint16_t *id, uint32_t *len)
{
    return lm_packed(q->t) ? lm_get_used_packed(q, id, len) :
                             lm_get_used_split(q, id, len);
}

/* Let a transmit timer expire, if there is one */
void lm_tx_timer(LMTest *t)
{
    if (strstr(t->props, "tx=timer")) {
        qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND / 100);
    }
}

/* Wait for the device to be done with a buffer, and with all of its event */
uint16_t lm_next_used(LMQueue *q, uint32_t *len)
{
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    uint16_t id;

    while (!lm_get_used(q, &id, len)) {
        if (g_get_monotonic_time() > deadline) {
            g_error("no buffer of vq %u was used in time, ring state 0x%x",
                    q->n, lm_ring_state(q->t, q->n));
        }
        g_usleep(100);
    }
    lm_settle(q->t);
    return id;
}

uint32_t lm_wait_used(LMQueue *q, uint16_t id)
{
    uint32_t len;

    g_assert_cmpuint(lm_next_used(q, &len), ==, id);
    return len;
}

/* Packets */

/* All even: a byte that arrives differs from the 0xa5 that was in its place */
void lm_fill(uint8_t *data, unsigned len, uint32_t seq)
{
    unsigned i;

    for (i = 0; i < len; i++) {
        data[i] = ((seq + 1) * 0x9e3779b1u >> (i % 4 * 8) ^ i >> 2) & 0xfe;
    }
}

/* A packet of @len bytes, in @num descriptors if that is more than one */
uint16_t lm_add_tx(LMTest *t, unsigned len, uint32_t seq, unsigned num)
{
    uint64_t addr = lm_pages(t, DIV_ROUND_UP(LM_HDR_LEN + len, LM_PAGE));
    unsigned i, left = LM_HDR_LEN + len;
    LMSeg segs[8];

    memset(lm_ptr(t, addr), 0, LM_HDR_LEN);
    lm_fill(lm_ptr(t, addr + LM_HDR_LEN), len, seq);
    g_assert_cmpuint(num, <=, ARRAY_SIZE(segs));
    for (i = 0; i < num; i++) {
        segs[i].addr = addr;
        segs[i].len = left / (num - i);
        segs[i].in = false;
        addr += segs[i].len;
        left -= segs[i].len;
    }
    return lm_add(&t->vq[LM_TX], segs, num, false);
}

uint16_t lm_tx(LMTest *t, unsigned len, uint32_t seq)
{
    uint16_t id = lm_add_tx(t, len, seq, 1);

    lm_kick(&t->vq[LM_TX]);
    return id;
}

void lm_expect_tx(LMTest *t, unsigned len, uint32_t seq)
{
    g_autofree uint8_t *want = g_malloc(len);
    g_autofree uint8_t *got = g_malloc(len + 1);
    struct pollfd pfd = { .fd = t->net, .events = POLLIN };

    g_assert_cmpint(poll(&pfd, 1, LM_DEADLINE_US / 1000), ==, 1);
    g_assert_cmpint(recv(t->net, got, len + 1, 0), ==, len);
    lm_fill(want, len, seq);
    g_assert_cmpmem(got, len, want, len);
}

void lm_expect_no_tx(LMTest *t)
{
    char byte;

    lm_settle(t);
    g_assert_cmpint(recv(t->net, &byte, 1, MSG_PEEK), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
}

void lm_send(LMTest *t, unsigned len, uint32_t seq)
{
    g_autofree uint8_t *data = g_malloc(len);
    struct pollfd pfd = { .fd = t->net, .events = POLLOUT };

    lm_fill(data, len, seq);
    g_assert_cmpint(poll(&pfd, 1, LM_DEADLINE_US / 1000), ==, 1);
    g_assert_cmpint(send(t->net, data, len, 0), ==, len);
}

/* A receive buffer of @len bytes, header included; returns its address */
uint64_t lm_add_rx(LMTest *t, uint32_t len, uint16_t *id)
{
    uint64_t addr = lm_pages(t, DIV_ROUND_UP(len, LM_PAGE));

    memset(lm_ptr(t, addr), 0xa5, len);
    *id = lm_add_buf(&t->vq[LM_RX], addr, len, true);
    return addr;
}

void lm_expect_rx(LMTest *t, uint64_t addr, uint16_t id, unsigned len,
                  uint32_t seq)
{
    g_autofree uint8_t *want = g_malloc(len);

    g_assert_cmpuint(lm_wait_used(&t->vq[LM_RX], id), ==, LM_HDR_LEN + len);
    lm_fill(want, len, seq);
    g_assert_cmpmem(lm_ptr(t, addr + LM_HDR_LEN), len, want, len);
}

/*
 * Send packets of 60 bytes in @segs descriptors, numbered from @seq, until the
 * backend takes no more. Returns how many it took; the next one is in flight.
 */
unsigned lm_block_backend(LMTest *t, uint32_t seq, unsigned segs)
{
    LMQueue *q = &t->vq[LM_TX];
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    unsigned sent;

    for (sent = 0; ; sent++) {
        uint32_t old = lm_ring_state(t, LM_TX);
        uint16_t id = lm_add_tx(t, 60, seq + sent, segs);
        uint32_t state;

        lm_kick(q);
        lm_tx_timer(t);
        do {
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
            state = lm_ring_state(t, LM_TX);
        } while (state == old);
        if (state >> 16 == old >> 16) {
            return sent;
        }
        lm_wait_used(q, id);
    }
}
