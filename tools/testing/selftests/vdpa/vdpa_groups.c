// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Groups of virtqueues, and the address spaces that they are bound to. What a VMM needs them
 * for is the control virtqueue: it has that one use memory of its own, and follows the guest's
 * commands there, while the guest's other queues use the guest's memory.
 */
#include <endian.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "ctrl.h"
#include "log.h"
#include "tx.h"

#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
#define RING		16
#define FRAMES		32
#define PAGE		4096UL
#define SPARE		(16 * PAGE)	/* behind all memory: mapped in one space alone */

/*
 * Two memories, which are at the same addresses: of the data queues, mapped in the first address
 * space, and of the control virtqueue, for the tests to map in whichever they want.
 */
FIXTURE(groups) {
	struct vdpa v;
	struct vdpa w;		/* the same device, with the other memory */
	struct vq rx, tx, cq;
	uint8_t mac[CTRL_MAC_LEN];
	uint32_t data, ctrl;	/* groups */
};

static int vring_group(struct vdpa *v, uint32_t q, uint32_t *group)
{
	struct vhost_vring_state s = { .index = q };
	int ret = vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &s);

	*group = s.num;
	return ret;
}

static int set_group_asid(struct vdpa *v, uint32_t group, uint32_t asid)
{
	struct vhost_vring_state s = { .index = group, .num = asid };

	return vdpa_ioctl(v, VHOST_VDPA_SET_GROUP_ASID, &s);
}

static int map(struct vdpa *v, uint32_t asid)
{
	return vdpa_iotlb_asid(v, asid, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem,
			       VHOST_ACCESS_RW);
}

static int unmap(struct vdpa *v, uint32_t asid)
{
	return vdpa_iotlb_asid(v, asid, VHOST_IOTLB_INVALIDATE, v->iova, v->mem_size, NULL, 0);
}

FIXTURE_SETUP(groups)
{
	struct vdpa *v = &self->v, *w = &self->w;

	OPEN_OR_SKIP(v);
	NEED(v, CAP_CTRL);
	NEED(v, CAP_ASID);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	*w = *v;
	w->mem = mmap(NULL, w->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, w->mem);
	ASSERT_EQ(0, vq_init(&self->rx, v, 0, RING, 1, VQ_BUF_SIZE, true));
	ASSERT_EQ(0, vq_init(&self->tx, v, 1, RING, 1, VQ_BUF_SIZE, false));
	ASSERT_EQ(0, ctrl_init(&self->cq, w, RING));
	ASSERT_EQ(0, ctrl_get_mac(v, self->mac));
	ASSERT_EQ(0, vring_group(v, 0, &self->data));
	ASSERT_EQ(0, vring_group(v, v->nvqs - 1, &self->ctrl));
}

FIXTURE_TEARDOWN(groups)
{
	if (self->cq.v)
		vq_free(&self->cq);
	if (self->rx.v)
		vq_free(&self->rx);
	if (self->tx.v)
		vq_free(&self->tx);
	vdpa_close(&self->v);
	if (self->w.mem)
		munmap(self->w.mem, self->w.mem_size);
}

/* A command whose answer is known, and which leaves the device as it is */
static int command(struct vq *cq)
{
	return ctrl_run(cq, CTRL_NOBODY, 0, "", 0);
}

/* The control virtqueue can be moved without the data queues; all features do not change that */
TEST_F_TIMEOUT(groups, control_virtqueue_has_a_group_of_its_own, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint32_t q, group;
	bool all;

	EXPECT_NE(self->data, self->ctrl);
	for (all = false;; all = true) {
		for (q = 0; q < v->nvqs; q++) {
			ASSERT_EQ(0, vring_group(v, q, &group));
			EXPECT_EQ(q == v->nvqs - 1 ? self->ctrl : self->data, group) {
				TH_LOG("queue %u", q);
			}
		}
		if (all)
			break;
		ASSERT_EQ(0, vdpa_negotiate(v, v->offered));
	}
}

/* What is not there is refused, and leaves the groups where they are */
TEST_F_TIMEOUT(groups, a_group_or_a_space_that_is_missing_is_refused, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	uint32_t groups, spaces;

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_GROUP_NUM, &groups));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_AS_NUM, &spaces));
	EXPECT_LE(2, groups);
	EXPECT_LE(2, spaces);
	ASSERT_EQ(0, map(w, 1));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	EXPECT_EQ(-EINVAL, set_group_asid(v, self->ctrl, spaces));
	EXPECT_EQ(-EINVAL, set_group_asid(v, self->ctrl, UINT32_MAX));
	EXPECT_GT(0, set_group_asid(v, groups, 0));
	EXPECT_GT(0, set_group_asid(v, UINT32_MAX, 0));
	EXPECT_GT(0, set_group_asid(v, groups, spaces));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	EXPECT_EQ(VIRTIO_NET_ERR, command(&self->cq));
}

