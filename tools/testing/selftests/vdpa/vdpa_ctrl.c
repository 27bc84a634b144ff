// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control virtqueue of a vDPA net device: what its commands do, and what becomes of them
 * while the device is stopped, moved and started again.
 */
#include <endian.h>

#include "kselftest_harness.h"
#include "ctrl.h"
#include "vdpa_nl.h"

#define TEST_SECONDS	600	/* of the harness; the tests' own deadlines come first */
#define STILL_MS	60	/* how long one waits for what must not happen */
#define COMMANDS	66000	/* more than a ring's index can count */

FIXTURE(ctrl) {
	struct vdpa v;
	struct vq q;
	uint8_t mac[CTRL_MAC_LEN], other[CTRL_MAC_LEN];	/* see ctrl_begin() */
};

FIXTURE_SETUP(ctrl)
{
	OPEN_OR_SKIP(&self->v);
	NEED(&self->v, CAP_CTRL);
	ASSERT_EQ(0, ctrl_begin(&self->v, &self->q, self->mac, self->other));
}

FIXTURE_TEARDOWN(ctrl)
{
	EXPECT_EQ(0, ctrl_end(&self->q, self->mac));
	vdpa_close(&self->v);
}

/* Nothing more is used; kicked or not */
static void expect_still(struct __test_metadata *_metadata, struct vq *q)
{
	uint16_t used = vq_device_used(q);
	int i;

	for (i = 0; i < 2; i++) {
		sleep_ms(STILL_MS);
		EXPECT_EQ(used, vq_device_used(q)) {
			TH_LOG("commands were executed that should not have been");
		}
		vq_kick(q);
	}
	sleep_ms(STILL_MS);
	EXPECT_EQ(used, vq_device_used(q)) {
		TH_LOG("a kick had commands executed that should not have been");
	}
}

/* What was acked is in the configuration, in nothing else of it, and for netlink to tell */
TEST_F_TIMEOUT(ctrl, a_mac_that_is_set_is_in_the_configuration, TEST_SECONDS)
{
	struct virtio_net_config before, after;
	struct vdpa *v = &self->v;
	struct vdpa_nl_info info;
	int i;

	ASSERT_EQ(0, vdpa_get_config(v, 0, &before, offsetof(struct virtio_net_config, mtu)));
	for (i = 0; i < 4; i++) {
		self->other[5]++;
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(&self->q, self->other));
		EXPECT_TRUE(ctrl_has_mac(v, self->other));
		ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
		ASSERT_TRUE(info.has_mac);
		EXPECT_EQ(0, memcmp(info.mac, self->other, sizeof(info.mac)));
	}
	ASSERT_EQ(0, vdpa_get_config(v, 0, &after, offsetof(struct virtio_net_config, mtu)));
	memcpy(before.mac, self->other, sizeof(before.mac));
	EXPECT_EQ(0, memcmp(&before, &after, offsetof(struct virtio_net_config, mtu)));
}

/* A reset forgets what was commanded; so does another owner */
TEST_F_TIMEOUT(ctrl, a_reset_brings_the_provisioned_mac_back, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	NEED(v, CAP_CTRL_STRICT);
	ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(&self->q, self->other));
	ASSERT_EQ(0, vdpa_reset(v));
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
	ASSERT_EQ(0, ctrl_start(&self->q, 0, 0));
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
	ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(&self->q, self->other));
	ASSERT_EQ(0, vdpa_reopen(v));
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
}

/* The MAC that a VMM gives its NIC is the guest's, over all resets, and nobody's after that */
TEST_F_TIMEOUT(ctrl, a_mac_that_the_vmm_writes_is_there_until_it_closes, TEST_SECONDS)
{
	struct {
		struct vhost_vdpa_config c;
		uint8_t mac[CTRL_MAC_LEN];
	} set = { .c.off = offsetof(struct virtio_net_config, mac), .c.len = CTRL_MAC_LEN };
	struct vdpa *v = &self->v;

	NEED(v, CAP_CTRL_STRICT);
	memcpy(set.mac, self->other, CTRL_MAC_LEN);

	/* a driver has read the other one already */
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG, &set));
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));

	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG, &set));
	EXPECT_TRUE(ctrl_has_mac(v, self->other));
	ASSERT_EQ(0, ctrl_start(&self->q, 0, 0));
	EXPECT_TRUE(ctrl_has_mac(v, self->other));
	ASSERT_EQ(0, vdpa_reset(v));
	EXPECT_TRUE(ctrl_has_mac(v, self->other));
	EXPECT_EQ(-EBUSY, vdpa_nl_dev_set_mac(v->name, self->mac));

	ASSERT_EQ(0, vdpa_reopen(v));
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
}

