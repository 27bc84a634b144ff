// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a control virtqueue is not to be given: commands that cannot be done, and chains that are
 * none, broken in every way that a guest can think of. A parent that serves the queue in software
 * reads them in the kernel.
 */
#include <endian.h>
#include <sys/eventfd.h>

#include "kselftest_harness.h"
#include "ctrl.h"

#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
#define STILL_MS	60	/* how long one waits for what must not happen */
#define PAGE		4096UL
#define LONG_COMMAND	5000	/* more than a mailbox of a page holds */

FIXTURE(bad) {
	struct vdpa v;
	struct vq q;
	uint8_t mac[CTRL_MAC_LEN], other[CTRL_MAC_LEN];	/* see ctrl_begin() */
};

FIXTURE_SETUP(bad)
{
	OPEN_OR_SKIP(&self->v);
	NEED(&self->v, CAP_CTRL);
	ASSERT_EQ(0, ctrl_begin(&self->v, &self->q, self->mac, self->other));
}

FIXTURE_TEARDOWN(bad)
{
	EXPECT_EQ(0, ctrl_end(&self->q, self->mac));
	vdpa_close(&self->v);
}

/* What cannot be done is acked as an error, leaves the device as it is, and the queue goes on */
TEST_F_TIMEOUT(bad, what_cannot_be_done_is_acked_as_an_error, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	uint16_t none = 0, more = htole16(v->nvqs / 2 + 1), all = 0xffff;
	uint8_t *bytes = vdpa_alloc(v, LONG_COMMAND, 1);
	static const uint32_t lens[] = { LONG_COMMAND, 1U << 31, UINT32_MAX };
	size_t i;

	ASSERT_NE(NULL, bytes);
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_run(q, CTRL_NOBODY, 0, "", 0));
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_run(q, 0xff, 0xff, self->other, CTRL_MAC_LEN));
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_run(q, VIRTIO_NET_CTRL_MAC, 0xff, self->other,
					   CTRL_MAC_LEN));
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_run(q, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
					   &none, sizeof(none)));
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_run(q, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
					   &more, sizeof(more)));
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_run(q, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
					   &all, sizeof(all)));

	/* tables of addresses that are longer than whatever carries them on, and than can be */
	memset(bytes, 0, LONG_COMMAND);
	bytes[0] = VIRTIO_NET_CTRL_MAC;
	bytes[1] = VIRTIO_NET_CTRL_MAC_TABLE_SET;
	for (i = 0; i < (vdpa_can(v, CAP_CTRL_STRICT) ? ARRAY_SIZE(lens) : 1); i++) {
		ASSERT_LE(0, ctrl_post_at(q, 0, 0, "", 0, 0, vdpa_iova(v, bytes), lens[i]));
		vq_kick(q);
		EXPECT_EQ(VIRTIO_NET_ERR, ctrl_take(q)) {
			TH_LOG("%u bytes", lens[i]);
		}
	}

	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
	EXPECT_EQ(CTRL_DRV_OK, vdpa_get_status(v));
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->other));
	EXPECT_TRUE(ctrl_has_mac(v, self->other));
}

/* A command that is cut short is an error, too: before its data, in it, before the command */
TEST_F_TIMEOUT(bad, a_command_cut_short_is_acked_as_an_error, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	uint32_t len;
	int slot;

	NEED(v, CAP_CTRL_STRICT);
	for (len = 0; len < 2 + CTRL_MAC_LEN; len++) {
		slot = vq_free_slot(q);
		ASSERT_LE(0, slot);
		ASSERT_LE(0, ctrl_post_at(q, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
					  self->other, CTRL_MAC_LEN, 0,
					  vdpa_iova(v, vq_buf(q, slot)), len));
		vq_kick(q);
		EXPECT_EQ(VIRTIO_NET_ERR, ctrl_take(q)) {
			TH_LOG("%u bytes", len);
		}
		EXPECT_TRUE(ctrl_has_mac(v, self->mac));
	}
	EXPECT_EQ(CTRL_DRV_OK, vdpa_get_status(v));
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->other));
}

