// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KUnit tests of what virtio_lm_vdpa decides without a device.
 */
#include <kunit/test.h>
#include <linux/etherdevice.h>
#include <linux/sizes.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "virtio_lm_vdpa.h"

#define MUST	(BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM))
#define CVQ	BIT_ULL(VIRTIO_NET_F_CTRL_VQ)
#define MQ	BIT_ULL(VIRTIO_NET_F_MQ)
#define RSS	BIT_ULL(VIRTIO_NET_F_RSS)

/* The layouts of QEMU's BAR 4, without and with page-per-vq=on */
static const struct virtio_lm_notify shared = { .bar = 4, .offset = 0x3000, .length = 0x1000 };
static const struct virtio_lm_notify per_vq = { .bar = 4, .offset = 0x3000, .length = SZ_4M };

static void place_follows_notify(struct kunit *test)
{
	u32 offset = 0;

	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(SZ_32K, &shared, &offset), 0);
	KUNIT_EXPECT_EQ(test, offset, 0x4000);
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(SZ_8M, &per_vq, &offset), 0);
	KUNIT_EXPECT_EQ(test, offset, 0x403000);
}

static void place_stays_in_bar(struct kunit *test)
{
	const struct virtio_lm_notify odd = { .offset = 0x3000, .length = 0xfff };
	const struct virtio_lm_notify wraps = { .offset = 0xfffff000, .length = 0x2000 };
	u32 offset = 0;

	/* vdpa=off: the BAR ends where the block would begin */
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(SZ_16K, &shared, &offset), -ENODEV);
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(0x4000 + VIRTIO_LM_SIZE - 1, &shared, &offset),
			-ENODEV);
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(0x4000 + VIRTIO_LM_SIZE, &shared, &offset), 0);
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(SZ_32K, &odd, &offset), -ENODEV);
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(SZ_8G, &wraps, &offset), -ENODEV);
	KUNIT_EXPECT_EQ(test, virtio_lm_block_offset(0, &shared, &offset), -ENODEV);
}

static void ring_registers_fill_the_block(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, VIRTIO_LM_RING_STATE(0), 0x20);
	KUNIT_EXPECT_EQ(test, VIRTIO_LM_RING_STATE(1023), 0x20 + 1023 * 4);
	KUNIT_EXPECT_EQ(test, VIRTIO_LM_SIZE, 0x1020);
}

static void doorbell_in_notify_structure(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, virtio_lm_doorbell_fits(&shared, 0x3000, 2));
	KUNIT_EXPECT_TRUE(test, virtio_lm_doorbell_fits(&shared, 0x3ffe, 2));
	KUNIT_EXPECT_TRUE(test, virtio_lm_doorbell_fits(&shared, 0x3ffc, 4));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_fits(&shared, 0x3ffe, 4));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_fits(&shared, 0x3001, 2));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_fits(&shared, 0x4000, 2));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_fits(&shared, 0x2ffe, 2));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_fits(&shared, -2ULL, 2));
}

static void doorbell_page_is_exclusive(struct kunit *test)
{
	const resource_size_t bar = 0xfe000000;

	/* queues 0 and 1023 of page-per-vq, and 1024, where the LM block is */
	KUNIT_EXPECT_TRUE(test, virtio_lm_doorbell_mappable(&per_vq, 0x3000, SZ_4K, bar + 0x3000,
							    SZ_4K));
	KUNIT_EXPECT_TRUE(test, virtio_lm_doorbell_mappable(&per_vq, 0x402000, SZ_4K,
							    bar + 0x402000, SZ_4K));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_mappable(&per_vq, 0x403000, SZ_4K,
							     bar + 0x403000, SZ_4K));
	/* the page of queue 0 is that of all others too */
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_mappable(&shared, 0x3000, 4, bar + 0x3000,
							     SZ_4K));
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_mappable(&shared, 0x3000, 0, bar + 0x3000,
							     SZ_4K));
	/* pages larger than the stride */
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_mappable(&per_vq, 0x3000, SZ_4K, bar + 0x3000,
							     SZ_64K));
	/* not at the start of a page */
	KUNIT_EXPECT_FALSE(test, virtio_lm_doorbell_mappable(&per_vq, 0x3800, SZ_4K, bar + 0x3800,
							     SZ_4K));
}

static void ring_split_writes_used_as_avail(struct kunit *test)
{
	static const u16 idx[] = { 0, 1, 0x7fff, 0x8000, 0xffff };
	struct vdpa_vq_state in, out;
	int i;

	for (i = 0; i < ARRAY_SIZE(idx); i++) {
		in.split.avail_index = idx[i];
		KUNIT_EXPECT_EQ(test, virtio_lm_ring_encode(&in, false), idx[i] * 0x10001U);
		virtio_lm_ring_decode(idx[i] * 0x10001U, false, &out);
		KUNIT_EXPECT_EQ(test, out.split.avail_index, idx[i]);
	}

	virtio_lm_ring_decode(0x00050007, false, &out);
	KUNIT_EXPECT_EQ(test, out.split.avail_index, 7);
}