/* Receive modes, VLANs and address tables, where they are offered */
TEST_F_TIMEOUT(ctrl, what_is_negotiated_is_acked, TEST_SECONDS)
{
	static const uint8_t on = 1, off;
	static const uint16_t vlan = 0x0701;
	static const uint32_t tables[2];	/* both empty */
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;

	if (v->features & BIT_ULL(VIRTIO_NET_F_CTRL_RX)) {
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_RX,
						  VIRTIO_NET_CTRL_RX_PROMISC, &on, 1));
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_RX,
						  VIRTIO_NET_CTRL_RX_ALLMULTI, &on, 1));
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_MAC,
						  VIRTIO_NET_CTRL_MAC_TABLE_SET, tables,
						  sizeof(tables)));
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_RX,
						  VIRTIO_NET_CTRL_RX_ALLMULTI, &off, 1));
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_RX,
						  VIRTIO_NET_CTRL_RX_PROMISC, &off, 1));
	}
	if (v->features & BIT_ULL(VIRTIO_NET_F_CTRL_VLAN)) {
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_VLAN,
						  VIRTIO_NET_CTRL_VLAN_ADD, &vlan, sizeof(vlan)));
		EXPECT_EQ(VIRTIO_NET_OK, ctrl_run(q, VIRTIO_NET_CTRL_VLAN,
						  VIRTIO_NET_CTRL_VLAN_DEL, &vlan, sizeof(vlan)));
	}
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->mac));
}

/* How many commands there were and were refused */
static void count(struct __test_metadata *_metadata, struct vq *q, uint64_t *commands,
		  uint64_t *errors)
{
	struct vdpa_nl_info info;
	unsigned int i, of_commands = 0, of_errors = 0;

	*commands = 0;
	/* the simulator counts after it has answered: a suspend waits for that */
	ASSERT_EQ(0, vdpa_ioctl(q->v, VHOST_VDPA_SUSPEND, NULL));
	ASSERT_EQ(0, vdpa_nl_vstats_get(q->v->name, q->index, &info));
	ASSERT_EQ(0, vdpa_ioctl(q->v, VHOST_VDPA_RESUME, NULL));
	ASSERT_GE(VDPA_NL_STATS, info.nstats);
	for (i = 0; i < info.nstats; i++) {
		switch (vdpa_stat_kind(vdpa_parent(q->v->parent), info.stats[i].name)) {
		case STAT_COMMANDS:
			*commands += info.stats[i].value;
			of_commands++;
			break;
		case STAT_ERRORS:
			*errors = info.stats[i].value;
			of_errors++;
			break;
		default:
			break;
		}
	}
	ASSERT_TRUE(of_commands && of_errors) {
		TH_LOG("queue %u has no statistics of its commands", q->index);
	}
}

/* Statistics count the commands, and those that were refused */
TEST_F_TIMEOUT(ctrl, statistics_count_the_commands, TEST_SECONDS)
{
	uint64_t commands[2], errors[2];
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	int i;

	NEED(v, CAP_VSTATS);
	NEED(v, CAP_KNOWN_STATS);
	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	count(_metadata, q, &commands[0], &errors[0]);
	for (i = 0; i < 7; i++)
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->mac));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(VIRTIO_NET_ERR, ctrl_run(q, CTRL_NOBODY, 0, "", 0));
	count(_metadata, q, &commands[1], &errors[1]);
	EXPECT_EQ(10, commands[1] - commands[0]);
	EXPECT_EQ(3, errors[1] - errors[0]);
}

/* While it is suspended nothing is executed; then all of it is, once */
TEST_F_TIMEOUT(ctrl, a_suspend_stops_it_and_a_resume_goes_on, TEST_SECONDS)
{
	static const uint16_t values[] = { 0, 1, 0x7fff, 0x8000, 0xffff };
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	uint16_t done = 3;
	size_t i;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	for (i = 0; i < done; i++)
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->mac));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	EXPECT_EQ(done, vdpa_get_base(v, q->index));
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		ASSERT_EQ(0, vdpa_set_base(v, q->index, values[i]));
		EXPECT_EQ(values[i], vdpa_get_base(v, q->index));
	}
	ASSERT_EQ(0, vdpa_set_base(v, q->index, done));

	ASSERT_LE(0, ctrl_post(q, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, self->other,
			       CTRL_MAC_LEN));
	vq_kick(q);
	expect_still(_metadata, q);
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
	EXPECT_EQ(done, vdpa_get_base(v, q->index));

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_take(q));
	EXPECT_TRUE(ctrl_has_mac(v, self->other));
	/* were it executed again, the other one would be back */
	EXPECT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->mac));
	expect_still(_metadata, q);
	EXPECT_TRUE(ctrl_has_mac(v, self->mac));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	EXPECT_EQ(done + 2, vdpa_get_base(v, q->index));
}

/* A resume counts as a kick here, too */
TEST_F_TIMEOUT(ctrl, a_resume_is_a_kick, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	NEED(v, CAP_START_KICKS);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	ASSERT_LE(0, ctrl_post(q, CTRL_NOBODY, 0, "", 0));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	EXPECT_EQ(VIRTIO_NET_ERR, ctrl_take(q));
}