/* Nor is a group moved while its queues run, where the parent minds */
TEST_F_TIMEOUT(groups, no_group_is_moved_while_the_device_runs, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	uint32_t asid;

	NEED(v, CAP_CTRL_STRICT);
	ASSERT_EQ(0, map(w, 1));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	for (asid = 0; asid < 2; asid++) {
		EXPECT_EQ(-EBUSY, set_group_asid(v, self->ctrl, asid));
		EXPECT_EQ(-EBUSY, set_group_asid(v, self->data, asid));
	}
	EXPECT_EQ(VIRTIO_NET_ERR, command(&self->cq));
}

/*
 * A start that fails may have left queues enabled in the device. Their group stays in its space
 * until a reset: on the way to another one the device may be in none.
 */
TEST_F_TIMEOUT(groups, no_group_is_moved_after_a_start_that_failed, TEST_SECONDS)
{
	struct vq *queues[] = { &self->rx, &self->tx, &self->cq };
	struct vdpa *v = &self->v, *w = &self->w;
	size_t i;

	ASSERT_EQ(0, map(w, 1));
	/* There is no control virtqueue with these features */
	ASSERT_EQ(0, vdpa_negotiate(v, BIT_ULL(VIRTIO_F_VERSION_1) |
				    BIT_ULL(VIRTIO_F_ACCESS_PLATFORM)));
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		ASSERT_EQ(0, vq_setup(queues[i], 0));
		ASSERT_EQ(0, vq_enable(queues[i], true));
	}
	ASSERT_EQ(0, vdpa_set_status(v, CTRL_DRV_OK));
	if (vdpa_get_status(v) & VIRTIO_CONFIG_S_DRIVER_OK)
		SKIP(return, "%s (%s) lacks: a start that such a queue fails", v->name, v->parent);
	ASSERT_EQ(0, ctrl_needs_reset(v));
	EXPECT_EQ(-EBUSY, set_group_asid(v, self->data, 1));
	ASSERT_EQ(0, vdpa_reset(v));
	EXPECT_EQ(0, set_group_asid(v, self->data, 1));
}

/* A mapping that gives no access is refused, or does no harm */
TEST_F_TIMEOUT(groups, a_mapping_without_access_keeps_nobody_from_its_space, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	vdpa_iotlb_asid(v, 1, VHOST_IOTLB_UPDATE, v->iova + v->mem_size, PAGE, v->mem, 0);
	EXPECT_EQ(0, set_group_asid(v, self->data, 1));
	EXPECT_EQ(0, set_group_asid(v, self->data, 0));
}

/* Both work at the same addresses, each in its own memory, whichever space has which */
TEST_F_TIMEOUT(groups, each_group_uses_the_space_it_is_bound_to, TEST_SECONDS)
{
	uint8_t mac[CTRL_MAC_LEN];
	struct vdpa *v = &self->v, *w = &self->w;
	uint32_t asid;
	int i;

	ASSERT_EQ(0, unmap(v, 0));
	memcpy(mac, self->mac, sizeof(mac));
	for (asid = 0; asid < 2; asid++) {
		ASSERT_EQ(0, map(v, asid));
		ASSERT_EQ(0, map(w, !asid));
		ASSERT_EQ(0, set_group_asid(v, self->data, asid));
		ASSERT_EQ(0, set_group_asid(v, self->ctrl, !asid));
		vq_set_start(&self->rx, 0);
		vq_set_start(&self->tx, 0);
		vq_set_start(&self->cq, 0);
		ASSERT_EQ(0, ctrl_negotiate(&self->cq, 0));
		ASSERT_EQ(0, vq_setup(&self->rx, 0));
		ASSERT_EQ(0, vq_setup(&self->tx, 0));
		ASSERT_EQ(0, vq_setup(&self->cq, 0));
		ASSERT_EQ(0, vq_enable(&self->rx, true));
		ASSERT_EQ(0, vq_enable(&self->tx, true));
		ASSERT_EQ(0, vq_enable(&self->cq, true));
		ASSERT_EQ(0, vdpa_set_status(v, CTRL_DRV_OK));
		for (i = 0; i < RING; i++) {
			mac[5] ^= 1;
			ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(&self->cq, mac));
			EXPECT_TRUE(ctrl_has_mac(v, mac));
			ASSERT_EQ(0, tx_send(&self->tx, FRAMES));
		}
		EXPECT_EQ(0, memcmp(mac, self->mac, sizeof(mac)));
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, unmap(v, asid));
		ASSERT_EQ(0, unmap(w, !asid));
	}
}