static void ring_packed_keeps_both_halves(struct kunit *test)
{
	struct vdpa_vq_state in = { }, out = { };

	in.packed.last_avail_idx = 0x1234;
	in.packed.last_avail_counter = 1;
	in.packed.last_used_idx = 0x7fff;
	in.packed.last_used_counter = 0;
	KUNIT_EXPECT_EQ(test, virtio_lm_ring_encode(&in, true), 0x7fff9234);

	virtio_lm_ring_decode(0x7fff9234, true, &out);
	KUNIT_EXPECT_EQ(test, (u16)out.packed.last_avail_idx, 0x1234);
	KUNIT_EXPECT_EQ(test, (u16)out.packed.last_avail_counter, 1);
	KUNIT_EXPECT_EQ(test, (u16)out.packed.last_used_idx, 0x7fff);
	KUNIT_EXPECT_EQ(test, (u16)out.packed.last_used_counter, 0);
}

static void ring_packed_stays_in_the_ring(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0x80008000, true, 256));
	KUNIT_EXPECT_FALSE(test, virtio_lm_ring_valid(0x80008100, true, 256));
	KUNIT_EXPECT_FALSE(test, virtio_lm_ring_valid(0x81008000, true, 256));
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0xffffffff, false, 256));
}

static void ring_packed_can_go_on(struct kunit *test)
{
	/* empty, on either lap */
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0x00050005, true, 256));
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0x80ff80ff, true, 256));
	/* one descriptor, and all but one, in flight */
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0x80048005, true, 256));
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0x800080ff, true, 256));
	KUNIT_EXPECT_TRUE(test, virtio_lm_ring_valid(0x80068005 ^ 0x8000, true, 256));
	/* all of them, on either lap */
	KUNIT_EXPECT_FALSE(test, virtio_lm_ring_valid(0x00008000, true, 256));
	KUNIT_EXPECT_FALSE(test, virtio_lm_ring_valid(0x80050005, true, 256));
	/* used ahead of available */
	KUNIT_EXPECT_FALSE(test, virtio_lm_ring_valid(0x80068005, true, 256));
	KUNIT_EXPECT_FALSE(test, virtio_lm_ring_valid(0x80040005, true, 256));
}

static void default_offer_suits_shadow_virtqueues(struct kunit *test)
{
	static const unsigned int masked[] = {
		VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_F_RING_RESET, VIRTIO_NET_F_GSO,
		VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
		VIRTIO_NET_F_HOST_USO, VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER,
		VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_SR_IOV, VIRTIO_NET_F_CTRL_VQ,
	};
	static const unsigned int offered[] = {
		VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM, VIRTIO_RING_F_EVENT_IDX,
		VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MRG_RXBUF,
		VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
	};
	u64 offer = virtio_lm_default_features(U64_MAX, false, 4);
	int i;

	for (i = 0; i < ARRAY_SIZE(masked); i++)
		KUNIT_EXPECT_FALSE_MSG(test, offer & BIT_ULL(masked[i]), "bit %u", masked[i]);
	for (i = 0; i < ARRAY_SIZE(offered); i++)
		KUNIT_EXPECT_TRUE_MSG(test, offer & BIT_ULL(offered[i]), "bit %u", offered[i]);

	KUNIT_EXPECT_EQ(test, virtio_lm_features_lacking_ctrl_vq(offer), 0);
	KUNIT_EXPECT_EQ(test, virtio_lm_default_features(MUST, true, 4), MUST);
}

static void a_mailbox_brings_the_control_virtqueue(struct kunit *test)
{
	u64 none = virtio_lm_default_features(U64_MAX, false, 4);
	u64 one = virtio_lm_default_features(U64_MAX, true, 1);
	u64 four = virtio_lm_default_features(U64_MAX, true, 4);

	KUNIT_EXPECT_EQ(test, none & (CVQ | MQ), 0);
	KUNIT_EXPECT_EQ(test, one & (CVQ | MQ), CVQ);
	KUNIT_EXPECT_EQ(test, four, one | MQ);
	KUNIT_EXPECT_EQ(test, one & ~none, CVQ | BIT_ULL(VIRTIO_NET_F_CTRL_RX) |
			BIT_ULL(VIRTIO_NET_F_CTRL_RX_EXTRA) | BIT_ULL(VIRTIO_NET_F_CTRL_VLAN) |
			BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR) |
			BIT_ULL(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
	/* a device without one has none by default */
	KUNIT_EXPECT_EQ(test, virtio_lm_default_features(~CVQ, true, 4), none);
}

static void what_no_mailbox_serves_is_the_devices_own(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, virtio_lm_software_ctrl(MUST | CVQ, true));
	KUNIT_EXPECT_FALSE(test, virtio_lm_software_ctrl(MUST | CVQ, false));
	KUNIT_EXPECT_FALSE(test, virtio_lm_software_ctrl(MUST, true));
	KUNIT_EXPECT_FALSE(test, virtio_lm_software_ctrl(MUST | CVQ | BIT_ULL(VIRTIO_F_RING_PACKED),
							 true));
	KUNIT_EXPECT_FALSE(test, virtio_lm_software_ctrl(MUST | CVQ |
							 BIT_ULL(VIRTIO_NET_F_NOTF_COAL), true));
}