/* Where nothing is mapped, and where a page is that can be read only, or written only */
static uint64_t nowhere(struct vdpa *v)
{
	return v->iova + v->mem_size;
}

static uint64_t read_only(struct vdpa *v)
{
	return nowhere(v) + 0x10000;
}

static uint64_t write_only(struct vdpa *v)
{
	return nowhere(v) + 0x20000;
}

/*
 * What a guest makes of a good chain, whose descriptors are the command and the ack. Each returns
 * the head to make available. A table has copies of the two.
 */
static uint16_t head_past_the_ring(struct vq *q, struct vring_desc *table)
{
	return CTRL_RING;
}

static uint16_t head_far_past_the_ring(struct vq *q, struct vring_desc *table)
{
	return 0xffff;
}

static uint16_t more_than_the_ring_holds(struct vq *q, struct vring_desc *table)
{
	q->avail_idx += CTRL_RING;
	return 0;
}

static uint16_t next_past_the_ring(struct vq *q, struct vring_desc *table)
{
	q->desc[0].next = htole16(CTRL_RING);
	return 0;
}

static uint16_t next_far_past_the_ring(struct vq *q, struct vring_desc *table)
{
	q->desc[0].next = 0xffff;
	return 0;
}

static uint16_t loop(struct vq *q, struct vring_desc *table)
{
	q->desc[0].next = 0;
	return 0;
}