/* The first space is not looked at: nothing at all is mapped there */
TEST_F_TIMEOUT(groups, a_space_alone_is_enough_for_its_group, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;

	ASSERT_EQ(0, unmap(v, 0));
	ASSERT_EQ(0, map(w, 1));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_set_mac(&self->cq, self->mac));
}

/* After a reset, by the same owner or another, all groups are in the first space again */
TEST_F_TIMEOUT(groups, a_reset_moves_all_groups_back, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;

	ASSERT_EQ(0, unmap(v, 0));
	ASSERT_EQ(0, map(w, 0));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	EXPECT_EQ(VIRTIO_NET_ERR, command(&self->cq));
}

/* The device stops, says so, and has neither acked the command nor used its buffer */
static void expect_fault(struct __test_metadata *_metadata, struct vq *cq, uint8_t *ack)
{
	vq_kick(cq);
	ASSERT_EQ(0, ctrl_needs_reset(cq->v)) {
		TH_LOG("the status does not get DEVICE_NEEDS_RESET");
	}
	EXPECT_EQ(CTRL_NO_ACK, *ack);
	EXPECT_EQ(cq->used_idx, vq_device_used(cq));
}

static void expect_works_after_reset(struct __test_metadata *_metadata, struct vq *cq,
				     uint32_t group, uint32_t asid)
{
	ASSERT_EQ(0, vdpa_reset(cq->v));
	ASSERT_EQ(0, set_group_asid(cq->v, group, asid));
	ASSERT_EQ(0, ctrl_start(cq, 0, 0));
	EXPECT_EQ(VIRTIO_NET_ERR, command(cq));
}

/* A ring in the space that its group is not bound to is not there */
TEST_F_TIMEOUT(groups, a_ring_in_the_other_space_is_a_fault, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	uint32_t asid;
	int slot;

	NEED(v, CAP_CTRL_STRICT);
	ASSERT_EQ(0, unmap(v, 0));
	for (asid = 0; asid < 2; asid++) {
		ASSERT_EQ(0, map(w, !asid));
		ASSERT_EQ(0, set_group_asid(v, self->ctrl, asid));
		ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
		slot = ctrl_post(&self->cq, CTRL_NOBODY, 0, "", 0);
		ASSERT_LE(0, slot);
		expect_fault(_metadata, &self->cq, ctrl_ack(&self->cq, slot));
		expect_works_after_reset(_metadata, &self->cq, self->ctrl, !asid);
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, unmap(w, !asid));
	}
}

/* Nor is a buffer: that of the command, and that of the ack */
TEST_F_TIMEOUT(groups, a_buffer_in_the_other_space_is_a_fault, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	uint64_t iova = w->iova + w->mem_size;
	uint8_t *other = w->mem + w->mem_size - SPARE;
	uint32_t asid;
	int slot, i;

	NEED(v, CAP_CTRL_STRICT);
	ASSERT_EQ(0, unmap(v, 0));
	for (i = 0; i < 4; i++) {
		asid = i / 2;
		ASSERT_EQ(0, map(w, asid));
		ASSERT_EQ(0, vdpa_iotlb_asid(v, !asid, VHOST_IOTLB_UPDATE, iova, SPARE, other,
					     VHOST_ACCESS_RW));
		ASSERT_EQ(0, set_group_asid(v, self->ctrl, asid));
		ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
		memset(other, CTRL_NO_ACK, PAGE);
		slot = ctrl_post_at(&self->cq, CTRL_NOBODY, 0, "", 0, i % 2, iova, i % 2 ? 1 : 2);
		ASSERT_LE(0, slot);
		expect_fault(_metadata, &self->cq,
			     i % 2 ? other : ctrl_ack(&self->cq, slot));
		expect_works_after_reset(_metadata, &self->cq, self->ctrl, asid);
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, unmap(w, asid));
		ASSERT_EQ(0, vdpa_iotlb_asid(v, !asid, VHOST_IOTLB_INVALIDATE, iova, SPARE, NULL,
					     0));
	}
}