static void ctrl_vq_dependants_come_with_it(struct kunit *test)
{
	static const unsigned int dependants[] = {
		VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN,
		VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
		VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ, VIRTIO_NET_F_RSS,
		VIRTIO_NET_F_HASH_REPORT, VIRTIO_NET_F_NOTF_COAL, VIRTIO_NET_F_VQ_NOTF_COAL,
	};
	u64 bit;
	int i;

	for (i = 0; i < ARRAY_SIZE(dependants); i++) {
		bit = BIT_ULL(dependants[i]);
		KUNIT_EXPECT_EQ_MSG(test, virtio_lm_features_lacking_ctrl_vq(MUST | bit), bit,
				    "bit %u", dependants[i]);
		KUNIT_EXPECT_EQ_MSG(test, virtio_lm_features_lacking_ctrl_vq(MUST | CVQ | bit), 0,
				    "bit %u", dependants[i]);
	}
}

static void packed_needs_its_capability(struct kunit *test)
{
	u64 packed = BIT_ULL(VIRTIO_F_RING_PACKED);

	KUNIT_EXPECT_EQ(test, virtio_lm_usable_features(packed, VIRTIO_LM_CAP_SUSPEND), 0);
	KUNIT_EXPECT_EQ(test, virtio_lm_usable_features(packed, VIRTIO_LM_CAP_PACKED), packed);
	KUNIT_EXPECT_EQ(test, virtio_lm_usable_features(BIT_ULL(VIRTIO_F_NOTIF_CONFIG_DATA) |
							BIT_ULL(VIRTIO_F_ADMIN_VQ) | BIT_ULL(51) |
							MUST, U32_MAX),
			MUST);
}

static void config_is_the_same_for_every_build(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, VIRTIO_LM_CONFIG_SIZE, 24);
}

static void provisioned_fields_bring_their_bits(struct kunit *test)
{
	const struct virtio_lm_config none = { };
	const struct virtio_lm_config mac = { .has_mac = true };
	const struct virtio_lm_config mtu = { .mtu = 1400 };

	KUNIT_EXPECT_EQ(test, virtio_lm_overlay_features(&none), 0);
	KUNIT_EXPECT_EQ(test, virtio_lm_overlay_features(&mac), BIT_ULL(VIRTIO_NET_F_MAC));
	KUNIT_EXPECT_EQ(test, virtio_lm_overlay_features(&mtu), BIT_ULL(VIRTIO_NET_F_MTU));
}

static void ring_reset_is_for_the_driver(struct kunit *test)
{
	size_t len = offsetofend(struct virtio_pci_modern_common_cfg, queue_reset);
	u64 reset = BIT_ULL(VIRTIO_F_RING_RESET);
	u64 mac = BIT_ULL(VIRTIO_NET_F_MAC);

	KUNIT_EXPECT_EQ(test, virtio_lm_driver_features(MUST, MUST | reset, len), MUST | reset);
	KUNIT_EXPECT_EQ(test, virtio_lm_driver_features(MUST, MUST, len), MUST);
	/* there is no register for it */
	KUNIT_EXPECT_EQ(test, virtio_lm_driver_features(MUST, MUST | reset, len - 1), MUST);
	/* a provisioned MAC is not the device's */
	KUNIT_EXPECT_EQ(test, virtio_lm_driver_features(MUST | mac, MUST, len), MUST);
}

static void pairs_without_multiqueue(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST, false, 0, 1, 2), 1);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST, false, 1, 1, 3), 1);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST, false, 0, 8, 17), 1);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST, false, 2, 8, 17), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST, false, 0, 1, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST | CVQ, false, 0, 1, 3), 1);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST | CVQ, false, 0, 1, 2), -EINVAL);
}