static uint16_t loop_of_writable(struct vq *q, struct vring_desc *table)
{
	q->desc[1].flags = htole16(VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
	q->desc[1].next = htole16(1);
	return 0;
}

static uint16_t nothing_to_write_to(struct vq *q, struct vring_desc *table)
{
	q->desc[0].flags = 0;
	return 0;
}

static uint16_t no_byte_to_write_to(struct vq *q, struct vring_desc *table)
{
	q->desc[1].len = 0;
	return 0;
}

static uint16_t command_behind_the_ack(struct vq *q, struct vring_desc *table)
{
	q->desc[1].flags = htole16(VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
	q->desc[1].next = htole16(2);
	q->desc[2] = q->desc[0];
	q->desc[2].flags = 0;
	return 0;
}

static uint16_t command_not_mapped(struct vq *q, struct vring_desc *table)
{
	q->desc[0].addr = htole64(nowhere(q->v));
	return 0;
}

static uint16_t command_half_mapped(struct vq *q, struct vring_desc *table)
{
	q->desc[0].addr = htole64(nowhere(q->v) - 3);
	return 0;
}

static uint16_t command_past_all_memory(struct vq *q, struct vring_desc *table)
{
	q->desc[0].addr = htole64(-3ULL);
	return 0;
}

static uint16_t command_not_readable(struct vq *q, struct vring_desc *table)
{
	q->desc[0].addr = htole64(write_only(q->v));
	return 0;
}

static uint16_t ack_not_mapped(struct vq *q, struct vring_desc *table)
{
	q->desc[1].addr = htole64(nowhere(q->v));
	return 0;
}

static uint16_t ack_not_writable(struct vq *q, struct vring_desc *table)
{
	q->desc[1].addr = htole64(read_only(q->v));
	return 0;
}

static void make_table(struct vq *q, struct vring_desc *table)
{
	memcpy(table, q->desc, 2 * sizeof(*table));
	table[0].next = htole16(1);
	q->desc[0].addr = htole64(vdpa_iova(q->v, table));
	q->desc[0].len = htole32(2 * sizeof(*table));
	q->desc[0].flags = htole16(VRING_DESC_F_INDIRECT);
}

static uint16_t table_not_negotiated(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	return 0;
}

static uint16_t table_with_a_next(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	q->desc[0].flags = htole16(VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT);
	q->desc[0].next = htole16(1);
	return 0;
}

static uint16_t table_is_empty(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	q->desc[0].len = 0;
	return 0;
}

static uint16_t table_of_an_odd_length(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	q->desc[0].len = htole32(2 * sizeof(*table) + 8);
	return 0;
}

static uint16_t table_of_four_gigabytes(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	q->desc[0].len = htole32(UINT32_MAX & ~15U);
	table[0].next = htole16(0xffff);
	return 0;
}

static uint16_t table_not_mapped(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	q->desc[0].addr = htole64(nowhere(q->v));
	return 0;
}

static uint16_t table_half_mapped(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	memcpy(q->v->mem + q->v->mem_size - sizeof(*table), &table[0], sizeof(*table));
	q->desc[0].addr = htole64(nowhere(q->v) - sizeof(*table));
	return 0;
}

static uint16_t table_in_a_table(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	memcpy(table + 2, table, 2 * sizeof(*table));
	table[0] = q->desc[0];
	table[0].addr = htole64(vdpa_iova(q->v, table + 2));
	return 0;
}

static uint16_t next_past_the_table(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	table[0].next = htole16(2);
	return 0;
}

static uint16_t loop_in_the_table(struct vq *q, struct vring_desc *table)
{
	make_table(q, table);
	table[0].next = 0;
	return 0;
}

/* Chains that no good driver makes: the device says so, does nothing, and can be reset */
FIXTURE(broken) {
	struct vdpa v;
	struct vq q;
	uint8_t mac[CTRL_MAC_LEN];
	uint8_t other[CTRL_MAC_LEN];
	uint8_t *guarded;	/* the two pages with fewer permissions */
};

FIXTURE_VARIANT(broken) {
	uint16_t (*spoil)(struct vq *q, struct vring_desc *table);
	bool indirect;
};

FIXTURE_VARIANT_ADD(broken, head_past_the_ring)
{
	.spoil = head_past_the_ring,
};

FIXTURE_VARIANT_ADD(broken, head_far_past_the_ring)
{
	.spoil = head_far_past_the_ring,
};

FIXTURE_VARIANT_ADD(broken, more_than_the_ring_holds)
{
	.spoil = more_than_the_ring_holds,
};

FIXTURE_VARIANT_ADD(broken, next_past_the_ring)
{
	.spoil = next_past_the_ring,
};

FIXTURE_VARIANT_ADD(broken, next_far_past_the_ring)
{
	.spoil = next_far_past_the_ring,
};

FIXTURE_VARIANT_ADD(broken, loop)
{
	.spoil = loop,
};

FIXTURE_VARIANT_ADD(broken, loop_of_writable)
{
	.spoil = loop_of_writable,
};

FIXTURE_VARIANT_ADD(broken, nothing_to_write_to)
{
	.spoil = nothing_to_write_to,
};

FIXTURE_VARIANT_ADD(broken, no_byte_to_write_to)
{
	.spoil = no_byte_to_write_to,
};

FIXTURE_VARIANT_ADD(broken, command_behind_the_ack)
{
	.spoil = command_behind_the_ack,
};

FIXTURE_VARIANT_ADD(broken, command_not_mapped)
{
	.spoil = command_not_mapped,
};

FIXTURE_VARIANT_ADD(broken, command_half_mapped)
{
	.spoil = command_half_mapped,
};

FIXTURE_VARIANT_ADD(broken, command_past_all_memory)
{
	.spoil = command_past_all_memory,
};

FIXTURE_VARIANT_ADD(broken, command_not_readable)
{
	.spoil = command_not_readable,
};

FIXTURE_VARIANT_ADD(broken, ack_not_mapped)
{
	.spoil = ack_not_mapped,
};

FIXTURE_VARIANT_ADD(broken, ack_not_writable)
{
	.spoil = ack_not_writable,
};

FIXTURE_VARIANT_ADD(broken, table_not_negotiated)
{
	.spoil = table_not_negotiated,
};

FIXTURE_VARIANT_ADD(broken, table_with_a_next)
{
	.spoil = table_with_a_next,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, table_is_empty)
{
	.spoil = table_is_empty,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, table_of_an_odd_length)
{
	.spoil = table_of_an_odd_length,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, table_of_four_gigabytes)
{
	.spoil = table_of_four_gigabytes,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, table_not_mapped)
{
	.spoil = table_not_mapped,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, table_half_mapped)
{
	.spoil = table_half_mapped,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, table_in_a_table)
{
	.spoil = table_in_a_table,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, next_past_the_table)
{
	.spoil = next_past_the_table,
	.indirect = true,
};

FIXTURE_VARIANT_ADD(broken, loop_in_the_table)
{
	.spoil = loop_in_the_table,
	.indirect = true,
};

FIXTURE_SETUP(broken)
{
	struct vdpa *v = &self->v;

	OPEN_OR_SKIP(v);
	NEED(v, CAP_CTRL);
	NEED(v, CAP_CTRL_STRICT);
	if (variant->indirect)
		NEED(v, CAP_INDIRECT);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, ctrl_init(&self->q, v, CTRL_RING));
	ASSERT_EQ(0, ctrl_get_mac(v, self->mac));
	memcpy(self->other, self->mac, sizeof(self->other));
	self->other[5] ^= 0x55;
	self->guarded = vdpa_alloc(v, 2 * PAGE, PAGE);
	ASSERT_NE(NULL, self->guarded);
	memset(self->guarded, CTRL_NO_ACK, 2 * PAGE);
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, read_only(v), PAGE, self->guarded,
				VHOST_ACCESS_RO));
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, write_only(v), PAGE, self->guarded + PAGE,
				VHOST_ACCESS_WO));
}

