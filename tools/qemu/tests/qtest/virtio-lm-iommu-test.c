/*
 * Tests of the live-migration registers of virtio-net-pci,vdpa=on: bitmap and
 * rings behind an intel-iommu
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "hw/i386/intel_iommu_internal.h"
#include "virtio-lm-common.h"

/* Guest memory is at this address of the device */
#define LM_IOVA (2 * GiB)
#define LM_DID 1

/* Second-level page table entries */
#define SL_READ_WRITE 3
#define SL_INDEX(iova, level) ((iova) >> (12 + 9 * (level)) & 0x1ff)

typedef struct LMIOMMU {
    LMTest *t;
    uint64_t pgd;
    uint64_t queue;     /* of invalidations */
    unsigned tail;
    uint64_t status;    /* of waits in it */
} LMIOMMU;

/* Physical pages; lm_pages() gives addresses of the device */
static uint64_t lm_phys_page(LMTest *t)
{
    return lm_pages(t, 1) - t->iova;
}

static uint64_t *lm_phys(LMTest *t, uint64_t addr)
{
    return lm_ptr(t, t->iova + addr);
}

static void vtd_write(LMIOMMU *v, uint64_t reg, uint64_t val)
{
    qtest_writeq(v->t->qts, Q35_HOST_BRIDGE_IOMMU_ADDR + reg, val);
}

static void vtd_command(LMIOMMU *v, uint32_t bit)
{
    uint64_t gsts = Q35_HOST_BRIDGE_IOMMU_ADDR + DMAR_GSTS_REG;
    uint32_t status = qtest_readl(v->t->qts, gsts);

    qtest_writel(v->t->qts, Q35_HOST_BRIDGE_IOMMU_ADDR + DMAR_GCMD_REG,
                 (status & (VTD_GSTS_TES | VTD_GSTS_QIES)) | bit);
    g_assert_cmphex(qtest_readl(v->t->qts, gsts) & bit, !=, 0);
}

static uint64_t *vtd_pte(LMIOMMU *v, uint64_t iova)
{
    uint64_t table = v->pgd;
    int level;

    for (level = 3; level > 0; level--) {
        uint64_t *entry = lm_phys(v->t, table) + SL_INDEX(iova, level);

        if (!*entry) {
            *entry = cpu_to_le64(lm_phys_page(v->t) | SL_READ_WRITE);
        }
        table = le64_to_cpu(*entry) & ~0xfffull;
    }
    return lm_phys(v->t, table) + SL_INDEX(iova, 0);
}

static void vtd_map(LMIOMMU *v, uint64_t iova, uint64_t phys, unsigned pages)
{
    unsigned i;

    for (i = 0; i < pages; i++) {
        *vtd_pte(v, iova + i * LM_PAGE) =
            cpu_to_le64((phys + i * LM_PAGE) | SL_READ_WRITE);
    }
}

static void vtd_unmap(LMIOMMU *v, uint64_t iova, unsigned pages)
{
    unsigned i;

    for (i = 0; i < pages; i++) {
        *vtd_pte(v, iova + i * LM_PAGE) = 0;
    }
}

static void vtd_queue(LMIOMMU *v, uint64_t lo, uint64_t hi)
{
    uint64_t *desc = lm_phys(v->t, v->queue) + v->tail * 2;

    desc[0] = cpu_to_le64(lo);
    desc[1] = cpu_to_le64(hi);
    v->tail = (v->tail + 1) % 256;
    vtd_write(v, DMAR_IQT_REG, v->tail << 4);
}