static void pairs_with_multiqueue(struct kunit *test)
{
	u64 mq = MUST | CVQ | MQ;

	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 0, 4, 9), 4);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 3, 4, 9), 3);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 5, 4, 9), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 1, 4, 9), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 1, 1, 3), 1);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, true, 1, 4, 9), 1);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(MUST | CVQ | RSS, false, 2, 4, 9), 2);

	/* devices that lie about their pairs */
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 0, 0, 9), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 0, 4, 8), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 0, U16_MAX, VIRTIO_LM_MAX_VQS), -EINVAL);
	KUNIT_EXPECT_EQ(test, virtio_lm_pairs(mq, false, 2, 0x8000, U16_MAX), -EINVAL);
}

static void control_queue_keeps_its_place(struct kunit *test)
{
	u64 mq = MUST | CVQ | MQ;

	KUNIT_EXPECT_EQ(test, virtio_lm_device_idx(0, mq, 2, 4), 0);
	KUNIT_EXPECT_EQ(test, virtio_lm_device_idx(3, mq, 2, 4), 3);
	KUNIT_EXPECT_EQ(test, virtio_lm_device_idx(4, mq, 2, 4), 8);
	KUNIT_EXPECT_EQ(test, virtio_lm_device_idx(8, mq, 4, 4), 8);
	KUNIT_EXPECT_EQ(test, virtio_lm_device_idx(2, MUST | CVQ, 1, 4), 2);
}

static void overlay_replaces_what_was_given(struct kunit *test)
{
	static const u8 own[ETH_ALEN] = { 0x52, 0x54, 0, 1, 2, 3 };
	struct virtio_lm_config overlay = { .mac = { 0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee } };
	struct virtio_net_config config = {
		.status = __cpu_to_virtio16(true, VIRTIO_NET_S_LINK_UP),
		.mtu = __cpu_to_virtio16(true, 1500),
		.max_virtqueue_pairs = __cpu_to_virtio16(true, 4),
	};

	ether_addr_copy(config.mac, own);
	virtio_lm_overlay_config(&config, &overlay, false);
	KUNIT_EXPECT_TRUE(test, ether_addr_equal_unaligned(config.mac, own));
	KUNIT_EXPECT_EQ(test, __virtio16_to_cpu(true, config.mtu), 1500);
	KUNIT_EXPECT_EQ(test, __virtio16_to_cpu(true, config.max_virtqueue_pairs), 4);

	overlay.has_mac = true;
	virtio_lm_overlay_config(&config, &overlay, true);
	KUNIT_EXPECT_TRUE(test, ether_addr_equal_unaligned(config.mac, own));

	overlay.mtu = 1400;
	overlay.max_pairs = 2;
	virtio_lm_overlay_config(&config, &overlay, false);
	KUNIT_EXPECT_TRUE(test, ether_addr_equal_unaligned(config.mac, overlay.mac));
	KUNIT_EXPECT_EQ(test, __virtio16_to_cpu(true, config.mtu), 1400);
	KUNIT_EXPECT_EQ(test, __virtio16_to_cpu(true, config.max_virtqueue_pairs), 2);
	KUNIT_EXPECT_EQ(test, __virtio16_to_cpu(true, config.status), VIRTIO_NET_S_LINK_UP);
}

static struct kunit_case virtio_lm_vdpa_cases[] = {
	KUNIT_CASE(place_follows_notify),
	KUNIT_CASE(place_stays_in_bar),
	KUNIT_CASE(ring_registers_fill_the_block),
	KUNIT_CASE(doorbell_in_notify_structure),
	KUNIT_CASE(doorbell_page_is_exclusive),
	KUNIT_CASE(ring_split_writes_used_as_avail),
	KUNIT_CASE(ring_packed_keeps_both_halves),
	KUNIT_CASE(ring_packed_stays_in_the_ring),
	KUNIT_CASE(ring_packed_can_go_on),
	KUNIT_CASE(default_offer_suits_shadow_virtqueues),
	KUNIT_CASE(a_mailbox_brings_the_control_virtqueue),
	KUNIT_CASE(what_no_mailbox_serves_is_the_devices_own),
	KUNIT_CASE(ctrl_vq_dependants_come_with_it),
	KUNIT_CASE(packed_needs_its_capability),
	KUNIT_CASE(config_is_the_same_for_every_build),
	KUNIT_CASE(provisioned_fields_bring_their_bits),
	KUNIT_CASE(ring_reset_is_for_the_driver),
	KUNIT_CASE(pairs_without_multiqueue),
	KUNIT_CASE(pairs_with_multiqueue),
	KUNIT_CASE(control_queue_keeps_its_place),
	KUNIT_CASE(overlay_replaces_what_was_given),
	{ }
};

static struct kunit_suite virtio_lm_vdpa_suite = {
	.name = "virtio_lm_vdpa",
	.test_cases = virtio_lm_vdpa_cases,
};

kunit_test_suite(virtio_lm_vdpa_suite);