/* Memory that is unmapped under a running queue is gone at once, and the rest of it is not */
TEST_F_TIMEOUT(groups, unmapped_memory_is_not_used_any_more, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	int slot;

	NEED(v, CAP_CTRL_STRICT);
	ASSERT_EQ(0, map(w, 1));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	EXPECT_EQ(VIRTIO_NET_ERR, command(&self->cq));
	/* the first space is another one */
	ASSERT_EQ(0, unmap(v, 0));
	EXPECT_EQ(VIRTIO_NET_ERR, command(&self->cq));
	ASSERT_EQ(0, unmap(w, 1));
	slot = ctrl_post(&self->cq, CTRL_NOBODY, 0, "", 0);
	ASSERT_LE(0, slot);
	expect_fault(_metadata, &self->cq, ctrl_ack(&self->cq, slot));
	ASSERT_EQ(0, map(w, 1));
	expect_works_after_reset(_metadata, &self->cq, self->ctrl, 1);
}

/* Memory that is mapped later is used at once, and so is other memory at the same address */
TEST_F_TIMEOUT(groups, remapped_memory_is_used, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	uint64_t iova = w->iova + w->mem_size;
	uint8_t *pages = vdpa_alloc(w, 2 * PAGE, PAGE);
	int i;

	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, map(w, 1));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	for (i = 0; i < 4; i++) {
		memset(pages, CTRL_NO_ACK, 2 * PAGE);
		ASSERT_EQ(0, vdpa_iotlb_asid(v, 1, VHOST_IOTLB_UPDATE, iova, PAGE,
					     pages + i % 2 * PAGE, VHOST_ACCESS_RW));
		ASSERT_LE(0, ctrl_post_at(&self->cq, CTRL_NOBODY, 0, "", 0, 1, iova, 1));
		vq_kick(&self->cq);
		/* the ack is not in the slot */
		EXPECT_EQ(CTRL_NO_ACK, ctrl_take(&self->cq));
		EXPECT_EQ(VIRTIO_NET_ERR, pages[i % 2 * PAGE]);
		EXPECT_EQ(CTRL_NO_ACK, pages[(i + 1) % 2 * PAGE]);
		ASSERT_EQ(0, vdpa_iotlb_asid(v, 1, VHOST_IOTLB_INVALIDATE, iova, PAGE, NULL, 0));
	}
}

/* What the control virtqueue writes in the space that is logged is in the log, or is its fault */
TEST_F_TIMEOUT(groups, what_it_writes_is_logged_or_a_fault, TEST_SECONDS)
{
	struct vdpa *v = &self->v, *w = &self->w;
	struct vq *cq = &self->cq;
	uint64_t words[LOG_WORDS] = { 0 };
	bool has_ack, has_used;
	int flags;

	NEED(v, CAP_LOG);
	ASSERT_EQ(0, unmap(v, 0));
	ASSERT_EQ(0, map(w, 0));
	ASSERT_EQ(0, ctrl_start(cq, 0, 0));
	ASSERT_EQ(0, log_mem(w));
	EXPECT_EQ(0, log_read_mem(w, words));
	memset(words, 0, sizeof(words));
	EXPECT_EQ(VIRTIO_NET_ERR, command(cq));
	flags = log_read_mem(w, words);
	has_ack = log_has(words, log_page(w, ctrl_ack(cq, 0)));
	has_used = log_has(words, log_page(w, cq->used));
	EXPECT_TRUE(flags == (VHOST_VDPA_LOG_FAULT | VHOST_VDPA_LOG_FAULT_SOFTWARE) ||
		    (!flags && has_ack && has_used)) {
		TH_LOG("flags 0x%x; a bit for the ack: %d, for the used ring: %d", flags, has_ack,
		       has_used);
	}
	ASSERT_EQ(0, vdpa_reset(v));
}

/* What it writes in another one is neither */
TEST_F_TIMEOUT(groups, what_it_writes_elsewhere_is_not_logged, TEST_SECONDS)
{
	uint64_t words[LOG_WORDS] = { 0 }, none[LOG_WORDS] = { 0 };
	struct vdpa *v = &self->v, *w = &self->w;

	NEED(v, CAP_LOG);
	ASSERT_EQ(0, map(w, 1));
	ASSERT_EQ(0, set_group_asid(v, self->ctrl, 1));
	ASSERT_EQ(0, ctrl_start(&self->cq, 0, 0));
	ASSERT_EQ(0, log_mem(v));
	EXPECT_EQ(VIRTIO_NET_ERR, command(&self->cq));
	EXPECT_EQ(0, log_read_mem(v, words));
	EXPECT_EQ(0, memcmp(words, none, sizeof(words)));
	ASSERT_EQ(0, vdpa_reset(v));
}

TEST_HARNESS_MAIN