/* What a kernel does after it changed @pages mappings at @iova */
static void vtd_invalidate(LMIOMMU *v, uint64_t iova, unsigned pages)
{
    int64_t deadline = g_get_monotonic_time() + LM_DEADLINE_US;
    uint64_t *status = lm_phys(v->t, v->status);
    unsigned i;

    *status = 0;
    for (i = 0; i < pages; i++) {
        uint64_t addr = iova + i * LM_PAGE;

        vtd_queue(v, VTD_INV_DESC_IOTLB | VTD_INV_DESC_IOTLB_PAGE |
                  (uint64_t)LM_DID << 16, addr);
        /* Bus 1, device 0 */
        vtd_queue(v, VTD_INV_DESC_DEVICE | 0x100ull << 32, addr);
    }
    vtd_queue(v, VTD_INV_DESC_WAIT | VTD_INV_DESC_WAIT_SW | 1ull << 32,
              v->status);
    while (!qatomic_read(status)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
}

/* All of memory at LM_IOVA, translation on */
static LMIOMMU lm_new_iommu(void)
{
    LMIOMMU v = { .t = lm_new(LM_BEHIND_IOMMU, "vdpa=on,packed=on") };
    uint64_t root = lm_phys_page(v.t), context = lm_phys_page(v.t);

    v.pgd = lm_phys_page(v.t);
    v.queue = lm_phys_page(v.t);
    v.status = lm_phys_page(v.t);
    vtd_map(&v, LM_IOVA, 0, LM_RAM_SIZE / LM_PAGE);

    lm_phys(v.t, root)[1 * 2] = cpu_to_le64(context | 1 /* present */);
    lm_phys(v.t, context)[0] = cpu_to_le64(v.pgd | 1 /* present */ |
                                           VTD_CONTEXT_TT_DEV_IOTLB);
    lm_phys(v.t, context)[1] = cpu_to_le64(2 /* four levels */ | LM_DID << 8);

    vtd_write(&v, DMAR_IQA_REG, v.queue);
    vtd_command(&v, VTD_GCMD_QIE);
    vtd_write(&v, DMAR_RTADDR_REG, root);
    vtd_command(&v, VTD_GCMD_SRTP);
    vtd_command(&v, VTD_GCMD_TE);
    v.t->iova = LM_IOVA;
    return v;
}

static bool lm_fault(LMTest *t)
{
    return lm_read(t, VIRTIO_LM_STATUS) & VIRTIO_LM_STATUS_LOG_FAULT;
}

static void lm_rx(LMTest *t, unsigned len, uint32_t seq)
{
    uint16_t id;
    uint64_t addr = lm_add_rx(t, 3 * LM_PAGE, &id);

    lm_kick(&t->vq[LM_RX]);
    lm_poison(t);
    lm_snapshot(t);
    lm_send(t, len, seq);
    lm_expect_rx(t, addr, id, len, seq);
}

static void test_exact(const void *features)
{
    LMIOMMU v = lm_new_iommu();
    LMTest *t = v.t;
    unsigned i;

    lm_start(t, *(const uint64_t *)features);
    lm_log_start(t);
    for (i = 0; i < 10; i++) {
        uint16_t id;

        lm_rx(t, 1000 * (i + 1), i);
        g_assert_cmpuint(lm_check_log(t), >, 0);
        id = lm_add_tx(t, 5000, i, 3);
        lm_poison(t);
        lm_snapshot(t);
        lm_kick(&t->vq[LM_TX]);
        lm_wait_used(&t->vq[LM_TX], id);
        lm_expect_tx(t, 5000, i);
        g_assert_cmpuint(lm_check_log(t), >, 0);
        g_assert_false(lm_fault(t));
    }
    lm_free(t);
}

/*
 * Memory that is scattered: bits are for addresses of the device, whatever is
 * behind them, and a bitmap that is one to the device is pieces in memory.
 */
static void test_scattered(void)
{
    LMIOMMU v = lm_new_iommu();
    LMTest *t = v.t;
    LMQueue *q = &t->vq[LM_RX];
    uint64_t buf = 0x40ff5000, phys = lm_phys_page(t);
    uint64_t map = 0x50000000, pieces[16];
    uint64_t bit = buf / LM_PAGE;
    uint16_t id;
    unsigned i;

    lm_phys_page(t);
    /* The bitmap backwards, the buffer's two pages as well */
    for (i = 0; i < ARRAY_SIZE(pieces); i++) {
        pieces[i] = lm_phys_page(t);
    }
    for (i = 0; i < ARRAY_SIZE(pieces); i++) {
        vtd_map(&v, map + i * LM_PAGE, pieces[ARRAY_SIZE(pieces) - 1 - i], 1);
    }
    vtd_map(&v, buf, phys + LM_PAGE, 1);
    vtd_map(&v, buf + LM_PAGE, phys, 1);
    vtd_invalidate(&v, map, ARRAY_SIZE(pieces));
    vtd_invalidate(&v, buf, 2);

    lm_start(t, 0);
    lm_log_at(t, map, map + ARRAY_SIZE(pieces) * LM_PAGE);
    id = lm_add_buf(q, buf + 100, 2 * LM_PAGE - 100, true);
    lm_kick(q);
    lm_send(t, 5000, 0);
    lm_wait_used(q, id);
    for (i = 0; i < 2; i++, bit++) {
        uint64_t piece = pieces[ARRAY_SIZE(pieces) - 1 - bit / 8 / LM_PAGE];
        uint8_t *byte = (uint8_t *)lm_phys(t, piece) + bit / 8 % LM_PAGE;

        g_assert_true(*byte & 1 << bit % 8);
    }
    /* The rings are beyond the end of this one */
    g_assert_true(lm_fault(t));
    lm_free(t);
}

/*
 * An entry of the used ring whose halves are on pages that are apart: each half
 * goes to its own page, and into no other. The log has both pages.
 */
static void test_used_entry_across_pages(void)
{
    LMIOMMU v = lm_new_iommu();
    LMTest *t = v.t;
    LMQueue *q = &t->vq[LM_RX];
    uint64_t first, second, next;
    uint16_t id;

    lm_negotiate(t, 0);
    lm_queue_init(t, LM_RX, 256);
    first = lm_pages(t, 3);
    second = first + 2 * LM_PAGE;
    next = first + LM_PAGE;
    vtd_map(&v, next, second - LM_IOVA, 1);
    vtd_invalidate(&v, next, 1);
    /* The id of entry 0 is the last of the first page */
    q->used = next - offsetof(struct vring_used, ring[0].len);
    lm_queue_enable(q);
    lm_driver_ok(t);
    lm_log_start(t);

    /* Where the length would be in memory without an IOMMU */
    stl_le_p(lm_ptr(t, next), UINT32_MAX);
    lm_add_rx(t, 3 * LM_PAGE, &id);
    lm_kick(q);
    lm_send(t, 1000, 0);
    g_assert_cmphex(lm_wait_used(q, id), ==, UINT32_MAX);
    g_assert_cmpuint(ldl_le_p(lm_ptr(t, second)), ==, LM_HDR_LEN + 1000);
    g_assert_true(lm_logged(t, first));
    g_assert_true(lm_logged(t, next));
    lm_free(t);
}

/*
 * The driver takes the bitmap away while it is in use: not a byte of what was
 * its memory changes, and that is said. It comes back in another place.
 */
static void test_unmap_in_use(void)
{
    LMIOMMU v = lm_new_iommu();
    LMTest *t = v.t;
    uint64_t phys, elsewhere, base, size;
    unsigned pages, i;

    lm_start(t, 0);
    size = (LM_IOVA + LM_RAM_SIZE) / LM_PAGE / 8;
    pages = DIV_ROUND_UP(size, LM_PAGE);
    base = lm_pages(t, pages);
    phys = base - LM_IOVA;
    elsewhere = lm_pages(t, pages) - LM_IOVA;
    lm_log_at(t, base, base + size);
    /* lm_snapshot() does not know where it is going to be */
    t->end = 0;

    for (i = 0; i < 3; i++) {
        uint64_t from = i % 2 ? elsewhere : phys;
        uint64_t to = i % 2 ? phys : elsewhere;
        uint64_t used = t->vq[LM_RX].used / LM_PAGE;
        g_autofree uint8_t *poison = g_malloc(size);

        memset(lm_phys(t, from), 0, size);
        lm_rx(t, 2000, i);
        g_assert_true(((uint8_t *)lm_phys(t, from))[used / 8] & 1 << used % 8);
        g_assert_false(lm_fault(t));

        vtd_unmap(&v, base, pages);
        vtd_invalidate(&v, base, pages);
        lm_rx(t, 2000, i);
        g_assert_true(lm_fault(t));
        lm_write(t, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);
        lm_rx(t, 2000, i);
        g_assert_true(lm_fault(t));
        lm_write(t, VIRTIO_LM_STATUS, VIRTIO_LM_STATUS_LOG_FAULT);

        memset(lm_phys(t, to), 0, size);
        memset(lm_phys(t, from), 0x5a, size);
        vtd_map(&v, base, to, pages);
        vtd_invalidate(&v, base, pages);
        lm_rx(t, 2000, i);
        g_assert_false(lm_fault(t));
        g_assert_true(((uint8_t *)lm_phys(t, to))[used / 8] & 1 << used % 8);
        memset(poison, 0x5a, size);
        g_assert_cmpmem(lm_phys(t, from), size, poison, size);
    }
    lm_free(t);
}

/* Writable by nobody: the device has no business with it */
static void test_read_only_bitmap(void)
{
    LMIOMMU v = lm_new_iommu();
    LMTest *t = v.t;
    uint64_t base, size, byte;
    unsigned pages, i;

    lm_start(t, 0);
    size = (LM_IOVA + LM_RAM_SIZE) / LM_PAGE / 8;
    pages = DIV_ROUND_UP(size, LM_PAGE);
    base = lm_pages(t, pages);
    for (i = 0; i < pages; i++) {
        *vtd_pte(&v, base + i * LM_PAGE) &= cpu_to_le64(~2ull);
    }
    vtd_invalidate(&v, base, pages);
    lm_log_at(t, base, base + size);
    lm_rx(t, 2000, 0);
    g_assert_true(lm_fault(t));
    for (byte = base; byte < base + size; byte++) {
        g_assert_cmphex(*(uint8_t *)lm_ptr(t, byte), ==, 0);
    }
    lm_free(t);
}

/* To registers of the IOMMU that have no quadword */
static void test_quadwords_are_refused(void)
{
    static const uint64_t regs[] = {
        DMAR_FECTL_REG, DMAR_IECTL_REG, DMAR_IEADDR_REG, DMAR_PECTL_REG,
    };
    LMIOMMU v = lm_new_iommu();
    QTestState *qts = v.t->qts;
    uint64_t addr;
    uint32_t value;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(regs); i++) {
        addr = Q35_HOST_BRIDGE_IOMMU_ADDR + regs[i];
        value = qtest_readl(qts, addr);
        qtest_writeq(qts, addr, ~(uint64_t)value);
        g_assert_cmphex(qtest_readl(qts, addr), ==, value);
    }
    lm_free(v.t);
}

void lm_add_iommu_tests(void)
{
    static const uint64_t split = LM_BIT(VIRTIO_RING_F_EVENT_IDX);
    static const uint64_t packed = LM_BIT(VIRTIO_F_RING_PACKED);

    qtest_add_data_func("/virtio-lm/iommu/exact/split", &split, test_exact);
    qtest_add_data_func("/virtio-lm/iommu/exact/packed", &packed, test_exact);
    qtest_add_func("/virtio-lm/iommu/scattered", test_scattered);
    qtest_add_func("/virtio-lm/iommu/used-entry-across-pages",
                   test_used_entry_across_pages);
    qtest_add_func("/virtio-lm/iommu/unmap-in-use", test_unmap_in_use);
    qtest_add_func("/virtio-lm/iommu/read-only-bitmap",
                   test_read_only_bitmap);
    qtest_add_func("/virtio-lm/iommu/quadwords-are-refused",
                   test_quadwords_are_refused);
}
