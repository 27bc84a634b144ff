// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The ring of a control virtqueue, and the chains in it, of every shape that a driver may give
 * them, which need not be the one that it gives them today.
 */
#include <endian.h>

#include "kselftest_harness.h"
#include "ctrl.h"

#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
#define STILL_MS	60	/* how long one waits for what must not happen */
#define PAGE		4096UL

FIXTURE(ring) {
	struct vdpa v;
	struct vq q;
	uint8_t mac[CTRL_MAC_LEN], other[CTRL_MAC_LEN];	/* see ctrl_begin() */
};

FIXTURE_SETUP(ring)
{
	OPEN_OR_SKIP(&self->v);
	NEED(&self->v, CAP_CTRL);
	ASSERT_EQ(0, ctrl_begin(&self->v, &self->q, self->mac, self->other));
}

FIXTURE_TEARDOWN(ring)
{
	EXPECT_EQ(0, ctrl_end(&self->q, self->mac));
	vdpa_close(&self->v);
}

/* Rings of every size, the smallest of one command; started where their index wraps */
TEST_F_TIMEOUT(ring, rings_of_every_size_work, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint32_t size, n, i;
	struct vq q;

	for (size = 2; size <= v->vq_max; size *= 2) {
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, ctrl_init(&q, v, size));
		ASSERT_EQ(0, ctrl_start(&q, 0, 0xffff));
		for (n = 0; n < 2; n++) {
			for (i = 0; i < q.slots; i++)
				ASSERT_LE(0, ctrl_post(&q, CTRL_NOBODY, 0, "", 0));
			vq_kick(&q);
			for (i = 0; i < q.slots; i++)
				ASSERT_EQ(VIRTIO_NET_ERR, ctrl_take(&q)) {
					TH_LOG("%u descriptors, command %u", size, i);
				}
		}
		vq_free(&q);
	}
}

/* The ring itself may lie across pages in each of its parts, an entry of it too */
TEST_F_TIMEOUT(ring, rings_across_pages_work, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	uint8_t *pages = vdpa_alloc(v, 6 * PAGE, PAGE);
	int i;

	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, vdpa_reset(v));
	q->desc = (void *)(pages + PAGE - 5 * sizeof(*q->desc));
	q->avail = (void *)(pages + 3 * PAGE - 10);
	q->used = (void *)(pages + 5 * PAGE - 8);
	ASSERT_EQ(0, ctrl_start(q, 0, 0));
	for (i = 0; i < 3 * CTRL_RING; i++) {
		self->other[5]++;
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->other));
		EXPECT_TRUE(ctrl_has_mac(v, self->other));
	}
}

/* A command may be in any pieces, each in a page of its own or across two */
TEST_F_TIMEOUT(ring, commands_in_pieces_work, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint8_t *pages = vdpa_alloc(v, 32 * PAGE, PAGE), *at;
	uint32_t left, part, n, i;
	struct vq *q = &self->q;
	uint8_t bytes[2 + CTRL_MAC_LEN];

	ASSERT_NE(NULL, pages);
	for (part = 1; part <= sizeof(bytes); part++) {
		self->other[5]++;
		bytes[0] = VIRTIO_NET_CTRL_MAC;
		bytes[1] = VIRTIO_NET_CTRL_MAC_ADDR_SET;
		memcpy(bytes + 2, self->other, CTRL_MAC_LEN);
		for (i = 0, left = sizeof(bytes); left; i++, left -= n) {
			n = part < left ? part : left;
			/* its last byte is the first one of a page */
			at = pages + (2 * i + 1) * PAGE - n + 1;
			memcpy(at, bytes + sizeof(bytes) - left, n);
			q->desc[i].addr = htole64(vdpa_iova(v, at));
			q->desc[i].len = htole32(n);
			q->desc[i].flags = htole16(VRING_DESC_F_NEXT);
			q->desc[i].next = htole16(i + 1);
		}
		/* the first byte that can be written is the ack's; there is one more */
		*ctrl_ack(q, 0) = CTRL_NO_ACK;
		*ctrl_ack(q, 1) = CTRL_NO_ACK;
		q->desc[i].addr = htole64(vdpa_iova(v, ctrl_ack(q, 0)));
		q->desc[i].len = htole32(1);
		q->desc[i].flags = htole16(VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
		q->desc[i].next = htole16(i + 1);
		q->desc[i + 1].addr = htole64(vdpa_iova(v, ctrl_ack(q, 1)));
		q->desc[i + 1].len = htole32(1);
		q->desc[i + 1].flags = htole16(VRING_DESC_F_WRITE);
		vq_publish(q, 0);
		vq_kick(q);
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_take(q)) {
			TH_LOG("pieces of %u bytes", part);
		}
		EXPECT_EQ(CTRL_NO_ACK, *ctrl_ack(q, 1));
		EXPECT_TRUE(ctrl_has_mac(v, self->other));
	}
}