FIXTURE_TEARDOWN(broken)
{
	if (self->q.v)
		vq_free(&self->q);
	vdpa_close(&self->v);
}

TEST_F_TIMEOUT(broken, chain_stops_the_queue_until_a_reset, TEST_SECONDS)
{
	uint64_t features = variant->indirect ? BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) : 0;
	int call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	struct vring_desc *table = vdpa_alloc(v, PAGE, PAGE);
	uint16_t head, i;

	ASSERT_LE(0, call);
	ASSERT_NE(NULL, table);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &call));
	ASSERT_EQ(0, ctrl_start(q, features, 0));
	ASSERT_EQ(VIRTIO_NET_ERR, ctrl_run(q, CTRL_NOBODY, 0, "", 0));

	/* one that is broken, and a good one behind it */
	ctrl_fill(q, 0, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, self->other,
		  CTRL_MAC_LEN);
	ctrl_fill(q, 4, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, self->other,
		  CTRL_MAC_LEN);
	head = variant->spoil(q, table);
	for (i = 0; i < 2; i++) {
		q->avail->ring[q->avail_idx % q->size] = htole16(i ? 4 * q->segs : head);
		q->avail_idx++;
		__atomic_store_n(&q->avail->idx, htole16(q->avail_idx), __ATOMIC_RELEASE);
	}
	vq_kick(q);

	ASSERT_EQ(0, ctrl_needs_reset(v)) {
		TH_LOG("the status does not get DEVICE_NEEDS_RESET");
	}
	EXPECT_EQ(0, wait_readable(call, deadline(CTRL_MS))) {
		TH_LOG("no notification of it (virtio 1.3, 2.1.2)");
	}
	vq_kick(q);
	sleep_ms(STILL_MS);
	EXPECT_EQ(1, vq_device_used(q));
	EXPECT_EQ(CTRL_NO_ACK, *ctrl_ack(q, 0));
	EXPECT_EQ(CTRL_NO_ACK, *ctrl_ack(q, 4));
	EXPECT_EQ(CTRL_NO_ACK, self->guarded[0]);
	EXPECT_EQ(CTRL_NO_ACK, self->guarded[PAGE]);
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));

	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, ctrl_start(q, features, 0));
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->other));
	close(call);
}

TEST_HARNESS_MAIN