/* So does a start, however early the command was there: before the queue is enabled, or after */
TEST_F_TIMEOUT(ctrl, a_command_that_waits_for_the_queue_is_executed, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	int late, kick;

	NEED(v, CAP_START_KICKS);
	NEED(v, CAP_LATE_ENABLE);
	for (late = 0; late < 2; late++) {
		for (kick = 0; kick < 2; kick++) {
			ASSERT_EQ(0, vdpa_reset(v));
			vq_set_start(q, 0);
			ASSERT_EQ(0, ctrl_negotiate(q, 0));
			ASSERT_EQ(0, vq_setup(q, 0));
			if (late)
				ASSERT_EQ(0, vdpa_set_status(v, CTRL_DRV_OK));
			ASSERT_LE(0, ctrl_post(q, CTRL_NOBODY, 0, "", 0));
			if (kick)
				vq_kick(q);
			ASSERT_EQ(0, vq_enable(q, true));
			if (!late)
				ASSERT_EQ(0, vdpa_set_status(v, CTRL_DRV_OK));
			EXPECT_EQ(VIRTIO_NET_ERR, ctrl_take(q)) {
				TH_LOG("enabled %s DRIVER_OK, %skicked", late ? "after" : "before",
				       kick ? "" : "not ");
			}
		}
	}
}

/* A start at the saved index goes on there, with what the source has left, and executes it once */
TEST_F_TIMEOUT(ctrl, a_start_goes_on_where_the_last_one_stopped, TEST_SECONDS)
{
	static const uint16_t starts[] = { 0, 1, 7, 0x7ffe, 0xfffd, 0xfffe, 0xffff };
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;
	size_t i;
	int base;

	NEED(v, CAP_SUSPEND);
	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, ctrl_start(q, 0, starts[i]));
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->mac));
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		ASSERT_LE(0, ctrl_post(q, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
				       self->other, CTRL_MAC_LEN));
		base = vdpa_get_base(v, q->index);
		EXPECT_EQ((uint16_t)(starts[i] + 1), base);

		ASSERT_EQ(0, vdpa_reset(v));
		EXPECT_EQ(0, vdpa_get_base(v, q->index));
		ASSERT_EQ(0, ctrl_resume_at(q, 0, base));
		vq_kick(q);
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_take(q)) {
			TH_LOG("started at %u", starts[i]);
		}
		EXPECT_TRUE(ctrl_has_mac(v, self->other));
		ASSERT_EQ(VIRTIO_NET_OK, ctrl_set_mac(q, self->mac));
		expect_still(_metadata, q);
		EXPECT_TRUE(ctrl_has_mac(v, self->mac));
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		EXPECT_EQ((uint16_t)(starts[i] + 3), vdpa_get_base(v, q->index));
	}
}

/* A reset forgets what is in the ring: it is neither executed nor acked */
TEST_F_TIMEOUT(ctrl, a_reset_device_executes_nothing, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *q = &self->q;

	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_LE(0, ctrl_post(q, CTRL_NOBODY, 0, "", 0));
	vq_kick(q);
	expect_still(_metadata, q);
	EXPECT_EQ(0, vdpa_get_base(v, q->index));
	EXPECT_EQ(0, vdpa_get_status(v));
}

/* As many commands as there are indices, and more; each is answered once, in its turn */
TEST_F_TIMEOUT(ctrl, commands_go_on_round_the_index, TEST_SECONDS)
{
	uint16_t size = self->v.vq_max < 256 ? self->v.vq_max : 256;
	struct vdpa *v = &self->v;
	uint32_t posted = 0, done = 0;
	uint8_t on;
	struct vq q;
	int ret = 0;
	bool rx;

	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, ctrl_init(&q, v, size));
	ASSERT_EQ(0, ctrl_start(&q, 0, 0));
	rx = v->features & BIT_ULL(VIRTIO_NET_F_CTRL_RX);
	while (done < COMMANDS) {
		while (posted < COMMANDS) {
			on = posted % 2;
			ret = rx ? ctrl_post(&q, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC,
					     &on, 1) :
				   ctrl_post(&q, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
					     self->mac, CTRL_MAC_LEN);
			if (ret < 0)
				break;
			posted++;
		}
		vq_kick(&q);
		while (done < posted) {
			ASSERT_EQ(VIRTIO_NET_OK, ctrl_take(&q)) {
				TH_LOG("command %u", done);
			}
			done++;
		}
	}
	EXPECT_EQ((uint16_t)COMMANDS, vq_device_used(&q));
	if (vdpa_can(v, CAP_SUSPEND)) {
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		EXPECT_EQ((uint16_t)COMMANDS, vdpa_get_base(v, q.index));
	}
	vq_free(&q);
}

TEST_HARNESS_MAIN