/* A table of descriptors that is elsewhere and across pages, alone or after others in the ring */
TEST_F_TIMEOUT(ring, indirect_descriptors_work, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint32_t len = 2 + CTRL_MAC_LEN, i, direct;
	struct vq *q = &self->q;
	struct vring_desc *table;
	uint8_t *pages, *bytes;

	NEED(v, CAP_INDIRECT);
	pages = vdpa_alloc(v, 2 * PAGE, PAGE);
	ASSERT_NE(NULL, pages);
	table = (void *)(pages + PAGE - 3 * sizeof(*table));
	for (direct = 0; direct < 3; direct++) {
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, ctrl_start(q, BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC), 0));
		self->other[5]++;
		ctrl_fill(q, 1, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, self->other,
			  CTRL_MAC_LEN);
		bytes = vq_buf(q, 1);
		*ctrl_ack(q, 0) = CTRL_NO_ACK;
		for (i = 0; i <= len; i++) {
			table[i].addr = htole64(vdpa_iova(v, i < len ? bytes + i : ctrl_ack(q, 0)));
			table[i].len = htole32(1);
			table[i].flags = htole16(i < len ? VRING_DESC_F_NEXT : VRING_DESC_F_WRITE);
			table[i].next = htole16(i + 1);
		}
		for (i = 0; i < direct; i++)
			q->desc[i] = table[i];
		/* what is before the table is in the ring; the table counts from its own start */
		q->desc[i].addr = htole64(vdpa_iova(v, table + direct));
		q->desc[i].len = htole32((len + 1 - direct) * sizeof(*table));
		q->desc[i].flags = htole16(VRING_DESC_F_INDIRECT);
		for (i = direct; i < len; i++)
			table[i].next = htole16(i - direct + 1);
		vq_publish(q, 0);
		vq_kick(q);
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_take(q)) {
			TH_LOG("%u descriptors before the table", direct);
		}
		EXPECT_TRUE(ctrl_has_mac(v, self->other));
	}
}

/* Who asks for no call gets none, and gets one when it is due */
TEST_F_TIMEOUT(ring, no_call_but_the_one_that_is_asked_for, TEST_SECONDS)
{
	uint64_t events = BIT_ULL(VIRTIO_RING_F_EVENT_IDX), end;
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	uint16_t i, due = 5;
	int with;

	NEED(v, CAP_CTRL_STRICT);
	NEED(v, CAP_EVENT_IDX);
	for (with = 0; with < 2; with++) {
		ASSERT_EQ(0, vdpa_reset(v));
		vq_take_calls(q);
		vq_set_start(q, 0xfffd);
		q->avail->ring[q->size] = htole16(0xfffd + due);
		q->avail->flags = with ? 0 : htole16(VRING_AVAIL_F_NO_INTERRUPT);
		ASSERT_EQ(0, ctrl_resume_at(q, with ? events : 0, 0xfffd));
		for (i = 0; i <= due; i++) {
			EXPECT_EQ(-ETIMEDOUT, wait_readable(q->call, 0)) {
				TH_LOG("a call after %u commands", i);
			}
			if (i == due)
				q->avail->flags = 0;
			ASSERT_LE(0, ctrl_post(q, CTRL_NOBODY, 0, "", 0));
			vq_kick(q);
			for (end = deadline(CTRL_MS); vq_device_used(q) != q->avail_idx;) {
				ASSERT_FALSE(expired(end));
				sleep_ms(1);
			}
			sleep_ms(STILL_MS);
		}
		EXPECT_EQ(0, wait_readable(q->call, deadline(CTRL_MS)));
	}
}

TEST_HARNESS_MAIN
